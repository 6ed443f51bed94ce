package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
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
			services, _, err := c.Services(cmd.Context(), nil)
			if err != nil {
				return explained(c, err)
			}
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

func newNodesCommand() *cobra.Command {
	var a asker
	cmd := &cobra.Command{
		Use: "nodes", Short: "List the nodes of the catalog", GroupID: "ask", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			nodes, _, err := c.Nodes(cmd.Context(), nil)
			if err != nil {
				return explained(c, err)
			}
			if a.json {
				return printJSON(cmd.OutOrStdout(), nodes)
			}
			rows := [][]string{{"Node", "Address", "DC", "ID"}}
			for _, n := range nodes {
				rows = append(rows, []string{n.Node, n.Address, n.Datacenter, n.ID})
			}
			return table(cmd.OutOrStdout(), rows)
		},
	}
	a.flags(cmd)
	cmd.AddCommand(newForgetCommand())
	return cmd
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
