package clustertest

import (
	"context"
	"os"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"meibo/cluster/catalog"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // what is alive is little beside what is made
	os.Exit(m.Run())
}

// small is a cluster of the size of the fleets of daemons.
var small = Options{Servers: 3, Agents: 4}

// sizes are those of the clusters that scenarios are played in: a small
// one, and, where that doesn't take minutes, a larger one.
func sizes(t *testing.T, f func(t *testing.T, opts Options)) {
	t.Helper()
	t.Run("7 hosts", func(t *testing.T) { f(t, small) })
	if os.Getenv("MEIBO_VERIFY") == "" {
		return
	}
	t.Run("50 hosts", func(t *testing.T) {
		f(t, Options{Servers: 3, Agents: 47, Every: 200 * time.Millisecond})
	})
}

// write writes something into the catalog through the host: its own node, as it is.
func (h *Host) write() error { return h.apply(&catalog.Register{Node: h.Node().Record()}) }

func (h *Host) apply(body catalog.Body) error {
	ctx, cancel := context.WithTimeout(context.Background(), 12*time.Second)
	defer cancel()
	_, err := h.Node().Apply(ctx, body)
	return err
}

// Answers go on while leaders die one after the other, and writes are back soon.
func TestLeaderKilled_LookupsGoOnAndWritesAreBack(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		opts.Disks = true
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			var back []time.Duration
			for range 5 {
				leader := c.Leader()
				leader.Kill()
				took := c.Within(1200*time.Millisecond, "a write after the leader's death", c.Agents()[0].write)
				back = append(back, took)
				leader.Start()
				c.Whole()
			}
			slices.Sort(back)
			c.Logf("writes back after the leader's death: %v", back)
			c.Settled()
		})
	})
}

// A critical check is in every host's answers at once.
func TestChecks_ReachEveryHost(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			h := c.Agents()[1]
			var most time.Duration
			for range 20 {
				for _, status := range []string{"critical", "passing"} {
					h.SetCheck("web", status)
					most = max(most, c.Settled())
					time.Sleep(237 * time.Millisecond)
				}
			}
			c.Logf("a change of a check is in all answers after %v at most", most)
			if bar := 500 * time.Millisecond; most > bar {
				c.Errorf("want within %v", bar)
			}
		})
	})
}
