package clustertest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"meibo/cluster/clustertest/memnet"
)

// healedWithin is how long a cluster may take to be whole after what parted it.
const healedWithin = 30 * time.Second

// rejoin is Rejoin, with its bar.
func (c *Cluster) rejoin(after string) {
	c.Helper()
	took := c.Rejoin()
	c.Logf("%s: one cluster again, and all answers alike, after %v", after, took)
	if took > healedWithin {
		c.Errorf("want within %v", healedWithin)
	}
}

// A server of the minority with its agent, one agent alone, and a pair in one direction
// are cut off: everybody goes on to answer, and nobody who is cut off takes others out.
func TestPartition_EverybodyAnswers(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		opts.Agents = max(opts.Agents, 5) // or those who are cut off are half of all others
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			w := c.Witness()
			agents := c.Agents()
			lone, deaf, heard := agents[2], agents[3], agents[1]
			minority := []*Host{c.Follower(), agents[0]}
			majority := But(c.Hosts, minority[0], minority[1], lone)

			begin := w.Mark()
			c.Part(minority, But(c.Hosts, minority...))
			c.Part([]*Host{lone}, But(c.Hosts, lone))
			c.Toward([]*Host{heard}, []*Host{deaf}, memnet.Path{Cut: true}) // deaf is heard by it, and doesn't hear it
			for _, h := range []*Host{minority[1], minority[0], lone} {
				c.OutOn(h, majority)
			}
			out := time.Since(begin)
			c.Logf("three that are cut off at once are left out by the others after %v", out)
			if bar := 2 * outWithin; out > bar {
				c.Errorf("want within %v", bar)
			}
			time.Sleep(30 * time.Second)
			for _, h := range []*Host{minority[1], lone} {
				if h.Node().View().Load().Fresh() {
					c.Errorf("%s says that its answers are fresh", h.Name)
				}
			}
			c.rejoin("a minority and an agent")
			parted := append(minority, lone)
			w.Calm(begin, func(viewer, of *Host) bool {
				return slices.Contains(parted, of) // nor did those who are parted take out others
			})
			for _, h := range parted { // each thought that the others were dead, and doubted itself
				w.Once(h, majority, begin)
			}
		})
	})
}

// Each server in turn is cut off from all others; when it is the leader, another leads
// soon.
func TestPartition_OfEachServer(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			w := c.Witness()
			for _, s := range c.Servers() {
				begin, rest, led := w.Mark(), But(c.Hosts, s), s == c.Leader()
				c.Part([]*Host{s}, rest)
				out := c.OutOn(s, rest)
				if out > outWithin {
					c.Errorf("%s is left out after %v, want within %v", s.Name, out, outWithin)
				}
				c.Within(time.Second, "a write", c.Agents()[0].write)
				c.Logf("a server alone (which led: %v) is left out after %v", led, out)
				time.Sleep(15 * time.Second)
				c.rejoin("a server alone")
				w.Calm(begin, func(_, of *Host) bool { return of == s })
			}
		})
	})
}

// A cluster in halves answers in both, and is one again when they meet.
func TestSplit_Heals(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			var half []*Host
			for i, h := range c.Hosts {
				if i == 0 || i%2 == 1 && i >= 3 {
					half = append(half, h)
				}
			}
			c.Judge.Apart(names(half), names(But(c.Hosts, half...)))
			c.Part(half, But(c.Hosts, half...))
			time.Sleep(90 * time.Second)
			for _, h := range c.Hosts {
				for _, service := range c.Judge.Services() {
					if got := h.Lookup(service); got.Err != nil || len(got.Addrs) == 0 {
						c.Errorf("%s on %s: %v %v", service, h.Name, got.Addrs, got.Err)
					}
				}
			}
			c.rejoin("90 s in halves")
		})
	})
}

// A host that hears all and is heard by none, and one that is heard by all and hears
// none, are left out, and take nobody out.
func TestMisrouted_AreLeftOut(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			w := c.Witness()
			mute, deaf := c.Agents()[0], c.Agents()[1]
			for how, h := range map[string]*Host{"hears all and is heard by none": mute, "is heard by all and hears none": deaf} {
				others := But(c.Hosts, h)
				begin := w.Mark()
				c.Judge.TurnAll(h.Name, Either)
				c.Judge.Apart([]string{h.Name}, names(others))
				if h == mute {
					c.Toward([]*Host{h}, others, memnet.Path{Cut: true})
				} else {
					c.Toward(others, []*Host{h}, memnet.Path{Cut: true})
				}
				took := c.OutOn(h, others)
				c.Logf("a host that %s is left out after %v", how, took)
				c.Judge.TurnAll(h.Name, Absent)
				time.Sleep(35 * time.Second)
				c.rejoin("a host that " + how)
				time.Sleep(20 * time.Second)
				w.Once(h, others, begin)
				w.Calm(begin, func(viewer, of *Host) bool { return viewer == h || of == h })
			}
		})
	})
}

// What is lost by chance in one direction between some servers and some agents is borne.
func TestBadLines_BetweenServersAndAgents(t *testing.T) {
	Run(t, Options{Servers: 3, Agents: 5}, func(c *Cluster) {
		c.StartAll()
		w := c.Witness()
		begin := w.Mark()
		for i := range 12 {
			from, to := []*Host{c.Servers()[i%3]}, []*Host{c.Agents()[i%5]}
			if i%2 == 1 {
				from, to = to, from
			}
			c.Toward(from, to, memnet.Path{Loss: 0.6, Jitter: 30 * time.Millisecond})
			time.Sleep(5 * time.Second)
			if i%4 == 3 {
				c.Net.Heal()
			}
		}
		c.Net.Heal()
		c.Settled()
		w.Calm(begin, func(_, _ *Host) bool { return false })
		if err := c.Agents()[0].write(); err != nil {
			c.Error(fmt.Errorf("write: %w", err))
		}
	})
}
