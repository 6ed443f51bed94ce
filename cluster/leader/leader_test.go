package leader_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"meibo/cluster/catalog"
	"meibo/cluster/catalog/state"
	"meibo/cluster/leader"
)

const (
	id1 = "00000000-0000-4000-8000-000000000001"
	id2 = "00000000-0000-4000-8000-000000000002"
)

// led is a catalog without a log.
type led struct {
	store *state.Store

	mu     sync.Mutex // guards following
	index  uint64
	writes int
	fail   error
	asked  int // queries of nodes, services and checks
}

func newLed() *led { return &led{store: state.New()} }

func (l *led) Read() leader.Reader { return counted{l.store.Read(), l} }

// counted counts what is asked of the catalog.
type counted struct {
	*state.Read
	led *led
}

func (c counted) count() {
	c.led.mu.Lock()
	defer c.led.mu.Unlock()
	c.led.asked++
}

func (c counted) Node(ws catalog.Watch, name string) (uint64, *catalog.Node) {
	c.count()
	return c.Read.Node(ws, name)
}

func (c counted) NodeChecks(ws catalog.Watch, node string) (uint64, []*catalog.Check) {
	c.count()
	return c.Read.NodeChecks(ws, node)
}

func (c counted) NodeServices(ws catalog.Watch, node string) (uint64, []*catalog.Service) {
	c.count()
	return c.Read.NodeServices(ws, node)
}

func (l *led) queried() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

func (l *led) Apply(_ context.Context, body catalog.Body) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	cmd, err := catalog.Command{Time: time.Now(), Body: body}.Encode()
	if err != nil {
		return err
	}
	l.index++
	l.writes++
	if refusal, ok := l.store.Apply(l.index, cmd).(*catalog.Error); ok {
		return refusal
	}
	return nil
}

func (l *led) setFault(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

func (l *led) written() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.writes
}

// show is the catalog's nodes with their services and checks.
func (l *led) show() []string {
	r := l.store.Read()
	_, nodes := r.Nodes(nil)
	lines := []string{}
	for _, n := range nodes {
		line := n.Node + " " + n.Address
		_, services := r.NodeServices(nil, n.Node)
		for _, s := range services {
			line += fmt.Sprintf(" %s:%d%v", s.ID, s.Port, s.Meta)
		}
		_, checks := r.NodeChecks(nil, n.Node)
		for _, c := range checks {
			line += fmt.Sprintf(" %s=%s", c.CheckID, c.Status)
		}
		lines = append(lines, line)
	}
	return lines
}

// roster is a member list that the test changes.
type roster struct {
	mu      sync.Mutex // guards following
	members []leader.Member
	guarded bool
	changed chan struct{}
	gone    map[string]bool // node IDs
}

func (r *roster) Members() (members []*leader.Member, guarded bool, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.members {
		members = append(members, &r.members[i])
	}
	return members, r.guarded, r.changed
}

func (r *roster) Servers() ([]*leader.Member, bool, <-chan struct{}) {
	members, guarded, changed := r.Members()
	return slices.DeleteFunc(members, func(m *leader.Member) bool { return m.Server == nil }), guarded, changed
}

func (r *roster) IsGone(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gone[id]
}

func (r *roster) set(members ...leader.Member) { r.setGuarded(false, members...) }

func (r *roster) setGuarded(guarded bool, members ...leader.Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.changed
	r.members, r.guarded, r.changed = members, guarded, make(chan struct{})
	if old != nil {
		close(old)
	}
}

func member(name, id, addr string, status leader.Status) leader.Member {
	return leader.Member{Node: catalog.Node{Node: name, ID: id, Address: addr}, Status: status}
}

func mustNew(t *testing.T, cfg leader.Config) *leader.Leader {
	t.Helper()
	l, err := leader.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRule29_BeginsAHistoryOnlyWhereThereIsNone(t *testing.T) {
	c := newLed()
	l := mustNew(t, leader.Config{Catalog: c, Members: &roster{}})
	history := func() catalog.History { _, h := c.store.Read().History(nil); return h }
	begin := func(b leader.Beginning) {
		t.Helper()
		if err := l.Begin(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	begin(leader.Beginning{Provisional: true})
	first := history()
	if !catalog.IsUUID(first.ID) || !first.Provisional || first.Base < uint64(time.Now().Unix())<<20 {
		t.Errorf("first: %+v", first)
	}
	begin(leader.Beginning{})
	if h := history(); h != first {
		t.Errorf("there was one, and now there is %+v", h)
	}
	known := first.Base + 1<<40
	begin(leader.Beginning{Anew: true, Known: known})
	if h := history(); h.ID == first.ID || h.Base <= known || h.Provisional {
		t.Errorf("anew: %+v, want another above %d", h, known)
	}
}

func TestReconcile_MakesTheCatalogSayWhatIsKnownOfMembers(t *testing.T) {
	server := member("one", id1, "192.0.2.1", leader.Alive)
	server.Server = &leader.Server{Port: 8300, Meta: map[string]string{"version": "1"}}
	steps := []struct {
		name    string
		members []leader.Member
		want    []string
	}{
		{"a server and a client", []leader.Member{server, member("two", id2, "192.0.2.2", leader.Alive)},
			[]string{"external 192.0.2.9", "one 192.0.2.1 consul:8300map[version:1] serfHealth=passing", "two 192.0.2.2 serfHealth=passing"}},
		{"the client fails", []leader.Member{server, member("two", id2, "192.0.2.2", leader.Failed)},
			[]string{"external 192.0.2.9", "one 192.0.2.1 consul:8300map[version:1] serfHealth=passing", "two 192.0.2.2 serfHealth=critical"}},
		{"and is back", []leader.Member{server, member("two", id2, "192.0.2.2", leader.Alive)},
			[]string{"external 192.0.2.9", "one 192.0.2.1 consul:8300map[version:1] serfHealth=passing", "two 192.0.2.2 serfHealth=passing"}},
		{"and is not among the members for a while", []leader.Member{server},
			[]string{"external 192.0.2.9", "one 192.0.2.1 consul:8300map[version:1] serfHealth=passing", "two 192.0.2.2 serfHealth=passing"}},
		{"somebody else of its name left", []leader.Member{server, member("two", id1, "192.0.2.2", leader.Left)},
			[]string{"external 192.0.2.9", "one 192.0.2.1 consul:8300map[version:1] serfHealth=passing", "two 192.0.2.2 serfHealth=passing"}},
		{"it left", []leader.Member{server, member("two", id2, "192.0.2.2", leader.Left)},
			[]string{"external 192.0.2.9", "one 192.0.2.1 consul:8300map[version:1] serfHealth=passing"}},
		{"it failed after it had left", []leader.Member{server, member("two", id2, "192.0.2.2", leader.Failed)},
			[]string{"external 192.0.2.9", "one 192.0.2.1 consul:8300map[version:1] serfHealth=passing"}},
	}
	synctest.Test(t, func(t *testing.T) {
		c := newLed()
		members := &roster{}
		if err := c.Apply(t.Context(), &catalog.Register{Node: catalog.Node{Node: "external", Address: "192.0.2.9", Agentless: true}}); err != nil {
			t.Fatal(err)
		}
		members.set()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- mustNew(t, leader.Config{Catalog: c, Members: members}).Run(ctx) }()
		for _, s := range steps {
			members.set(s.members...)
			time.Sleep(time.Second)
			synctest.Wait()
			if diff := cmp.Diff(s.want, c.show()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", s.name, diff)
			}
			writes := c.written()
			time.Sleep(5 * leader.DefaultEvery)
			synctest.Wait()
			if n := c.written() - writes; n != 0 {
				t.Errorf("%s: %d writes though nothing changed", s.name, n)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestReconcile_LeavesTheRestOfARecordToItsAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newLed()
		agents := &catalog.Register{Node: catalog.Node{Node: "one", ID: id1, Address: "10.0.0.1", Meta: map[string]string{"rack": "7"}},
			Service: &catalog.Service{ID: "web", Service: "web", Port: 80}}
		if err := c.Apply(t.Context(), agents); err != nil {
			t.Fatal(err)
		}
		members := &roster{}
		members.set(member("one", id1, "192.0.2.1", leader.Alive))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- mustNew(t, leader.Config{Catalog: c, Members: members}).Run(ctx) }()
		synctest.Wait()
		want := []string{"one 10.0.0.1 web:80map[] serfHealth=passing"}
		if diff := cmp.Diff(want, c.show()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if _, n := c.store.Read().Node(nil, "one"); n.Meta["rack"] != "7" {
			t.Errorf("metadata: %v", n.Meta)
		}
		cancel()
		<-done
	})
}

func TestRun_TriesAgainWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newLed()
		c.setFault(errors.New("no leader"))
		members := &roster{}
		members.set(member("one", id1, "192.0.2.1", leader.Alive))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- mustNew(t, leader.Config{Catalog: c, Members: members}).Run(ctx) }()
		synctest.Wait()
		c.setFault(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(c.show()) != 1 {
			t.Errorf("catalog after the fault: %v", c.show())
		}
		cancel()
		<-done
	})
}

func TestNew_NeedsACatalogAndMembers(t *testing.T) {
	if _, err := leader.New(leader.Config{}); err == nil {
		t.Error("no error")
	}
}
