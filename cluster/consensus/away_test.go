package consensus

import (
	"fmt"
	"testing"
	"time"
)

// Raft waits up to 10 s before it tries a server again that it could not reach for
// half a minute, while that server's heartbeats say that it follows: it would answer
// from what it knew before.
func TestFollower_BackFromAnyAbsenceIsUpToDateSoon(t *testing.T) {
	for _, tc := range []struct {
		what          string
		leave, rejoin func(g *group, m *member)
	}{
		{"killed", func(_ *group, m *member) { m.crash() }, func(_ *group, m *member) { m.start() }},
		{"cut off", func(g *group, m *member) { g.net.apart(m.name, true) }, func(g *group, m *member) { g.net.apart(m.name, false) }},
	} {
		for _, away := range []time.Duration{2 * time.Second, 20 * time.Second, 31 * time.Second, 47 * time.Second, 5 * time.Minute} {
			t.Run(fmt.Sprint(tc.what, " for ", away), func(t *testing.T) {
				t.Parallel()
				inBubble(t, 3, func(t *testing.T, g *group) {
					m := g.others(g.leader())[0]
					tc.leave(g, m)
					time.Sleep(away)
					g.writeBeside(m, "k", "meanwhile")
					tc.rejoin(g, m)
					back := time.Now()
					g.until("it knows what was written", func() bool { _, sm := m.now(); return sm.get("k") == "meanwhile" })
					if took := time.Since(back); took > 500*time.Millisecond {
						t.Errorf("up to date after %v, want within 500 ms", took)
					}
				})
			})
		}
	}
}

// Raft tells followers of a commit with the next entry, or when there was none for a
// while; hosts that hang on a follower don't wait for that.
func TestFollower_HearsOfALoneCommitAtOnce(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, g *group) {
		followers := g.others(g.leader())
		for i := range 5 {
			time.Sleep(time.Duration(i)*70*time.Millisecond + 2*time.Second)
			value := fmt.Sprint(i)
			g.write("k", value)
			written := time.Now()
			for _, m := range followers {
				g.until("a follower shows it", func() bool { _, sm := m.now(); return sm.get("k") == value })
			}
			if took := time.Since(written); took > 20*time.Millisecond {
				t.Errorf("followers show write %d %v after it was acknowledged, want within 20 ms", i, took)
			}
		}
	})
}
