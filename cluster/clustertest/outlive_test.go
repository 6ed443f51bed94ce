package clustertest

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/clustertest/memnet"
)

// external is a node that no agent answers for, with a service of its name.
func external(name, addr string) *catalog.Register {
	return &catalog.Register{
		Node:    catalog.Node{Node: name, Address: addr},
		Service: &catalog.Service{ID: name, Service: name, Port: 631},
	}
}

// answers reports which running host doesn't answer with the addresses.
func (c *Cluster) answers(service string, addrs ...string) error {
	for _, h := range c.Hosts {
		if !h.IsUp() {
			continue
		}
		if got := h.Lookup(service); got.Err != nil || fmt.Sprint(got.Addrs) != fmt.Sprint(addrs) {
			return fmt.Errorf("%s on %s: %v %v, want %v", service, h.Name, got.Addrs, got.Err, addrs)
		}
	}
	return nil
}

// Every server is killed, agents restart meanwhile and one that knows nothing starts;
// then the servers come back with nothing at all, and the agents fill the catalog.
func TestServersKilled_AnswersOutliveThem(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		opts.Disks = true
		Run(t, opts, func(c *Cluster) {
			agents := c.Agents()
			late := agents[len(agents)-1]
			for _, h := range But(c.Hosts, late) {
				h.Start()
			}
			c.Whole()
			for _, h := range But(agents, late) {
				h.Register("web", 80)
			}
			agents[0].Register("api", 8080)
			agents[1].Register("api", 8080)
			if err := c.Servers()[0].apply(external("printer", "192.0.2.9")); err != nil {
				c.Fatal(err)
			}
			c.Settled()
			c.Until("an external service on every host", func() error { return c.answers("printer", "192.0.2.9") })
			c.Load()

			for _, s := range c.Servers() {
				s.Kill()
			}
			for _, h := range agents[:2] {
				h.Stop()
				h.Start()
			}
			late.Start()
			c.Within(5*time.Second, "a host without a view answers from its neighbours'", func() error { return c.ExactOn(late) })
			time.Sleep(2 * time.Minute)
			if err := c.answers("printer", "192.0.2.9"); err != nil {
				c.Error(err)
			}

			for _, s := range c.Servers() { // their disks are gone
				s.Wipe()
				s.Start()
			}
			whole := c.Whole()
			gone := agents[2]
			gone.Deregister("web")
			complete := c.Within(30*time.Second, "the catalog is complete again", func() error {
				return c.complete(map[string]int{"web": len(agents) - 2, "api": 2})
			})
			c.Logf("one cluster %v after the servers came back with nothing, the catalog complete %v later", whole, complete)
			c.Settled()
			if err := c.answers("printer", "192.0.2.9"); err != nil {
				c.Errorf("what no agent answers for stays until somebody takes it out: %v", err)
			}
		})
	})
}

// Servers that begin anew deny nothing before they have met who knows what was, and deny
// what nobody has soon where there is nobody else.
func TestServersBeginAnew_TheyDenyNothingThatWas(t *testing.T) {
	opts := small
	opts.Disks = true
	Run(t, opts, func(c *Cluster) {
		c.StartAll()
		time.Sleep(3 * time.Second) // until all of that is on disk
		for _, s := range c.Servers() {
			s.Kill()
		}
		c.OutOn(c.Servers()[0], c.Agents())
		c.Between(c.Servers(), c.Agents(), memnet.Path{Cut: true})
		c.Judge.Apart(names(c.Hosts), names(c.Hosts))
		for _, s := range c.Servers() {
			s.Wipe()
			s.Start()
		}
		time.Sleep(6 * time.Second)
		for _, s := range c.Servers() {
			if got := s.Lookup("web"); got.Err == nil || got.denies() {
				c.Errorf("%s, which knows nothing yet, answers %v %v", s.Name, got.Addrs, got.Err)
			}
		}
		c.rejoin("servers that begin anew")
	})
	Run(t, Options{Servers: 3}, func(c *Cluster) {
		c.StartAll()
		c.Within(15*time.Second, "a name that nobody has is denied", func() error {
			for _, h := range c.Hosts {
				if got := h.Lookup("none"); !got.denies() {
					return fmt.Errorf("%s: %v", h.Name, got.Err)
				}
			}
			return nil
		})
	})
}

// complete compares the leader's catalog with how many instances each service has.
func (c *Cluster) complete(want map[string]int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, _, err := c.Leader().Node().Read(ctx, catalog.Consistent)
	if err != nil {
		return err
	}
	for service, n := range want {
		if _, instances := r.ServiceInstances(nil, service); len(instances) != n {
			return fmt.Errorf("%s: %d instances, want %d", service, len(instances), n)
		}
	}
	return nil
}

// A server that loses its disk becomes another server of its cluster, and nothing that
// was acknowledged is lost.
func TestWipedServer_ComesBackAsAnother(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		opts.Disks = true
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			for i, s := range []*Host{c.Follower(), c.Leader()} {
				name := fmt.Sprintf("ext%d", i)
				if err := But(c.Servers(), s)[0].apply(external(name, "192.0.2.1")); err != nil {
					c.Fatal(err)
				}
				if _, offers := s.offers["db"]; offers { // it would be lost with the disk
					But(c.Servers(), s)[0].Register("db", 5432)
					c.Settled()
					s.Deregister("db")
					c.Settled()
				}
				s.Kill()
				s.Wipe()
				c.Within(1200*time.Millisecond, "a write", But(c.Servers(), s)[0].write)
				s.Start()
				c.Whole()
				took := c.Until("three servers vote", func() error { return c.voters(3) })
				c.Logf("a server that lost its disk votes again after %v", took)
				c.Settled()
				c.Until("all that was acknowledged is there", func() error { return c.answers(name, "192.0.2.1") })
			}
		})
	})
}

// voters counts the servers with a vote, by the leader.
func (c *Cluster) voters(want int) error {
	health, err := c.Leader().Node().AutopilotHealth()
	if err != nil {
		return err
	}
	n := 0
	for _, s := range health.Servers {
		if s.Voter && s.Healthy {
			n++
		}
	}
	if n != want || len(health.Servers) != want {
		return fmt.Errorf("%d of %d servers vote and are well", n, len(health.Servers))
	}
	return nil
}

// All hosts are stopped and started at once, and once all lose their power.
func TestRestartOfAll_AnswersAreThereAgain(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		opts.Disks = true
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			for _, how := range []string{"stopped", "without power"} {
				time.Sleep(40 * time.Second) // views are on disk by then
				for _, h := range c.Hosts {
					c.Judge.State(h.Name, Absent)
				}
				if how == "stopped" {
					c.stopAll()
				} else {
					for _, h := range c.Hosts {
						h.die((*memnet.Host).SwitchOff)
					}
					for _, h := range c.Hosts {
						c.Judge.TurnAll(h.Name, Present)
					}
				}
				begin := time.Now()
				c.startFromDisk()
				c.Within(15*time.Second, "one cluster", func() error {
					for _, h := range c.Hosts {
						if err := h.seesAll(); err != nil {
							return err
						}
					}
					return nil
				})
				c.Settled()
				c.Logf("%s and started all at once: one cluster after %v", how, time.Since(begin))
			}
		})
	})
}

// startFromDisk starts all hosts, which answer at once what they knew.
func (c *Cluster) startFromDisk() {
	c.Helper()
	for _, h := range c.Hosts {
		h.start()
		c.Judge.State(h.Name, Either)
	}
	for _, h := range c.Hosts {
		if err := c.ExactOn(h); err != nil {
			c.Errorf("a host that starts answers from its disk: %v", err)
		}
	}
}

// Each daemon in turn is restarted; its services stay in the answers of all others,
// writes go on, and a server keeps its vote.
func TestRestartOfEach_IsNoDeath(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		opts.Disks = true
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			w := c.Witness()
			begin := w.Mark()
			var restarted []*Host
			for i, h := range c.Hosts {
				if i >= 7 {
					break
				}
				restarted = append(restarted, h)
				log := len(h.Log())
				h.Restart()
				c.Within(time.Second, "it answers again", func() error { return c.ExactOn(h) })
				writer := c.Agents()[0]
				if writer == h {
					writer = c.Agents()[1]
				}
				c.Within(1200*time.Millisecond, "a write", writer.write)
				if h.Server {
					c.Until("three servers vote", func() error { return c.voters(3) })
					if said := h.Log()[log:]; strings.Contains(said, "not in the Raft configuration") {
						c.Errorf("%s was removed while it restarted:\n%s", h.Name, said)
					}
				}
			}
			c.Whole()
			c.Settled()
			w.Calm(begin, func(viewer, of *Host) bool {
				for _, h := range restarted {
					if viewer == h {
						return true
					}
				}
				return false
			})
		})
	})
}

// Hosts whose process is frozen are left out, and answer as the others soon after they
// wake.
func TestFrozen_AreLeftOutAndWake(t *testing.T) {
	sizes(t, func(t *testing.T, opts Options) {
		Run(t, opts, func(c *Cluster) {
			c.StartAll()
			for _, pick := range []func() *Host{c.Leader, c.Follower, func() *Host { return c.Agents()[3] }} {
				h := pick()
				others := But(c.Hosts, h)
				h.Pause()
				c.Judge.Apart([]string{h.Name}, names(c.Hosts))
				c.Within(4*time.Second, "a write while a host sleeps", func() error { return c.Agents()[0].write() })
				out := c.OutOn(h, others)
				if out > outWithin {
					c.Errorf("%s is left out after %v, want within %v", h.Name, out, outWithin)
				}
				time.Sleep(30 * time.Second)
				h.Resume()
				begin := time.Now()
				c.Within(5*time.Second, "who woke answers as the others do", func() error { return c.agree(h, others[0], h) })
				same := time.Since(begin)
				c.Judge.Together([]string{h.Name}, names(c.Hosts))
				c.Whole()
				c.Settled()
				c.Logf("a frozen host is left out after %v; awake, it answers as all do after %v, and is in all answers after %v", out, same, time.Since(begin))
			}
		})
	})
}

// A host that dies before what it has just learned is on disk, and comes back where no
// server can be reached, asks its neighbours before it denies a name.
func TestNewName_IsNotDeniedByWhoForgotIt(t *testing.T) {
	opts := small
	opts.Disks = true
	Run(t, opts, func(c *Cluster) {
		c.StartAll()
		time.Sleep(40 * time.Second) // all views are on disk
		h := c.Agents()[2]
		c.Agents()[1].Register("new", 80)
		c.Until("it is known", func() error { return c.ExactOn(h) })
		h.Kill()
		c.Between([]*Host{h}, c.Servers(), memnet.Path{Cut: true})
		h.Start()
		c.Judge.TurnAll(h.Name, Either) // the servers have it for dead
		c.Judge.Apart([]string{h.Name}, names(c.Hosts))
		took := c.Within(3*time.Second, "a name that is newer than the file", func() error {
			got := h.Lookup("new")
			if got.denies() {
				c.Fatalf("denied: %v", got.Err)
			}
			return got.Err
		})
		c.Logf("answered %v after the start, without a server", took)
		time.Sleep(20 * time.Second)
		if got := h.Lookup("none"); !got.denies() {
			c.Errorf("a name that nobody has: %v", got.Err)
		}
		c.rejoin("an agent without servers")
	})
}

// agree compares the answers of two hosts, but for instances on a third.
func (c *Cluster) agree(a, b, but *Host) error {
	for _, service := range c.Judge.Services() {
		x, y := a.Lookup(service), b.Lookup(service)
		if mine, theirs := without(x, but), without(y, but); mine != theirs {
			return fmt.Errorf("%s: %s says %s, %s says %s", service, a.Name, mine, b.Name, theirs)
		}
	}
	return nil
}

// without is an answer as text, without one host.
func without(got Lookup, h *Host) string {
	list := slices.DeleteFunc(slices.Clone(got.Addrs), func(a netip.Addr) bool { return a == h.Addr })
	slices.SortFunc(list, netip.Addr.Compare)
	return fmt.Sprint(list, got.Err)
}
