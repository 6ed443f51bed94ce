package clustertest

import (
	"fmt"
	"testing"
	"time"

	"meibo/cluster/clustertest/memnet"
)

// outWithin is within what time a host that dies is left out everywhere.
const outWithin = 5 * time.Second

// A daemon that is back at once never was dead.
func TestRestart_WithinASecondIsNoDeath(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			w := c.Witness()
			h := c.Agents()[1]
			begin := w.Mark()
			h.Kill()
			time.Sleep(time.Second)
			h.Start()
			c.Until("it answers", func() error { return c.ExactOn(h) })
			time.Sleep(10 * time.Second)
			w.Calm(begin, func(viewer, of *Host) bool { return viewer == h })
		})
	})
}

// A host whose daemon was killed, or whose cable was pulled, or that lost its power, is
// left out by all others soon, and is back when it is steady.
func TestDead_AreLeftOut(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		opts.Disks = true
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			w := c.Witness()
			for _, death := range []struct {
				how      string
				of       *Host
				die, end func(*Host)
			}{
				{"by SIGKILL", c.Agents()[2], (*Host).Kill, (*Host).Start},
				{"without power", c.Agents()[1], (*Host).SwitchOff, (*Host).Start},
				{"unplugged", c.Agents()[3], func(h *Host) {
					c.Cable(h, true)
					c.Judge.TurnAll(h.Name, Absent)
				}, func(h *Host) {
					c.Cable(h, false)
					c.Judge.TurnAll(h.Name, Either)
					c.Whole()
					c.Judge.TurnAll(h.Name, Present)
				}},
			} {
				begin := w.Mark()
				others := But(c.Hosts, death.of)
				death.die(death.of)
				out := c.Within(outWithin, "a host that died "+death.how+" is left out", func() error {
					for _, h := range others {
						if err := c.ExactOn(h); err != nil {
							return err
						}
					}
					return nil
				})
				time.Sleep(20 * time.Second)
				death.end(death.of)
				whole := c.Whole()
				c.Logf("a host that died %s is left out after %v, and back after %v", death.how, out, whole+c.Settled())
				w.Once(death.of, others, begin)
				w.Calm(begin, func(viewer, of *Host) bool { return viewer == death.of || of == death.of })
			}
		})
	})
}

// A host that comes and goes is out until it is steady.
func TestFlapping_ChangesAnswersOnce(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			w := c.Witness()
			h := c.Agents()[0]
			others := But(c.Hosts, h)
			begin := w.Mark()
			c.Judge.TurnAll(h.Name, Absent)
			const rounds = 10
			for range rounds {
				c.Cable(h, true)
				time.Sleep(8 * time.Second)
				c.Cable(h, false)
				time.Sleep(4 * time.Second)
			}
			for _, viewer := range others {
				if n := len(w.Changes(viewer, h, begin)); n != 1 {
					c.Errorf("%s changed its mind of the flapping host %d times, want once", viewer.Name, n)
				}
				if n := c.Judge.Turnovers(viewer.Name, h.Name, begin); n > 1 {
					c.Errorf("%s's answers of the flapping host changed %d times, want once", viewer.Name, n)
				}
			}
			c.Judge.TurnAll(h.Name, Either)
			var held time.Duration
			for _, viewer := range others {
				held = max(held, time.Until(viewer.Node().MemberOf(h.id()).HeldUntil))
			}
			c.Logf("a host that flapped for %d s is held down for %v more", rounds*12, held)
			time.Sleep(held)
			c.Whole()
			c.Judge.TurnAll(h.Name, Present)
			c.Settled()
			w.Once(h, others, begin)
			w.Calm(begin, func(viewer, of *Host) bool { return viewer == h || of == h })
		})
	})
}

// A fifth of all packets lost for minutes kills nobody.
func TestLoss_KillsNobody(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			w := c.Witness()
			begin := w.Mark()
			c.Between(c.Hosts, c.Hosts, memnet.Path{Loss: 0.2})
			time.Sleep(time.Duration(2100/len(c.Hosts)) * time.Second)
			w.Calm(begin, func(_, _ *Host) bool { return false })
			c.Net.Heal()
			c.Whole()
		})
	})
}

// An agent that is cut off from the server that feeds it is fed by another soon.
func TestStream_MovesFromACutServer(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			for _, agent := range c.Agents()[:4] {
				before, _ := agent.Node().Stream()
				server := c.fed(before)
				if server == nil {
					c.Fatalf("%s is fed by %q, which is none of the servers", agent.Name, before)
				}
				c.Between([]*Host{agent}, []*Host{server}, memnet.Path{Cut: true})
				took := c.Within(3100*time.Millisecond, "another server feeds the agent", func() error {
					now, _ := agent.Node().Stream()
					if now == before || now == "" || !agent.Node().View().Load().Fresh() {
						return fmt.Errorf("it is fed by %q", now)
					}
					return nil
				})
				c.Logf("an agent's stream moved to another server %v after it was cut", took)
				c.Net.Heal()
				time.Sleep(5 * time.Second)
			}
			c.Settled()
		})
	})
}

// fed is the server with the link address.
func (c *Cluster) fed(addr string) *Host {
	for _, s := range c.Servers() {
		if addr == s.Addr.String()+":8300" {
			return s
		}
	}
	return nil
}

// A leader whose gossip alone is cut takes out nobody: all the others seem dead to it.
func TestLeader_WithoutGossipTakesOutNobody(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			w := c.Witness()
			leader := c.Leader()
			others := But(c.Hosts, leader)
			begin := w.Mark()
			c.Judge.TurnAll(leader.Name, Either)
			c.Between([]*Host{leader}, others, memnet.Path{Cut: true, Port: gossipPort})
			took := c.OutOn(leader, others)
			c.Until("the leader doubts itself", func() error {
				if !leader.Node().Guarded() {
					return fmt.Errorf("it doesn't")
				}
				return nil
			})
			time.Sleep(70 * time.Second) // longer than the minute in which the deaths of many are one event
			if now := c.Leader(); now != leader {
				c.Errorf("%s leads now, want %s still", now.Name, leader.Name)
			}
			if err := others[0].write(); err != nil {
				c.Error(err)
			}
			c.Logf("a leader without gossip is left out after %v, leads on, and takes out nobody", took)
			w.Calm(begin, func(_, of *Host) bool { return of == leader })
			c.Logf("whole again after %v", c.Rejoin())
			w.Calm(begin, func(_, of *Host) bool { return of == leader })
		})
	})
}

// Hosts that are far apart on bad lines are one cluster as well.
func TestFarApart_IsCalm(t *testing.T) {
	Run(t, small, func(c *Cluster) {
		c.Between(c.Hosts, c.Hosts, memnet.Path{Delay: 200 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.1})
		c.StartAll()
		w := c.Witness()
		begin, leader := w.Mark(), c.Leader()
		for time.Since(begin) < 2*time.Minute {
			if now := c.Leader(); now != leader {
				c.Fatalf("%s leads after %s", now.Name, leader.Name)
			}
			time.Sleep(100 * time.Millisecond)
		}
		w.Calm(begin, func(_, _ *Host) bool { return false })
	})
}
