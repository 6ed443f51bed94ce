package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
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
			joined := 0
			for _, addr := range args {
				if err := c.Join(cmd.Context(), addr); err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "Error joining address '%s': %v\n", addr, explained(c, err))
					continue
				}
				joined++
			}
			if joined == 0 {
				//lint:ignore ST1005 Consul's words
				return errors.New("Failed to join any nodes.")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Successfully joined cluster by contacting %d nodes.\n", joined)
			return nil
		},
	}
	cmd.Flags().BoolVar(&wan, "wan", false, "refused: there are no other datacenters yet")
	a.flags(cmd)
	return cmd
}

// someArgs asks for at least one argument, and says what is missing.
func someArgs(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return exitError{2, fmt.Sprintf("%s is missing; `%s -h` says more", what, cmd.CommandPath())}
		}
		return nil
	}
}

// oneArg asks for exactly one argument.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return exitError{2, fmt.Sprintf("one %s is wanted, there are %d; `%s -h` says more", what, len(args), cmd.CommandPath())}
		}
		return someArgs(what)(cmd, args)
	}
}

func newLeaveCommand() *cobra.Command {
	var a asker
	cmd := &cobra.Command{
		Use: "leave", Short: "Have this host leave its cluster, and end the daemon", GroupID: "cluster", Args: cobra.NoArgs,
		Long: `Has the daemon tell all others that this host goes, and end. Its services leave the
catalog, and a server gives up its vote. To stop a host that will come back, just
stop the daemon: a restart is not a leave.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.operate(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Leave(cmd.Context()); err != nil {
				return explained(c, err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "Graceful leave complete")
			return nil
		},
	}
	a.flags(cmd)
	return cmd
}

func newForceLeaveCommand() *cobra.Command {
	var a asker
	var prune, wan bool
	cmd := &cobra.Command{
		Use: "force-leave [-prune] NODE", Short: "Declare a failed host to have left", GroupID: "cluster", Args: oneArg("NODE"),
		Long: `Declares a failed host to have left for good: its services leave the catalog now,
not when reconnect_timeout is over, and a server leaves the Raft configuration. A
host that lives contradicts, and stays. With -prune it is dropped from the list of
members as well.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if wan {
				return errOneDatacenter
			}
			c, err := a.operate(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			return explained(c, c.ForceLeave(cmd.Context(), args[0], prune))
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
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.operate(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Forget(cmd.Context(), args[0]); err != nil {
				return explained(c, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Forgot node %s\n", args[0])
			return nil
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
