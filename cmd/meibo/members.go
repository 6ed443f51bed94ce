package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meibo/cluster/httpapi/client"
)

// errOneDatacenter answers what Consul's flag -wan asks for.
var errOneDatacenter = exitError{2, "-wan: other datacenters are not there yet; there is no pool of them"}

type membersCommand struct {
	asker
	detailed, wan           bool
	status, segment, filter string
}

func newMembersCommand() *cobra.Command {
	var m membersCommand
	cmd := &cobra.Command{
		Use: "members", Short: "List the hosts that this one sees, and their states", GroupID: "cluster", Args: noArgs,
		SuggestFor: []string{"info"},
		Long: `Lists the hosts of the cluster as this one sees them, in Consul's columns;
Build is the level of the API, and the last column the version of meibo.

-detailed tells what answers go by and why: the state that counts, since when, what
gossip says at this moment and who said so, the round trip, how often a host went
lately and until when its return is held back, what is wrong with it; and below,
which server feeds this host. Ends with 2 if no member matches -status.`,
		Example: "  meibo members\n  meibo members -status 'failed|left'\n  meibo members -detailed",
		RunE:    m.run,
	}
	f := cmd.Flags()
	f.BoolVar(&m.detailed, "detailed", false, "what this host makes of each, and why")
	f.StringVar(&m.status, "status", ".*", "only members whose state matches the `regexp`")
	f.StringVar(&m.filter, "filter", "", "only members that match the `expression`, such as 'Tags.role == consul'")
	completeFlag(cmd, "status", fixed("alive", "failed", "left"))
	f.BoolVar(&m.wan, "wan", false, "refused: there are no other datacenters yet")
	f.StringVar(&m.segment, "segment", "", "refused: there are no segments")
	m.flags(cmd)
	return cmd
}

func (m *membersCommand) run(cmd *cobra.Command, _ []string) error {
	status, err := regexp.Compile(m.status)
	switch {
	case err != nil:
		return exitError{2, fmt.Sprintf("-status: %v", err)}
	case m.wan:
		return errOneDatacenter
	case m.segment != "" && m.segment != "_all":
		return exitError{2, "-segment: network segments are a Consul Enterprise feature; there are none here"}
	}
	c, err := m.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	defer noteConsul(cmd, c)
	if m.detailed {
		return m.runDetailed(cmd, c, status)
	}
	members, err := c.FilteredMembers(cmd.Context(), m.filter)
	if err != nil {
		return explained(c, err)
	}
	members = slices.DeleteFunc(members, func(x client.Member) bool { return !status.MatchString(x.StatusName()) })
	if len(members) == 0 {
		return m.noneMatches()
	}
	slices.SortFunc(members, func(a, b client.Member) int {
		return cmp.Or(cmp.Compare(typeOf(b.Tags), typeOf(a.Tags)), cmp.Compare(a.Name, b.Name)) // servers first
	})
	if m.json {
		return printJSON(cmd.OutOrStdout(), members)
	}
	rows := [][]string{{"Node", "Address", "Status", "Type", "Build", "Protocol", "DC", "Partition", "Segment", "Meibo"}}
	for _, x := range members {
		segment := "<default>"
		if typeOf(x.Tags) == "server" {
			segment = "<all>"
		}
		build, _, _ := strings.Cut(x.Tags["build"], ":")
		rows = append(rows, []string{
			x.Name, hostPort(x.Addr, x.Port), x.StatusName(), typeOf(x.Tags), orDash(build), orDash(x.Tags["vsn"]), x.Tags["dc"], "default", segment, orDash(x.Tags["meibo"]),
		})
	}
	if err := table(cmd.OutOrStdout(), rows); err != nil {
		return err
	}
	sayHeld(cmd.ErrOrStderr(), m.standingOf(cmd, c))
	return nil
}

func (m *membersCommand) noneMatches() error {
	return exitError{2, fmt.Sprintf("no member matches -status %q and -filter %q; states are alive, failed, left, and in detail never seen and suspect", m.status, m.filter)}
}

// standingOf is what Consul's columns have no room for; nothing from a daemon that doesn't tell it.
func (m *membersCommand) standingOf(cmd *cobra.Command, c *client.Client) *client.Standing {
	s, err := c.Standing(cmd.Context(), m.filter)
	if err != nil {
		return new(client.Standing)
	}
	return s
}

// sayHeld names the members that are back and don't count yet, and those that don't answer and still do.
func sayHeld(w io.Writer, s *client.Standing) {
	var silent []string
	for _, x := range s.Members {
		if s.Braking && x.State == "suspect" {
			silent = append(silent, x.Name)
		}
	}
	if len(silent) > 0 {
		slices.Sort(silent)
		fmt.Fprintf(w, "%s: no answer, and counted alive all the same: more than half of the others went at once, so that this host suspects itself until half of them are back or a server confirms it\n",
			strings.Join(silent, ", "))
	}
	for _, x := range s.Members {
		if x.HeldUntil != nil && x.HeldUntil.After(time.Now()) {
			fmt.Fprintf(w, "%s is back, held until %s: it was gone %d times lately\n", x.Name, x.HeldUntil.Local().Format(time.TimeOnly), x.Flaps)
		}
	}
}

// typeOf is what Consul calls a member of this role.
func typeOf(tags map[string]string) string {
	switch tags["role"] {
	case "consul":
		return "server"
	case "node":
		return "client"
	}
	return "unknown"
}

func hostPort(addr string, port uint16) string {
	if port == 0 {
		return addr // it gossips with nobody
	}
	return net.JoinHostPort(addr, strconv.Itoa(int(port)))
}

func orDash(s string) string { return cmp.Or(s, "-") }

func (m *membersCommand) runDetailed(cmd *cobra.Command, c *client.Client, status *regexp.Regexp) error {
	s, err := c.Standing(cmd.Context(), m.filter)
	if err != nil {
		return explained(c, err)
	}
	s.Members = slices.DeleteFunc(s.Members, func(x client.MemberDetail) bool { return !status.MatchString(x.State) })
	if len(s.Members) == 0 {
		return m.noneMatches()
	}
	slices.SortFunc(s.Members, func(a, b client.MemberDetail) int {
		return cmp.Or(cmp.Compare(typeOf(b.Tags), typeOf(a.Tags)), cmp.Compare(a.Name, b.Name))
	})
	if m.json {
		return printJSON(cmd.OutOrStdout(), s)
	}
	now := time.Now()
	rows := [][]string{{"Node", "Address", "Type", "Status", "Since", "Told", "By", "Told at", "RTT", "Flaps", "Held", "History", "Conflict", "Tags"}}
	for _, x := range s.Members {
		rows = append(rows, detailRow(x, now))
	}
	if err := table(cmd.OutOrStdout(), rows); err != nil {
		return err
	}
	return printStanding(cmd.OutOrStdout(), s, now)
}

func detailRow(x client.MemberDetail, now time.Time) []string {
	held := "-"
	if x.HeldUntil != nil && x.HeldUntil.After(now) {
		held = "for " + rounded(x.HeldUntil.Sub(now))
	}
	rtt := "-"
	if d, err := time.ParseDuration(x.RTT); err == nil {
		rtt = rounded(d)
	}
	tags := make([]string, 0, len(x.Tags))
	for _, k := range slices.Sorted(maps.Keys(x.Tags)) {
		tags = append(tags, k+"="+x.Tags[k])
	}
	return []string{
		x.Name, hostPort(x.Addr, x.Port), typeOf(x.Tags), x.State, ago(x.Since, now), orDash(x.Told), orDash(x.ToldBy), ago(x.ToldAt, now), rtt,
		strconv.Itoa(x.Flaps), held, orDash(x.History), orDash(x.Conflict), strings.Join(tags, ","),
	}
}

// printStanding says where this host stands itself.
func printStanding(w io.Writer, s *client.Standing, now time.Time) error {
	server := "no server"
	if s.Server != "" {
		server = s.Server + ", since " + ago(s.ServerSince, now)
	}
	rows := [][]string{{"This host", s.Node}, {"Fed by", server}, {"History", orDash(s.History)}, {"Index", strconv.FormatUint(s.Index, 10)}, {"Confirmed", ago(s.Confirmed, now)}}
	for _, state := range []struct {
		is   bool
		text string
	}{
		{s.Stale, "stale: no server with a leader confirms what this host knows"},
		{s.Merging, "merging: not every living member has spoken in this history, so nothing is removed that it doesn't name"},
		{s.Braking, "mass-failure guard: more than half of the others went at once; this host suspects itself and takes out nobody"},
	} {
		if state.is {
			rows = append(rows, []string{"State", state.text})
		}
	}
	fmt.Fprintln(w)
	return table(w, rows)
}

// ago is how long something is past.
func ago(t *time.Time, now time.Time) string {
	if t == nil {
		return "-"
	}
	return rounded(max(0, now.Sub(*t))) + " ago"
}

// rounded is a duration to two or three digits, which is all that anybody reads.
func rounded(d time.Duration) string {
	for _, unit := range []time.Duration{time.Hour, time.Minute, time.Second, time.Millisecond, time.Microsecond} {
		if d >= 10*unit {
			d = d.Round(unit)
			break
		}
		if d >= unit {
			d = d.Round(unit / 10)
			break
		}
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
