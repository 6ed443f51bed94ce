package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meibo/cluster/httpapi/client"
)

func newOperatorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "operator", Short: "See and change the servers: Raft and autopilot", GroupID: "cluster"}
	raft := &cobra.Command{Use: "raft", Short: "Raft: who the servers are"}
	raft.AddCommand(newListPeersCommand(), newRemovePeerCommand(), newTransferLeaderCommand())
	autopilot := &cobra.Command{Use: "autopilot", Short: "Autopilot: how the servers are, and how they are tended"}
	autopilot.AddCommand(newAutopilotConfigCommand(), newAutopilotSetCommand(), newAutopilotHealthCommand(), newAutopilotStateCommand())
	cmd.AddCommand(raft, autopilot)
	return cmd
}

// asking makes a command that asks the daemon and prints what it gets.
func asking(cmd *cobra.Command, a *asker, ask func(*cobra.Command, *client.Client) error) *cobra.Command {
	return calling(cmd, a, func(context.Context) (*client.Client, error) { return a.dial() }, ask)
}

// operating makes a command that has the daemon do what an operator alone may.
func operating(cmd *cobra.Command, a *asker, do func(*cobra.Command, *client.Client) error) *cobra.Command {
	return calling(cmd, a, a.operate, do)
}

func calling(cmd *cobra.Command, a *asker, dial func(context.Context) (*client.Client, error), ask func(*cobra.Command, *client.Client) error) *cobra.Command {
	cmd.Args = noArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := dial(cmd.Context())
		if err != nil {
			return err
		}
		defer c.Close()
		err = ask(cmd, c)
		noteConsul(cmd, c)
		return explained(c, err)
	}
	a.flags(cmd)
	return cmd
}

func newListPeersCommand() *cobra.Command {
	a, stale := new(asker), false
	cmd := asking(&cobra.Command{Use: "list-peers", Short: "List the servers in the Raft configuration"}, a, func(cmd *cobra.Command, c *client.Client) error {
		conf, err := c.RaftConfiguration(cmd.Context(), stale)
		if err != nil {
			return err
		}
		if a.json {
			return printJSON(cmd.OutOrStdout(), conf)
		}
		return table(cmd.OutOrStdout(), peerRows(conf))
	})
	cmd.Flags().BoolVar(&stale, "stale", false, "ask any server, for when there is no leader")
	return cmd
}

func peerRows(conf *client.RaftConfiguration) [][]string {
	leader := uint64(0)
	for _, s := range conf.Servers {
		if s.Leader {
			leader = s.LastIndex
		}
	}
	rows := [][]string{{"Node", "ID", "Address", "State", "Voter", "RaftProtocol", "Commit Index", "Trails Leader By"}}
	for _, s := range conf.Servers {
		state, index, trails := "follower", "-", "-"
		if s.LastIndex > 0 {
			index = strconv.FormatUint(s.LastIndex, 10)
		}
		switch {
		case s.Leader:
			state = "leader"
		case s.LastIndex > 0 && leader > 0:
			behind := leader - min(leader, s.LastIndex)
			if trails = fmt.Sprintf("%d commits", behind); behind == 1 {
				trails = "1 commit"
			}
		}
		rows = append(rows, []string{s.Node, cmp.Or(s.RaftID, s.ID), s.Address, state, strconv.FormatBool(s.Voter), orDash(s.ProtocolVersion), index, trails})
	}
	return rows
}

func newRemovePeerCommand() *cobra.Command {
	var id, address string
	a := new(asker)
	cmd := operating(&cobra.Command{
		Use: "remove-peer {-id ID | -address ADDRESS}", Short: "Take a server out of the Raft configuration",
		Long: `Takes a server that will not come back out of the Raft configuration. Autopilot does
so by itself once another has taken its place; a server that leaves does too. One that
lives comes back by itself: that is said.`,
	}, a, func(cmd *cobra.Command, c *client.Client) error {
		if (id == "") == (address == "") {
			return exitError{2, "one of -id and -address is wanted; `meibo operator raft list-peers` shows both"}
		}
		living := livingServer(cmd.Context(), c, id, address)
		if err := c.RaftRemovePeer(cmd.Context(), id, address); err != nil {
			return err
		}
		if living != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s is alive and will ask to be a server again: run `meibo leave` there to take it out for good\n", living)
		}
		if id != "" {
			return a.done(cmd.OutOrStdout(), map[string]string{"RemovedID": id}, "Removed peer with id %q", id)
		}
		return a.done(cmd.OutOrStdout(), map[string]string{"RemovedAddress": address}, "Removed peer with address %q", address)
	})
	cmd.Flags().StringVar(&id, "id", "", "its Raft `ID`")
	cmd.Flags().StringVar(&address, "address", "", "its `address`, IP:port")
	completeFlag(cmd, "id", a.known(peers(func(s client.RaftServer) string { return s.ID })))
	completeFlag(cmd, "address", a.known(peers(func(s client.RaftServer) string { return s.Address })))
	return cmd
}

// livingServer is the name of the server with this ID or this address if gossip sees it alive; else, and where that can't
// be told, "".
func livingServer(ctx context.Context, c *client.Client, id, address string) string {
	conf, err := c.RaftConfiguration(ctx, false)
	if err != nil {
		return ""
	}
	members, err := c.Members(ctx, false)
	if err != nil {
		return ""
	}
	for _, s := range conf.Servers {
		if s.ID != id && s.RaftID != id && (address == "" || s.Address != address) {
			continue
		}
		if slices.ContainsFunc(members, func(m client.Member) bool { return m.Name == s.Node && m.StatusName() == "alive" }) {
			return s.Node
		}
	}
	return ""
}

func newTransferLeaderCommand() *cobra.Command {
	a, id := new(asker), ""
	cmd := operating(&cobra.Command{Use: "transfer-leader", Short: "Hand leadership to another server"}, a, func(cmd *cobra.Command, c *client.Client) error {
		if err := c.TransferLeader(cmd.Context(), id); err != nil {
			return err
		}
		return a.done(cmd.OutOrStdout(), map[string]bool{"Success": true}, "Success")
	})
	cmd.Flags().StringVar(&id, "id", "", "the Raft `ID` of the server that is to lead; else any")
	completeFlag(cmd, "id", a.known(peers(func(s client.RaftServer) string { return s.ID })))
	return cmd
}

func newAutopilotConfigCommand() *cobra.Command {
	a := new(asker)
	return asking(&cobra.Command{Use: "get-config", Short: "Show how the leader tends the servers"}, a, func(cmd *cobra.Command, c *client.Client) error {
		conf, err := c.AutopilotConfiguration(cmd.Context())
		if err != nil {
			return err
		}
		if a.json {
			return printJSON(cmd.OutOrStdout(), conf)
		}
		w := cmd.OutOrStdout()
		fmt.Fprintf(w, "CleanupDeadServers = %v\nLastContactThreshold = %v\nMaxTrailingLogs = %v\nMinQuorum = %v\nServerStabilizationTime = %v\n",
			conf.CleanupDeadServers, conf.LastContactThreshold, conf.MaxTrailingLogs, conf.MinQuorum, conf.ServerStabilizationTime)
		_, err = fmt.Fprintf(w, "RedundancyZoneTag = %q\nDisableUpgradeMigration = %v\nUpgradeVersionTag = %q\n",
			conf.RedundancyZoneTag, conf.DisableUpgradeMigration, conf.UpgradeVersionTag)
		return err
	})
}

// newAutopilotSetCommand changes what its flags name and leaves the rest, unless somebody else is faster.
func newAutopilotSetCommand() *cobra.Command {
	var set client.AutopilotConfiguration
	var contact, stable time.Duration
	a := new(asker)
	cmd := operating(&cobra.Command{
		Use: "set-config", Short: "Change how the leader tends the servers",
		Long: `Changes the flags' part of autopilot's configuration, which the servers keep: their files
(autopilot { ... }) give the first one.`,
	}, a, func(cmd *cobra.Command, c *client.Client) error {
		conf, err := c.AutopilotConfiguration(cmd.Context())
		if err != nil {
			return err
		}
		for flag, change := range map[string]func(){
			"cleanup-dead-servers":      func() { conf.CleanupDeadServers = set.CleanupDeadServers },
			"last-contact-threshold":    func() { conf.LastContactThreshold = contact.String() },
			"max-trailing-logs":         func() { conf.MaxTrailingLogs = set.MaxTrailingLogs },
			"min-quorum":                func() { conf.MinQuorum = set.MinQuorum },
			"server-stabilization-time": func() { conf.ServerStabilizationTime = stable.String() },
		} {
			if cmd.Flags().Changed(flag) {
				change()
			}
		}
		switch done, err := c.SetAutopilotConfiguration(cmd.Context(), conf); {
		case err != nil:
			return err
		case !done:
			return errors.New("somebody changed the configuration at the same time: nothing was changed, try again")
		}
		return a.done(cmd.OutOrStdout(), conf, "Configuration updated!")
	})
	flags := cmd.Flags()
	flags.BoolVar(&set.CleanupDeadServers, "cleanup-dead-servers", false, "remove dead servers once another has taken their place")
	flags.DurationVar(&contact, "last-contact-threshold", 0, "a server that heard the leader longer ago is not healthy")
	flags.IntVar(&set.MaxTrailingLogs, "max-trailing-logs", 0, "a server so many entries behind is not healthy")
	flags.IntVar(&set.MinQuorum, "min-quorum", 0, "servers that are never gone below by removing dead ones")
	flags.DurationVar(&stable, "server-stabilization-time", 0, "a new server votes after being healthy this long")
	return cmd
}

func newAutopilotHealthCommand() *cobra.Command {
	a := new(asker)
	return asking(&cobra.Command{Use: "health", Short: "Show how the servers are; ends with 2 if one is not well"}, a, func(cmd *cobra.Command, c *client.Client) error {
		h, err := c.AutopilotHealth(cmd.Context())
		if err != nil {
			return err
		}
		if a.json {
			err = printJSON(cmd.OutOrStdout(), h)
		} else {
			err = printHealth(cmd.OutOrStdout(), h)
		}
		if err == nil && !h.Healthy {
			return exitError{code: 2}
		}
		return err
	})
}

func printHealth(w io.Writer, h *client.AutopilotHealth) error {
	fmt.Fprintf(w, "Healthy: %v\nFailure Tolerance: %d\n\n", h.Healthy, h.FailureTolerance)
	rows := [][]string{{"Node", "ID", "Address", "Status", "Version", "Leader", "Voter", "Healthy", "Stable Since", "Last Contact", "Term", "Index"}}
	for _, s := range h.Servers {
		rows = append(rows, []string{
			s.Name, s.ID, s.Address, s.SerfStatus, orDash(s.Version), strconv.FormatBool(s.Leader), strconv.FormatBool(s.Voter), strconv.FormatBool(s.Healthy),
			s.StableSince.Format(time.RFC3339), contact(s.LastContact), strconv.FormatUint(s.LastTerm, 10), strconv.FormatUint(s.LastIndex, 10),
		})
	}
	return table(w, rows)
}

// contact is a time since the last word; Consul's API says "-1ns" where there was none.
func contact(s string) string {
	if strings.HasPrefix(s, "-") {
		return "never"
	}
	return s
}

func newAutopilotStateCommand() *cobra.Command {
	a := new(asker)
	return asking(&cobra.Command{Use: "state", Short: "Show what each server is and how it is, as Consul does"}, a, func(cmd *cobra.Command, c *client.Client) error {
		s, err := c.AutopilotState(cmd.Context())
		if err != nil {
			return err
		}
		if a.json {
			return printJSON(cmd.OutOrStdout(), s)
		}
		printState(cmd.OutOrStdout(), s)
		return nil
	})
}

func printState(w io.Writer, s *client.AutopilotState) {
	fmt.Fprintf(w, "Healthy:                      %v\nFailure Tolerance:            %d\nOptimistic Failure Tolerance: %d\nLeader:                       %s\nVoters:\n",
		s.Healthy, s.FailureTolerance, s.OptimisticFailureTolerance, s.Leader)
	for _, id := range s.Voters {
		fmt.Fprintf(w, "   %s\n", id)
	}
	fmt.Fprintln(w, "Servers:")
	for _, id := range slices.Sorted(maps.Keys(s.Servers)) {
		x := s.Servers[id]
		fmt.Fprintf(w, "   %s\n      Name:               %s\n      Address:            %s\n      Version:            %s\n      Status:             %s\n"+
			"      Node Type:          %s\n      Node Status:        %s\n      Healthy:            %v\n      Last Contact:       %s\n"+
			"      Last Term:          %d\n      Last Index:         %d\n",
			x.ID, x.Name, x.Address, x.Version, x.Status, x.NodeType, x.NodeStatus, x.Healthy, contact(x.LastContact), x.LastTerm, x.LastIndex)
		if len(x.Meta) > 0 {
			fmt.Fprintln(w, "      Meta:")
			for _, k := range slices.Sorted(maps.Keys(x.Meta)) {
				text, _ := json.Marshal(x.Meta[k])
				fmt.Fprintf(w, "         %q: %s\n", k, text)
			}
		}
	}
}
