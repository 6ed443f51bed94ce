package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meibo/resolver/resolvconf"
)

func newJoinCommand() *cobra.Command {
	var a asker
	var wan bool
	cmd := &cobra.Command{
		Use: "join ADDRESS...", Short: "Join the cluster of another host", GroupID: "cluster", Args: someArgs("ADDRESS"),
		Long: `Has the daemon meet the hosts at the addresses (with or without a port), and with
them the cluster that each is in. It is not kept: retry_join in the configuration is.`,
		Example: "  meibo join 10.0.0.11\n  meibo join 10.0.0.11:8301 servers.example",
		RunE: func(cmd *cobra.Command, args []string) error {
			if wan {
				return errOneDatacenter
			}
			c, err := a.operate(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			joined := []string{}
			for _, addr := range args {
				if err := c.Join(cmd.Context(), addr); err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "Error joining address '%s': %v\n", addr, explained(c, err))
					continue
				}
				joined = append(joined, addr)
			}
			if len(joined) == 0 {
				//lint:ignore ST1005 Consul's words
				return errors.New("Failed to join any nodes.")
			}
			return a.done(cmd.OutOrStdout(), map[string]any{"Joined": joined}, "Successfully joined cluster by contacting %d nodes.", len(joined))
		},
	}
	cmd.Flags().BoolVar(&wan, "wan", false, "refused: there are no other datacenters yet")
	a.flags(cmd)
	return cmd
}

func newLeaveCommand() *cobra.Command {
	var a asker
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "leave", Short: "Have this host leave its cluster, and end the daemon", GroupID: "cluster", Args: noArgs,
		Long: `Has the daemon tell all others that this host goes, and end. Its services leave the
catalog, and a server gives up its vote. To stop a host that will come back, just
stop the daemon: a restart is not a leave. Returns when the daemon has ended, and
with 1 if that takes longer than -timeout.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.operate(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			left := false
			ended := watchEnd(c)
			defer func() {
				if left && c.Address() == "unix://"+filepath.Join(runFolder, controlName) { // which systemd makes for the unit
					stopUnits(cmd.Context(), cmd.ErrOrStderr())
				}
			}()
			if err := c.Leave(cmd.Context()); err != nil {
				return explained(c, err)
			}
			left = true
			if timeout <= 0 {
				return a.done(cmd.OutOrStdout(), map[string]bool{"Left": true}, "Graceful leave complete; the daemon ends now")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if err := ended(ctx); err != nil {
				return fmt.Errorf("this host has left its cluster, but the daemon has not ended after %v: its log says what it waits for", timeout)
			}
			return a.done(cmd.OutOrStdout(), map[string]bool{"Left": true, "Ended": true}, "Graceful leave complete; the daemon has ended")
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for the daemon's end; 0s: do not wait")
	a.flags(cmd)
	return cmd
}

// daemonUnits are those of the package. The first keeps the sockets, and would have the daemon started again by the next query.
var daemonUnits = []string{"meibo.socket", "meibo.service"}

// stopUnits has systemd leave a daemon ended that has left its cluster, where its units run on this host.
func stopUnits(ctx context.Context, w io.Writer) {
	if exec.CommandContext(ctx, "systemctl", "--quiet", "is-active", daemonUnits[0]).Run() != nil {
		return // there is no systemd, or no such unit, or it is not active
	}
	stop := append([]string{"stop"}, daemonUnits...)
	if out, err := exec.CommandContext(ctx, "systemctl", stop...).CombinedOutput(); err != nil {
		fmt.Fprintf(w, "warning: the next query has systemd start the daemon again, and it joins again: run `systemctl stop %s` (%v: %s)\n",
			strings.Join(daemonUnits, " "), err, strings.TrimSpace(string(out)))
		return
	}
	if s, err := new(resolvconf.Host).Status(); err == nil && s.State == resolvconf.Installed {
		fmt.Fprintln(w, "warning: programs of this host still ask meibo for names: run `meibo resolv restore`")
	}
	fmt.Fprintf(w, "%s are stopped; to keep that over a reboot: systemctl disable %s\n", strings.Join(daemonUnits, " and "), strings.Join(daemonUnits, " "))
}

func newForceLeaveCommand() *cobra.Command {
	var a asker
	var prune, wan bool
	cmd := &cobra.Command{
		Use: "force-leave [-prune] NODE", Short: "Declare a failed host to have left", GroupID: "cluster", Args: oneArg("NODE"),
		Long: `Declares a failed host to have left for good: its services leave the catalog now,
not when reconnect_timeout is over, and a server leaves the Raft configuration. A
host that lives contradicts, and stays: that is said, and exit code 1. With -prune it
is dropped from the list of members as well.`,
		ValidArgsFunction: once(a.known(goneNames)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if wan {
				return errOneDatacenter
			}
			c, err := a.operate(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			remark, err := c.ForceLeave(cmd.Context(), args[0], prune)
			switch {
			case err != nil:
				return explained(c, err)
			case remark != "":
				return errors.New(remark)
			case a.json:
				return printJSON(cmd.OutOrStdout(), map[string]any{"ForcedToLeave": args[0], "Pruned": prune})
			}
			return nil // as Consul says nothing
		},
	}
	cmd.Flags().BoolVar(&prune, "prune", false, "drop it from the list of members too")
	cmd.Flags().BoolVar(&wan, "wan", false, "refused: there are no other datacenters yet")
	a.flags(cmd)
	return cmd
}

// newForgetCommand is `meibo nodes forget` and `meibo catalog forget`.
func newForgetCommand() *cobra.Command {
	var a asker
	cmd := &cobra.Command{
		Use: "forget NODE", Short: "Remove a node that no agent answers for any more, on every host", Args: oneArg("NODE"),
		Long: `Removes a node that nobody answers for (registered through the catalog API, or left
over from before the servers began anew) from the catalog and from what every host
knows, whether this catalog has it or not. A host that runs meibo registers itself
again: use ` + "`meibo leave`" + ` there, or force-leave, in place of this.`,
		ValidArgsFunction: once(a.known(nodeNames)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.operate(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Forget(cmd.Context(), args[0]); err != nil {
				return explained(c, err)
			}
			return a.done(cmd.OutOrStdout(), map[string]string{"Forgot": args[0]}, "Forgot node %s", args[0])
		},
	}
	a.flags(cmd)
	return cmd
}

func newCatalogCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "catalog", Short: "Change the catalog itself", GroupID: "cluster"}
	cmd.AddCommand(newForgetCommand())
	return cmd
}
