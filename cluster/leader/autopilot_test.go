package leader_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"meibo/cluster/catalog"
	"meibo/cluster/leader"
)

// fleet is a configuration of servers, and how they are.
type fleet struct {
	mu        sync.Mutex // guards following
	conf      []leader.RaftServer
	uncertain bool                           // the last change isn't committed
	health    map[string]leader.ServerHealth // by address
	steps     []string
	fail      error
}

func (f *fleet) Configuration() ([]leader.RaftServer, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.conf), !f.uncertain
}

func (f *fleet) Add(_ context.Context, s leader.RaftServer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps = append(f.steps, fmt.Sprintf("add %s %s %v", s.ID, s.Addr, s.Voter))
	if f.fail != nil {
		return f.fail
	}
	if i := slices.IndexFunc(f.conf, func(c leader.RaftServer) bool { return c.ID == s.ID }); i >= 0 {
		f.conf[i] = s
	} else {
		f.conf = append(f.conf, s)
	}
	return nil
}

func (f *fleet) Remove(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.steps = append(f.steps, "remove "+id)
	if f.fail != nil {
		return f.fail
	}
	f.conf = slices.DeleteFunc(f.conf, func(c leader.RaftServer) bool { return c.ID == id })
	return nil
}

func (f *fleet) Health(ctx context.Context, addr string) (leader.ServerHealth, error) {
	f.mu.Lock()
	h, ok := f.health[addr]
	f.mu.Unlock()
	if !ok {
		<-ctx.Done()
		return h, context.Cause(ctx)
	}
	return h, nil
}

// took returns the steps since the last call.
func (f *fleet) took() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	steps := f.steps
	f.steps = nil
	return append([]string{}, steps...)
}

// well has the server at the address answer that it is.
func (f *fleet) well(id, addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.health[addr] = leader.ServerHealth{RaftID: id, ClusterID: "c", LastContact: 20 * time.Millisecond, LastIndex: 1000, LastTerm: 3}
}

// host is a server's member; its address is its name, and its ID too if none is
// given.
func host(name, raftID string, status leader.Status) leader.Member {
	m := member(name, "node-"+name, "192.0.2.1", status)
	m.Server = &leader.Server{Port: 8300, Meta: map[string]string{"version": "1"}, RaftID: raftID, Addr: name}
	return m
}

// term is a term of a leader "a" in a cluster of a, b, c and so on, all well.
type term struct {
	*fleet
	*roster
	leader *leader.Leader
	hosts  map[string]leader.Member
	stop   func()
}

func begin(t *testing.T, names string, change func(*leader.Config)) *term {
	t.Helper()
	f := &fleet{health: make(map[string]leader.ServerHealth)}
	tm := &term{fleet: f, roster: &roster{}, hosts: make(map[string]leader.Member)}
	for _, name := range strings.Fields(names) {
		name, nonVoter := strings.CutSuffix(name, "-")
		f.conf = append(f.conf, leader.RaftServer{ID: name, Addr: name, Voter: !nonVoter})
		f.well(name, name)
		tm.hosts[name] = host(name, name, leader.Alive)
		tm.hosts[name].Server.NonVoter = nonVoter
	}
	cfg := leader.Config{Catalog: discard{newLed()}, Members: tm.roster, Servers: f, RaftID: "a", ClusterID: "c", Autopilot: leader.DefaultAutopilot}
	if change != nil {
		change(&cfg)
	}
	tm.tell()
	tm.leader = mustNew(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- tm.leader.Run(ctx) }()
	tm.stop = func() { cancel(); <-done }
	tm.pass(30 * time.Second)
	return tm
}

// discard is a catalog that takes everything: these tests aren't about it.
type discard struct{ *led }

func (tm *term) tell() {
	var members []leader.Member
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range tm.hosts {
			if !yield(name) {
				return
			}
		}
	}) {
		members = append(members, tm.hosts[name])
	}
	tm.set(members...)
}

func (tm *term) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// dies has the server fail and answer no more.
func (tm *term) dies(name string, status leader.Status) {
	m := tm.hosts[name]
	m.Status = status
	tm.hosts[name] = m
	tm.mu().Lock()
	delete(tm.fleet.health, name)
	tm.mu().Unlock()
}

func (tm *term) mu() *sync.Mutex { return &tm.fleet.mu }

// comes has a new server show up.
func (tm *term) comes(name, raftID string) {
	tm.hosts[name] = host(name, raftID, leader.Alive)
	tm.well(raftID, name)
}

func TestAutopilot_FollowsItsRules(t *testing.T) {
	tests := []struct {
		name   string
		begin  string // servers, "-" after a name: never to vote; a leads
		cfg    func(*leader.Config)
		change func(*term)
		after  time.Duration // 0: a minute
		want   []string
	}{
		{"all is well", "a b c", nil, nil, 0, nil},
		{"a new server is added, and votes when it was steady", "a b c", nil,
			func(tm *term) { tm.comes("d", "d") }, 0, []string{"add d d false", "add d d true"}},
		{"it doesn't yet", "a b c", nil,
			func(tm *term) { tm.comes("d", "d") }, 9 * time.Second, []string{"add d d false"}},
		{"at once while the cluster begins", "a b", func(c *leader.Config) { c.Expect = 3 },
			func(tm *term) {
				_ = tm.leader.Begin(context.Background(), leader.Beginning{})
				tm.comes("d", "d")
			}, 5 * time.Second, []string{"add d d false", "add d d true"}},
		{"it doesn't though there are too few", "a b", func(c *leader.Config) { c.Expect = 3 },
			func(tm *term) { tm.comes("d", "d") }, 9 * time.Second, []string{"add d d false"}},
		{"nor if it comes later than the others", "a b", func(c *leader.Config) { c.Expect = 3 },
			func(tm *term) {
				_ = tm.leader.Begin(context.Background(), leader.Beginning{})
				tm.pass(time.Minute)
				tm.comes("d", "d")
			}, 9 * time.Second, []string{"add d d false"}},
		{"and does when it was steady", "a b", func(c *leader.Config) { c.Expect = 3 },
			func(tm *term) { tm.comes("d", "d") }, 0, []string{"add d d false", "add d d true"}},
		{"one that lags doesn't", "a b c", nil, func(tm *term) {
			tm.comes("d", "d")
			tm.fleet.health["d"] = leader.ServerHealth{RaftID: "d", LastIndex: 100, LastTerm: 3}
		}, time.Hour, []string{"add d d false"}},
		{"one that never heard the leader doesn't", "a b c", nil, func(tm *term) {
			tm.comes("d", "d")
			tm.fleet.health["d"] = leader.ServerHealth{RaftID: "d", LastContact: -1, LastIndex: 1000, LastTerm: 3}
		}, time.Hour, []string{"add d d false"}},
		{"one of another term doesn't", "a b c", nil, func(tm *term) {
			tm.comes("d", "d")
			tm.fleet.health["d"] = leader.ServerHealth{RaftID: "d", LastIndex: 1000, LastTerm: 2}
		}, time.Hour, []string{"add d d false"}},
		{"one that is not to vote never does", "a b c", nil, func(tm *term) {
			tm.comes("d", "d")
			tm.hosts["d"].Server.NonVoter = true
		}, time.Hour, []string{"add d d false"}},
		{"one of another cluster is left alone", "a b c", nil, func(tm *term) {
			tm.comes("d", "d")
			tm.fleet.health["d"] = leader.ServerHealth{RaftID: "d", ClusterID: "other"}
		}, time.Hour, nil},
		{"one that is promised to begin with others too", "a b c", nil, func(tm *term) {
			tm.comes("d", "d")
			tm.fleet.health["d"] = leader.ServerHealth{RaftID: "d", Promised: "x"}
		}, time.Hour, nil},
		{"one that is promised to one of ours isn't", "a b c", nil, func(tm *term) {
			tm.comes("d", "d")
			tm.fleet.health["d"] = leader.ServerHealth{RaftID: "d", Promised: "b"}
		}, time.Hour, []string{"add d d false"}},
		{"one that doesn't answer is waited for", "a b c", nil, func(tm *term) {
			tm.hosts["d"] = host("d", "d", leader.Alive)
		}, time.Hour, nil},
		{"one in doubt is left alone", "a b c", nil, func(tm *term) {
			tm.comes("d", "d")
			m := tm.hosts["d"]
			m.Conflict = "two claim it"
			tm.hosts["d"] = m
		}, time.Hour, nil},
		{"one that moved gets its new address", "a b c", nil, func(tm *term) {
			tm.hosts["b"].Server.Addr = "b2"
			tm.well("b", "b2")
		}, 0, []string{"add b b2 true"}},

		{"a server that left goes at once", "a b c", nil, func(tm *term) { tm.dies("c", leader.Left) }, 2 * time.Second, []string{"remove c"}},
		{"even if quorum is one then", "a b c", nil, func(tm *term) { tm.dies("c", leader.Left); tm.dies("b", leader.Left) }, 0,
			nil}, // two of three are gone: nothing can be committed
		{"a dead one stays while it isn't replaced", "a b c", nil, func(tm *term) { tm.dies("c", leader.Failed) }, time.Hour, nil},
		{"nor of five", "a b c d e", nil, func(tm *term) { tm.dies("c", leader.Failed); tm.dies("d", leader.Failed) }, time.Hour, nil},
		{"it goes when another is in its place", "a b c", nil, func(tm *term) {
			tm.dies("c", leader.Failed)
			tm.comes("d", "d")
		}, 0, []string{"add d d false", "add d d true", "remove c"}},
		{"one for one", "a b c d e", nil, func(tm *term) {
			tm.dies("c", leader.Failed)
			tm.dies("d", leader.Failed)
			tm.comes("f", "f")
		}, time.Hour, []string{"add f f false", "add f f true", "remove c"}},
		{"not below min_quorum", "a b c", func(c *leader.Config) { c.Autopilot.MinQuorum = 4 }, func(tm *term) {
			tm.dies("c", leader.Failed)
			tm.comes("d", "d")
		}, time.Hour, []string{"add d d false", "add d d true"}},
		{"not without cleanup_dead_servers", "a b c", func(c *leader.Config) { c.Autopilot.CleanupDeadServers = false }, func(tm *term) {
			tm.dies("c", leader.Failed)
			tm.comes("d", "d")
		}, time.Hour, []string{"add d d false", "add d d true"}},
		{"not one that answers", "a b c d", nil, func(tm *term) {
			tm.dies("c", leader.Failed)
			tm.well("c", "c")
		}, time.Hour, nil},
		{"a dead one without a vote goes at once", "a b c d-", nil, func(tm *term) { tm.dies("d", leader.Failed) }, 5 * time.Second, []string{"remove d"}},
		{"one that is no member goes late", "a b c d", nil, func(tm *term) {
			tm.dies("d", leader.Failed)
			delete(tm.hosts, "d")
		}, 9 * time.Minute, nil},
		{"but goes", "a b c d", nil, func(tm *term) {
			tm.dies("d", leader.Failed)
			delete(tm.hosts, "d")
		}, 11 * time.Minute, []string{"remove d"}},

		{"rule 15: one that lost its files comes back as another, without a vote first", "a b c", nil, func(tm *term) {
			tm.fleet.conf[2].ID = "node-c" // its node ID, until then
			tm.comes("c", "fresh")
		}, 0, []string{"remove node-c", "add fresh c false", "add fresh c true"}},
		{"rule 15: and once more", "a b c", nil, func(tm *term) {
			tm.fleet.conf[2].ID = "fresh1"
			tm.comes("c", "fresh2")
		}, 0, []string{"remove fresh1", "add fresh2 c false", "add fresh2 c true"}},
		{"rule 15: not while it starts and says no ID yet", "a b c", nil, func(tm *term) {
			tm.fleet.conf[2].ID = "fresh"
			tm.hosts["c"] = host("c", "", leader.Alive)
			tm.well("fresh", "c")
		}, time.Minute, nil},
		{"rule 15: not if too few would be left to agree", "a b c", nil, func(tm *term) {
			tm.fleet.conf[2].ID = "node-c"
			tm.comes("c", "fresh")
			tm.dies("b", leader.Failed)
		}, time.Hour, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tm := begin(t, tt.begin, tt.cfg)
				defer func() { tm.stop() }()
				if s := tm.took(); len(s) > 0 {
					t.Errorf("before anything happened: %v", s)
				}
				if tt.change != nil {
					tt.change(tm)
				}
				tm.tell()
				if tt.after == 0 {
					tt.after = time.Minute
				}
				tm.pass(tt.after)
				if diff := cmp.Diff(append([]string{}, tt.want...), tm.took()); diff != "" {
					t.Errorf("steps (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestAutopilot_DoesNothingWhileTheGuardIsOnOrAChangeIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tm := begin(t, "a b c d-", nil)
		defer func() { tm.stop() }()
		tm.comes("e", "e")
		tm.dies("d", leader.Left)
		var members []leader.Member
		for _, m := range tm.hosts {
			members = append(members, m)
		}
		tm.setGuarded(true, members...)
		tm.pass(time.Hour)
		if s := tm.took(); len(s) > 0 {
			t.Errorf("while the guard is on: %v", s)
		}
		tm.mu().Lock()
		tm.uncertain = true
		tm.mu().Unlock()
		tm.tell()
		tm.pass(time.Hour)
		if s := tm.took(); len(s) > 0 {
			t.Errorf("while a change isn't committed: %v", s)
		}
		tm.mu().Lock()
		tm.uncertain, tm.fleet.fail = false, errors.New("no quorum")
		tm.mu().Unlock()
		tm.pass(7 * time.Second)
		if s := tm.took(); len(s) < 2 || len(s) > 5 || slices.ContainsFunc(s, func(x string) bool { return x != "remove d" }) {
			t.Errorf("when it fails: %v, want the same step again, calmly", s)
		}
	})
}

func TestAutopilot_SaysHowTheServersAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tm := begin(t, "a b c", nil)
		defer func() { tm.stop() }()
		began := time.Now()
		h := tm.leader.Health()
		if !h.Healthy || h.FailureTolerance != 1 || len(h.Servers) != 3 {
			t.Fatalf("got %+v", h)
		}
		b := h.Servers[1]
		want := leader.ServerState{
			ID: "b", Name: "b", Address: "b", SerfStatus: "alive", Version: "1", LastContact: 20 * time.Millisecond, LastTerm: 3, LastIndex: 1000,
			Healthy: true, Voter: true, StableSince: b.StableSince, Meta: map[string]string{"version": "1"},
		}
		if diff := cmp.Diff(want, b); diff != "" || b.StableSince.IsZero() || b.StableSince.After(began) {
			t.Errorf("b (-want +got):\n%s", diff)
		}
		if !h.Servers[0].Leader || !h.Servers[0].Healthy {
			t.Errorf("a: %+v", h.Servers[0])
		}
		tm.dies("b", leader.Failed)
		tm.tell()
		tm.pass(5 * time.Second)
		h = tm.leader.Health()
		if b := h.Servers[1]; h.Healthy || h.FailureTolerance != 0 || b.Healthy || b.SerfStatus != "failed" || b.LastContact >= 0 || b.StableSince.Before(began) {
			t.Errorf("b is dead: got %+v", h)
		}
	})
}

func TestNew_NeedsItsOwnIDForAutopilot(t *testing.T) {
	if _, err := leader.New(leader.Config{Catalog: newLed(), Members: &roster{}, Servers: &fleet{}}); err == nil {
		t.Error("no error")
	}
}

// The files give a new catalog its policy; after that the catalog says it.
func TestAutopilot_GoesByWhatTheCatalogKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		catalogOf := newLed()
		tm := begin(t, "a b c", func(cfg *leader.Config) {
			cfg.Catalog = catalogOf
			cfg.Autopilot = leader.Autopilot{CleanupDeadServers: true, MinQuorum: 2}
		})
		defer func() { tm.stop() }()
		kept := func() *catalog.Autopilot {
			_, c := catalogOf.store.Read().Autopilot(nil)
			return c
		}
		for range 2 { // the second time of leading changes nothing
			if err := tm.leader.Begin(t.Context(), leader.Beginning{}); err != nil {
				t.Fatal(err)
			}
			if c := kept(); c == nil || !c.CleanupDeadServers || c.MinQuorum != 2 || c.MaxTrailingLogs != 250 || c.ServerStabilizationTime != 10*time.Second {
				t.Fatalf("kept %+v", c)
			}
		}
		off := *kept()
		off.ServerStabilizationTime = time.Minute
		if err := catalogOf.Apply(t.Context(), &catalog.SetAutopilot{Config: off}); err != nil {
			t.Fatal(err)
		}
		if err := tm.leader.Begin(t.Context(), leader.Beginning{}); err != nil || kept().ServerStabilizationTime != time.Minute {
			t.Fatalf("the files' policy is back: %+v, %v", kept(), err)
		}
		tm.comes("d", "d")
		tm.tell()
		tm.pass(50 * time.Second)
		if got, want := tm.took(), []string{"add d d false"}; !slices.Equal(got, want) {
			t.Errorf("before the new time: %v, want %v", got, want)
		}
		tm.pass(20 * time.Second)
		if got, want := tm.took(), []string{"add d d true"}; !slices.Equal(got, want) {
			t.Errorf("after it: %v, want %v", got, want)
		}
	})
}
