package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meibo/cluster/httpapi/client"
)

func newServicesCommand() *cobra.Command {
	var a asker
	cmd := &cobra.Command{
		Use: "services", Short: "List the services of the catalog and their tags", GroupID: "ask", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			defer noteConsul(cmd, c)
			services, meta, err := c.Services(cmd.Context(), &client.Query{Cached: true})
			if err != nil {
				return explained(c, err)
			}
			noteAge(cmd.ErrOrStderr(), meta)
			if a.json {
				return printJSON(cmd.OutOrStdout(), services)
			}
			rows := [][]string{{"Service", "Tags"}}
			for _, name := range slices.Sorted(maps.Keys(services)) {
				rows = append(rows, []string{name, strings.Join(services[name], ",")})
			}
			return table(cmd.OutOrStdout(), rows)
		},
	}
	a.flags(cmd)
	return cmd
}

func (a *asker) printUnconfirmed(cmd *cobra.Command, c *client.Client) error {
	list, err := c.Unconfirmed(cmd.Context())
	if err != nil {
		return explained(c, err)
	}
	if a.json {
		return printJSON(cmd.OutOrStdout(), list)
	}
	rows := [][]string{{"Node", "Address", "ID", "Unconfirmed", "Last confirmed"}}
	for _, u := range list {
		what, at := strings.Join(u.Services, ","), "unknown"
		if u.All {
			what = strings.TrimSuffix("all of it: "+what, ": ")
		}
		if u.Confirmed != nil {
			at = short(time.Since(*u.Confirmed).Seconds()) + " ago"
		}
		rows = append(rows, []string{u.Node, u.Address, cmp.Or(u.ID, "-"), what, at})
	}
	return table(cmd.OutOrStdout(), rows)
}

func newReloadCommand() *cobra.Command {
	var a asker
	cmd := &cobra.Command{
		Use: "reload", Short: "Have the daemon read its configuration again", GroupID: "daemon", Args: noArgs,
		Long: "Has the daemon read its configuration again, as SIGHUP does. A file with a fault\nleaves everything as it was; the fault is printed. Keys that changed and can't be taken\nwhile the daemon runs are named: they wait for a restart.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.operate(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			remark, err := c.Reload(cmd.Context())
			if err != nil {
				return explained(c, err)
			}
			if remark != "" {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", remark)
			}
			return a.done(cmd.OutOrStdout(), map[string]any{"Reloaded": true, "Warning": remark}, "Configuration reloaded")
		},
	}
	a.flags(cmd)
	return cmd
}
