package clustertest

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"meibo/cluster/server"
)

var warning = regexp.MustCompile(`level=(WARN|ERROR)`)

// votes reports, as an error, that the leader doesn't have the server for a voter, or that the
// server knows no leader yet.
func (h *Host) votes() error {
	servers, _, err := h.c.Leader().Node().RaftConfiguration()
	if err != nil {
		return err
	}
	for _, s := range servers {
		if s.ID == h.id() && s.Voter {
			return h.seesAll()
		}
	}
	return errors.New(h.Name + " has no vote")
}

// A server that is removed, restarts, leaves and returns says each of it once, and
// warns of nothing that goes as somebody ordered.
func TestServer_ThatGoesAndReturnsIsQuiet(t *testing.T) {
	Run(t, Options{Servers: 3, Disks: true}, func(c *Cluster) {
		for _, h := range c.Hosts {
			h.Start()
		}
		c.Whole()
		leader, other := c.Leader(), c.Follower()
		voter := func() {
			c.Helper()
			c.Until("it votes", other.votes)
		}
		from := 0
		expect := func(what string, warnings int, lines ...string) {
			c.Helper()
			time.Sleep(10 * time.Second) // for what is said too late, or again
			text := other.Log()[from:]
			from += len(text)
			if n := len(warning.FindAllString(text, -1)); n != warnings {
				c.Errorf("%s: %d warnings and errors, want %d:\n%s", what, n, warnings, text)
			}
			for _, l := range lines {
				if strings.Count(text, l) != 1 {
					c.Errorf("%s: %q is not said once:\n%s", what, l, text)
				}
			}
			for _, l := range []string{"belongs to no cluster yet", "will be opened again", "not part of a stable configuration", "is lost"} {
				if strings.Contains(text, l) {
					c.Errorf("%s: %q is said:\n%s", what, l, text)
				}
			}
		}
		voter()
		from = len(other.Log())

		// The leader may take it in again before it has noticed: then there is nothing to say.
		for noticed := false; !noticed; {
			if err := leader.Node().RemovePeer(context.Background(), other.id(), ""); err != nil && !errors.Is(err, server.ErrUnknownServer) {
				c.Fatal(err)
			}
			time.Sleep(500 * time.Millisecond)
			voter()
			noticed = strings.Contains(other.Log()[from:], "took this one out")
		}
		expect("removed", 1, "took this one out of the Raft configuration", "one of the cluster's again")

		other.Stop()
		expect("stopped", 0)
		other.Start()
		voter()
		expect("restarted", 0)

		if err := other.Node().Leave(context.Background()); err != nil {
			c.Fatal(err)
		}
		time.Sleep(10 * time.Second) // however often a leader looks meanwhile
		other.Stop()
		expect("left", 0, "this server gave up its vote")
		began := time.Now()
		other.Start()
		voter()
		c.Logf("it was a voter again after %v", time.Since(began))
		expect("returned", 0)
	})
}
