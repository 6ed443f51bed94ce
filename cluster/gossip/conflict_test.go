package gossip

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"meibo/cluster/membership"
)

func (h *host) conflict(name string) string {
	m := h.member(name)
	return m.Conflict
}

func TestConflict_TheNameStaysWithWhoWasThereFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 4)
		time.Sleep(10 * time.Second)
		seen := hosts[0].watch("h4")
		late := n.start(t, 9, func(c *Config) { c.Name = "h4" })
		within(t, 10*time.Second, "both hear of it", func() bool {
			return late.Members().Self().Conflict != "" && hosts[3].Members().Self().Conflict != "" && hosts[0].conflict("h4") != ""
		})
		for _, h := range hosts[:3] {
			if m := h.member("h4"); m.ID != id(4) || h.Members().Life(id(4)) != membership.Alive || h.Members().Life(id(9)) == membership.Alive {
				t.Errorf("%s took %+v", h.self.Name, m)
			}
		}
		if words := late.Members().Self().Conflict; !strings.Contains(words, id(4)) || !strings.Contains(words, "node_name") {
			t.Errorf("got %q", words)
		}
		if late.sees("h1") != membership.Alive {
			t.Error("the newcomer doesn't see the others")
		}
		time.Sleep(time.Minute)
		if len(seen.list()) != 1 {
			t.Errorf("got %v", seen.list())
		}
		hosts[3].stop()
		within(t, 12*time.Second, "the newcomer takes over from the dead", func() bool {
			m := hosts[0].member("h4")
			return m.ID == id(9) && m.Status == membership.Alive && hosts[0].Members().Life(id(4)) == membership.Left
		})
		within(t, 4*time.Minute, "the conflict is forgotten", func() bool {
			return late.Members().Self().Conflict == "" && hosts[0].conflict("h4") == ""
		})
	})
}

func TestConflict_EndsWithTheDeathOfWhoKeptTheName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 4)
		time.Sleep(10 * time.Second)
		clone := n.start(t, 9, func(c *Config) { c.ID, c.Name = id(4), "h4" })
		within(t, 10*time.Second, "a conflict", func() bool { return hosts[0].conflict("h4") != "" })
		clone.stop()
		time.Sleep(time.Second)
		hosts[3].stop()
		within(t, 8*time.Second, "the death is one like others", func() bool {
			return all(hosts[:3], "h4", membership.Failed) && hosts[0].conflict("h4") == ""
		})
	})
}

func TestConflict_ACloneIsRefusedAndBothHear(t *testing.T) {
	for name, cloned := range map[string]string{"another name": "clone", "the same name": "h4"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				hosts := n.cluster(t, 4)
				time.Sleep(10 * time.Second)
				seen := hosts[0].watch("h4")
				clone := n.start(t, 9, func(c *Config) { c.ID, c.Name = id(4), cloned })
				within(t, 10*time.Second, "both hear of it", func() bool {
					return clone.Members().Self().Conflict != "" && hosts[3].Members().Self().Conflict != "" && hosts[0].conflict("h4") != ""
				})
				time.Sleep(2 * time.Minute)
				if m := hosts[0].member("h4"); m.Addr != address(4).Addr() || m.Status != membership.Alive || len(seen.list()) != 1 {
					t.Errorf("got %+v, seen %v", m, seen.list())
				}
				if words := clone.Members().Self().Conflict; !strings.Contains(words, "clone") || !strings.Contains(words, "node-id") {
					t.Errorf("got %q", words)
				}
				clone.stop()
				within(t, 4*time.Minute, "the conflict is forgotten", func() bool {
					return hosts[3].Members().Self().Conflict == "" && hosts[0].conflict("h4") == ""
				})
			})
		})
	}
}

func TestMove_AHostWithAnotherAddressIsTakenOver(t *testing.T) {
	for name, pause := range map[string]time.Duration{"at once": 0, "after a while": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				hosts := n.cluster(t, 5)
				time.Sleep(10 * time.Second)
				hosts[4].stop()
				time.Sleep(pause)
				hosts[4] = n.start(t, 9, func(c *Config) { c.ID, c.Name = id(5), "h5" })
				took := within(t, 20*time.Second, "the new address is known everywhere", func() bool {
					for _, h := range hosts {
						if m := h.member("h5"); m.Addr != address(9).Addr() || m.Conflict != "" {
							return false
						}
					}
					return whole(hosts...)
				})
				t.Logf("taken over after %v", took)
			})
		})
	}
}

func TestRule19_ARenamedHostReplacesItsOldNameAtOnce(t *testing.T) {
	for name, to := range map[string]int{"same address": 5, "another address": 9} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				hosts := n.cluster(t, 5)
				time.Sleep(10 * time.Second)
				hosts[4].stop()
				time.Sleep(time.Second)
				hosts[4] = n.start(t, to, func(c *Config) { c.ID, c.Name = id(5), "renamed" })
				took := within(t, 10*time.Second, "the new name is everywhere", func() bool {
					for _, h := range hosts {
						if old := h.Members().ByName("h5") != nil; old || h.Members().Life(id(5)) != membership.Alive {
							return false
						}
					}
					return whole(hosts...)
				})
				t.Logf("replaced after %v", took)
				time.Sleep(time.Minute)
				if old := hosts[0].Members().ByName("h5") != nil; old || !whole(hosts...) || hosts[0].conflict("renamed") != "" {
					t.Error("the old name is back, or there is a conflict")
				}
			})
		})
	}
}

func TestConflict_AReinstalledHostReplacesItsOldID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 5)
		time.Sleep(10 * time.Second)
		hosts[4].stop()
		time.Sleep(time.Second)
		hosts[4] = n.start(t, 5, func(c *Config) { c.ID = id(9) })
		within(t, 10*time.Second, "the new ID is everywhere", func() bool {
			for _, h := range hosts[:4] {
				if h.Members().Life(id(5)) != membership.Left || h.Members().Life(id(9)) != membership.Alive {
					return false
				}
			}
			return true
		})
	})
}

func TestJoin_AnotherDatacenterIsRefusedInWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		hosts := n.cluster(t, 2)
		other := n.start(t, 9, func(c *Config) { c.Datacenter, c.RetryJoin = "dc2", nil })
		_, err := other.Join(t.Context(), []string{address(1).String()})
		if err == nil || !strings.Contains(err.Error(), "datacenter") || !strings.Contains(err.Error(), address(1).String()) {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Minute)
		if m := hosts[0].Members().Members(); len(m) != 2 {
			t.Errorf("got %v", m)
		}
	})
}

func TestReplay_RecordedPacketsChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		var recorded [][]byte
		n.taps = append(n.taps, func(_, to netip.AddrPort, b []byte) {
			if to == address(1) && len(recorded) < 4000 {
				recorded = append(recorded, append([]byte(nil), b...))
			}
		})
		hosts := n.cluster(t, 4)
		time.Sleep(5 * time.Second)
		hosts[3].stop() // dies, comes back, leaves, comes back: all of it recorded
		time.Sleep(10 * time.Second)
		hosts[3] = n.start(t, 4, nil)
		within(t, 20*time.Second, "back", func() bool { return whole(hosts...) })
		if err := hosts[3].Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		hosts[3].stop()
		time.Sleep(5 * time.Second)
		hosts[3] = n.start(t, 4, nil)
		within(t, 20*time.Second, "back", func() bool { return whole(hosts...) })
		n.mu.Lock()
		n.taps = nil
		n.mu.Unlock()
		time.Sleep(time.Minute)
		seen := hosts[0].watch("h4")
		for _, b := range recorded {
			n.Inject(address(4), address(1), b)
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		if len(seen.list()) != 1 || !whole(hosts...) {
			t.Errorf("after %d packets played again: %v", len(recorded), seen.list())
		}
	})
}

// A host that comes back at once with another node ID is told of its former
// self, louder than it speaks. memberlist must hear that, to speak louder still.
func TestConflict_AHostHearsOfItsFormerSelf(t *testing.T) {
	here, elsewhere := netip.MustParseAddrPort("192.0.2.1:8301"), netip.MustParseAddrPort("192.0.2.2:8301")
	g, err := New(Config{ID: id(1), Name: "h1", Datacenter: "dc1", Bind: here, Network: newNetwork().Host(here.Addr())})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	alive := func(name, nodeID string, at netip.AddrPort) error {
		raw, err := encodeMeta(1, map[string]string{membership.TagID: nodeID, membership.TagDatacenter: "dc1"})
		if err != nil {
			t.Fatal(err)
		}
		return delegate{g}.NotifyAlive(&memberlist.Node{Name: name, Addr: at.Addr().AsSlice(), Port: at.Port(), Meta: []byte(raw)})
	}
	if err := alive("h1", id(9), here); err != nil {
		t.Errorf("of its own name and address: %v", err)
	}
	for what, err := range map[string]error{"its name elsewhere": alive("h1", id(9), elsewhere), "its ID elsewhere": alive("h2", id(1), elsewhere)} {
		if !errors.Is(err, errConflict) {
			t.Errorf("%s: got %v, want a conflict", what, err)
		}
	}
}
