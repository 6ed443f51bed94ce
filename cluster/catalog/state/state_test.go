package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-memdb"

	"meibo/cluster/catalog"
	"meibo/cluster/catalog/state"
)

const (
	history1 = "11111111-0000-4000-8000-000000000001"
	history2 = "22222222-0000-4000-8000-000000000002"
	idA      = "aaaaaaaa-0000-4000-8000-00000000000a"
	idB      = "bbbbbbbb-0000-4000-8000-00000000000b"
)

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// log drives a store as Raft would.
type log struct {
	t     testing.TB
	store *state.Store
	index uint64
	now   time.Time
}

func newLog(t testing.TB) *log { return &log{t: t, store: state.New(), now: epoch} }

func (l *log) apply(body catalog.Body) error {
	l.t.Helper()
	return l.request(catalog.RequestID{}, body)
}

func (l *log) request(id catalog.RequestID, body catalog.Body) error {
	l.t.Helper()
	l.index++
	cmd, err := catalog.Command{Time: l.now, Request: id, Body: body}.Encode()
	if err != nil {
		l.t.Fatal(err)
	}
	if reply := l.store.Apply(l.index, cmd); reply != nil {
		return reply.(error)
	}
	return nil
}

func (l *log) must(bodies ...catalog.Body) {
	l.t.Helper()
	for _, b := range bodies {
		if err := l.apply(b); err != nil {
			l.t.Fatalf("apply %T: %v", b, err)
		}
	}
}

func node(name, id string) catalog.Node {
	return catalog.Node{Node: name, ID: id, Address: "192.0.2.1", Datacenter: "dc1"}
}

func registerNode(name, id string) *catalog.Register { return &catalog.Register{Node: node(name, id)} }

func registerService(nodeName, service string, tags ...string) *catalog.Register {
	return &catalog.Register{Node: node(nodeName, ""), Service: &catalog.Service{Service: service, Port: 80, Tags: tags}}
}

func registerCheck(nodeName, id, serviceID, status string) *catalog.Register {
	return &catalog.Register{Node: node(nodeName, ""), SkipNodeUpdate: true,
		Checks: []*catalog.Check{{CheckID: id, Name: id, ServiceID: serviceID, Status: status}}}
}

// indexes are the indexes of one query of each kind.
func (l *log) indexes() map[string]uint64 {
	r := l.store.Read()
	m := make(map[string]uint64)
	m["nodes"], _ = r.Nodes(nil)
	m["node a"], _ = r.Node(nil, "a")
	m["node b"], _ = r.Node(nil, "b")
	m["services"], _ = r.Services(nil)
	m["web"], _ = r.ServiceInstances(nil, "web")
	m["db"], _ = r.ServiceInstances(nil, "db")
	m["services on a"], _ = r.NodeServices(nil, "a")
	m["services on b"], _ = r.NodeServices(nil, "b")
	m["checks on a"], _ = r.NodeChecks(nil, "a")
	m["checks on b"], _ = r.NodeChecks(nil, "b")
	m["any"], _ = r.ChecksInState(nil, catalog.AnyState)
	m["passing"], _ = r.ChecksInState(nil, catalog.Passing)
	m["critical"], _ = r.ChecksInState(nil, catalog.Critical)
	m["tombstones"], _ = r.Tombstones(nil)
	return m
}

// Which results move with which change: consul.md 5.11, and none besides.
func TestApply_MovesTheIndexesOfTheResultsItChangesAndNoOthers(t *testing.T) {
	l := newLog(t)
	l.must(registerNode("a", idA), registerNode("b", idB),
		registerService("a", "web", "v1"), registerService("b", "db"),
		registerCheck("a", "c-web", "web", catalog.Passing), registerCheck("a", catalog.SerfHealth, "", catalog.Passing))
	changed := node("a", idA)
	changed.Address = "192.0.2.9"
	web := func(f func(*catalog.Service)) *catalog.Register {
		s := catalog.Service{Service: "web", Port: 80, Tags: []string{"v1"}}
		f(&s)
		return &catalog.Register{Node: node("a", ""), SkipNodeUpdate: true, Service: &s}
	}
	steps := []struct {
		name string
		body catalog.Body
		want []string
	}{
		{"the same service again", web(func(*catalog.Service) {}), nil},
		{"the same check again", registerCheck("a", "c-web", "web", catalog.Passing), nil},
		{"a node without ID or change", registerNode("b", idB), nil},
		{"a port", web(func(s *catalog.Service) { s.Port = 81 }), []string{"web", "services on a"}},
		{"tags", web(func(s *catalog.Service) { s.Port = 81; s.Tags = []string{"v2"} }),
			// The check shows the tags of its service.
			[]string{"web", "services on a", "services", "any", "passing", "checks on a"}},
		{"a service's check", registerCheck("a", "c-web", "web", catalog.Critical),
			[]string{"web", "checks on a", "any", "passing", "critical"}},
		{"a node's check", registerCheck("a", catalog.SerfHealth, "", catalog.Critical),
			[]string{"web", "checks on a", "any", "passing", "critical"}},
		{"a node's address", &catalog.Register{Node: changed}, []string{"nodes", "node a", "services on a", "web"}},
		{"mark synced without history", &catalog.MarkSynced{NodeID: idA, History: history1}, nil},
		{"a service leaves", &catalog.Deregister{Node: "b", ServiceID: "db"}, []string{"services", "db", "services on b", "tombstones"}},
		{"an unknown service leaves", &catalog.Deregister{Node: "b", ServiceID: "nope"}, []string{"tombstones"}},
		{"a node leaves", &catalog.Deregister{Node: "b"}, []string{"nodes", "node b", "services on b", "checks on b", "tombstones"}},
		{"the other too", &catalog.Deregister{Node: "A"}, []string{"nodes", "node a", "node b", "services", "web", "db",
			"services on a", "services on b", "checks on a", "checks on b", "any", "critical", "tombstones"}},
	}
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			before := l.indexes()
			_ = l.apply(s.body)
			want := before
			for _, k := range s.want {
				want[k] = l.index
			}
			if diff := cmp.Diff(want, l.indexes()); diff != "" {
				t.Errorf("indexes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRegister_ShowsWhatWasRegistered(t *testing.T) {
	l := newLog(t)
	l.must(registerNode("Alpha", idA), registerService("alpha", "Web", "b", "a"), registerService("alpha", "web", "c"))
	r := l.store.Read()
	if _, got := r.Services(nil); !cmp.Equal(got, map[string][]string{"Web": {"a", "b"}, "web": {"c"}}) {
		t.Errorf("services: got %v", got)
	}
	_, instances := r.ServiceInstances(nil, "WEB")
	if len(instances) != 2 || instances[0].Node.Node != "Alpha" || instances[1].Service.Node != "Alpha" {
		t.Errorf("instances: got %+v, want two on Alpha, whose ID stays", instances)
	}
	if _, n := r.Node(nil, "ALPHA"); n == nil || n.ID != idA {
		t.Errorf("node: got %+v, want the ID kept by a registration without one", n)
	}
	if w := instances[0].Service.Weights; w != (catalog.Weights{Passing: 1, Warning: 1}) {
		t.Errorf("weights: got %v, want 1, 1", w)
	}
}

func TestRegister_TakesANameByConsulsRules(t *testing.T) {
	healthy := func(name string) catalog.Body { return registerCheck(name, catalog.SerfHealth, "", catalog.Passing) }
	failed := func(name string) catalog.Body { return registerCheck(name, catalog.SerfHealth, "", catalog.Critical) }
	tests := []struct {
		name  string
		setup []catalog.Body
		body  catalog.Body
		want  string // error, empty = allowed
	}{
		{"held by a living node", []catalog.Body{registerNode("a", idA), healthy("a")}, registerNode("A", idB),
			`Error while renaming Node ID: "` + idB + `": Node name A is reserved by node ` + idA + ` with name a (192.0.2.1)`},
		{"held by a failed node", []catalog.Body{registerNode("a", idA), failed("a")}, registerNode("a", idB), ""},
		{"held by an external node", []catalog.Body{registerNode("a", idA)}, registerNode("a", idB), ""},
		{"held without ID", []catalog.Body{registerNode("a", ""), healthy("a")}, registerNode("a", idB), ""},
		{"rename to a free name", []catalog.Body{registerNode("a", idA), healthy("a")}, registerNode("b", idA), ""},
		{"rename to a living node's", []catalog.Body{registerNode("a", idA), registerNode("b", idB), healthy("b")}, registerNode("b", idA),
			`Error while renaming Node ID: "` + idA + `" (192.0.2.1): Node name b is reserved by node ` + idB + ` with name b (192.0.2.1)`},
		{"rename to a living node's without ID", []catalog.Body{registerNode("a", idA), registerNode("b", ""), healthy("b")}, registerNode("b", idA),
			`Error while renaming Node ID: "` + idA + `" (192.0.2.1): Node name b is reserved by node  with name b (192.0.2.1)`},
		{"rename in letter case", []catalog.Body{registerNode("a", idA), healthy("a")}, registerNode("A", idA), ""},
		{"check of no service", []catalog.Body{registerNode("a", idA)}, registerCheck("a", "c", "web", catalog.Passing),
			`Missing service registration: check "c" names service ID "web", which node "a" does not have`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLog(t)
			l.must(tt.setup...)
			before := l.snapshot()
			got := ""
			if err := l.apply(tt.body); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got error %q, want %q", got, tt.want)
			}
			if got != "" && len(l.snapshot()) != len(before) {
				t.Error("a refused registration left a trace")
			}
			if _, n := l.store.Read().NodeByID(nil, idA); tt.name == "rename to a free name" && n.Node != "b" {
				t.Errorf("node: got %+v, want it renamed to b", n)
			}
		})
	}
}

// The successor of a dead host under its name begins with nothing of it.
func TestRegister_TakingADeadNodesNameRemovesWhatWasOnIt(t *testing.T) {
	l := newLog(t)
	l.must(registerNode("a", idA), registerService("a", "web"), registerCheck("a", "c", "web", catalog.Passing),
		registerCheck("a", catalog.SerfHealth, "", catalog.Critical))
	if err := l.apply(&catalog.Register{Node: node("a", idB), Checks: []*catalog.Check{{CheckID: "c", ServiceID: "web", Status: catalog.Passing}}}); err == nil {
		t.Error("a check of the dead host's service: got no error")
	}
	l.must(&catalog.Register{Node: node("a", idB), Checks: []*catalog.Check{{CheckID: catalog.SerfHealth, Status: catalog.Passing}}})
	r := l.store.Read()
	_, n := r.Node(nil, "a")
	_, services := r.NodeServices(nil, "a")
	_, checks := r.NodeChecks(nil, "a")
	if n.ID != idB || n.CreateIndex != l.index || len(services) > 0 || len(checks) != 1 || checks[0].Status != catalog.Passing {
		t.Errorf("got node %+v, %d services, %d checks", n, len(services), len(checks))
	}
	external := newLog(t)
	external.must(registerNode("a", idA), registerService("a", "web"), registerNode("a", idB))
	if _, services := external.store.Read().NodeServices(nil, "a"); len(services) != 1 {
		t.Errorf("an external node that gets another ID: %d services, want its one", len(services))
	}
}

func TestDeregister_OfAnIDLeavesANodeOfAnotherAlone(t *testing.T) {
	l := newLog(t)
	l.must(registerNode("a", idB), registerService("a", "web"))
	before := l.indexes()
	l.must(&catalog.Deregister{Node: "a", NodeID: idA}, &catalog.Deregister{Node: "a", ServiceID: "web", NodeID: idA}, &catalog.Deregister{Node: "gone", NodeID: idA})
	if diff := cmp.Diff(before, l.indexes()); diff != "" {
		t.Errorf("indexes (-want +got):\n%s", diff)
	}
	l.must(&catalog.Deregister{Node: "A", NodeID: idB})
	if _, n := l.store.Read().Node(nil, "a"); n != nil {
		t.Errorf("got %+v, want it gone", n)
	}
}

// A retry gets the reply of before whatever came in between: a snapshot, a new
// history.
func TestRequest_IsRememberedOverARestoreAndANewHistory(t *testing.T) {
	l := newLog(t)
	id := catalog.RequestID{Client: "h1", Counter: 7}
	first := l.request(id, registerCheck("a", "c", "web", catalog.Passing))
	l.must(registerService("a", "web"), &catalog.BeginHistory{ID: history1, Base: catalog.NextBase(epoch, 0)})
	if err := l.store.Restore(bytes.NewReader(l.snapshot())); err != nil {
		t.Fatal(err)
	}
	if again := l.request(id, registerCheck("a", "c", "web", catalog.Passing)); first == nil || again == nil || first.Error() != again.Error() {
		t.Errorf("got %v, want the first reply, %v", again, first)
	}
}

func (l *log) snapshot() []byte {
	l.t.Helper()
	var b bytes.Buffer
	if _, err := l.store.Snapshot().WriteTo(&b); err != nil {
		l.t.Fatal(err)
	}
	return b.Bytes()
}

func TestWatch_IsClosedWhenItsResultChangesAndNotElse(t *testing.T) {
	l := newLog(t)
	l.must(registerService("a", "web"), registerService("b", "db"))
	watch := func() map[string]memdb.WatchSet {
		r, m := l.store.Read(), make(map[string]memdb.WatchSet)
		for _, name := range []string{"web", "db"} {
			m[name] = memdb.NewWatchSet()
			r.ServiceInstances(m[name], name)
		}
		return m
	}
	fired := func(ws memdb.WatchSet) bool {
		for ch := range ws {
			select {
			case <-ch:
				return true
			default:
			}
		}
		return false
	}
	w := watch()
	l.must(registerCheck("a", "c", "web", catalog.Passing))
	if !fired(w["web"]) || fired(w["db"]) {
		t.Errorf("a check of web: web %v, db %v; want true, false", fired(w["web"]), fired(w["db"]))
	}
	w = watch()
	l.must(&catalog.BeginHistory{ID: history1, Base: 100})
	if !fired(w["web"]) || !fired(w["db"]) {
		t.Error("a new history wakes all watches")
	}
	w, snap := watch(), l.snapshot()
	if err := l.store.Restore(bytes.NewReader(snap)); err != nil {
		t.Fatal(err)
	}
	if !fired(w["web"]) || !fired(w["db"]) {
		t.Error("a restore wakes all watches")
	}
}

// VIEWS.md, Terms: the index shown is base + index and never goes back.
func TestBeginHistory_RaisesEveryIndex(t *testing.T) {
	l := newLog(t)
	base := catalog.NextBase(epoch, 0)
	l.must(&catalog.BeginHistory{ID: history1, Base: base}, registerService("a", "web"))
	if got, want := l.indexes()["web"], base+2; got != want {
		t.Errorf("index of web: got %d, want %d", got, want)
	}
	if got, want := l.indexes()["db"], base+1; got != want {
		t.Errorf("index of what isn't there: got %d, want the history's, %d", got, want)
	}
	if err := l.apply(&catalog.BeginHistory{ID: history2, Base: base - 100}); err == nil {
		t.Error("a base that lets the index go back: got no error")
	}
	l.must(&catalog.BeginHistory{ID: history1, Base: 5}) // the present one: nothing happens
	known := l.store.Read().LastIndex()
	l.must(&catalog.BeginHistory{ID: history2, Base: catalog.NextBase(epoch, known)})
	for k, v := range l.indexes() {
		if v <= known {
			t.Errorf("index of %s: got %d, want above %d", k, v, known)
		}
	}
	if _, h := l.store.Read().History(nil); h.ID != history2 {
		t.Errorf("history: got %v", h)
	}
}

// VIEWS.md 17, 18: marks of agents.
func TestMarkSynced_NotesTheHistory(t *testing.T) {
	l := newLog(t)
	agentless := registerNode("a", idA)
	agentless.Node.Agentless = true
	l.must(&catalog.BeginHistory{ID: history1, Base: 1}, agentless)
	get := func() *catalog.Node { _, n := l.store.Read().Node(nil, "a"); return n }
	if n := get(); !n.Agentless || n.Synced != "" {
		t.Errorf("registered through the API: got %+v", n)
	}
	before := get().ModifyIndex
	l.must(&catalog.MarkSynced{NodeID: idA, History: history1})
	if n := get(); n.Agentless || n.Synced != history1 || n.ModifyIndex != before {
		t.Errorf("synced: got %+v, want no index moved", n)
	}
	l.must(agentless)
	if n := get(); n.Agentless || n.Synced != history1 {
		t.Errorf("registered through the API again: got %+v, want the agent's marks kept", n)
	}
	if err := l.apply(&catalog.MarkSynced{NodeID: idA, History: history2}); err == nil {
		t.Error("another history: got no error")
	}
	other := registerNode("a", idB)
	other.Node.Agentless = true
	l.must(other)
	if n := get(); n.Synced != "" || !n.Agentless {
		t.Errorf("taken over by another node, through the API: got %+v, want none of the former agent's marks", n)
	}
}

// VIEWS.md 17: what is deregistered is said to be gone, known here or not, since a host that is away may remember it from
// another history; but not of a node of which all is known.
func TestDeregister_WritesATombstone(t *testing.T) {
	l := newLog(t)
	l.must(&catalog.BeginHistory{ID: history1, Base: 1}, registerNode("a", idA), registerNode("b", idB), registerNode("printer", ""),
		registerService("a", "db"), registerService("b", "db"), registerService("printer", "print"), &catalog.MarkSynced{NodeID: idA, History: history1})
	l.must(&catalog.Deregister{Node: "a", ServiceID: "web"}, &catalog.Deregister{Node: "a", ServiceID: "db"}, // all of a is known: nothing to say
		&catalog.Deregister{Node: "b", ServiceID: "web"}, &catalog.Deregister{Node: "b", ServiceID: "db"}, &catalog.Deregister{Node: "b", CheckID: "c"},
		&catalog.Deregister{Node: "printer"}, &catalog.Deregister{Node: "printer", NodeID: idB}, // the second means another
		&catalog.Deregister{Node: "gone"}, &catalog.Forget{Node: "forgotten"}, &catalog.Forget{Node: "b"})
	stones := func() (s []string) {
		_, all := l.store.Read().Tombstones(nil)
		for _, t := range all {
			s = append(s, t.Node+"/"+t.ServiceID+"/"+t.CheckID)
		}
		return s
	}
	if diff := cmp.Diff([]string{"b//", "b//c", "b/db/", "b/web/", "forgotten//", "gone//", "printer//"}, stones()); diff != "" {
		t.Errorf("tombstones (-want +got):\n%s", diff)
	}
	l.must(registerService("gone", "web"), registerService("b", "web"), registerCheck("b", "c", "", catalog.Passing))
	if diff := cmp.Diff([]string{"b/db/", "forgotten//", "printer//"}, stones()); diff != "" {
		t.Errorf("after registering again (-want +got):\n%s", diff)
	}
}

func TestRequest_IsCarriedOutOnceIn5Minutes(t *testing.T) {
	l := newLog(t)
	id := catalog.RequestID{Client: "h1", Counter: 7}
	l.must(registerNode("a", ""))
	bad := registerCheck("a", "c", "web", catalog.Passing)
	first := l.request(id, bad)
	l.must(registerService("a", "web"))
	l.now = l.now.Add(catalog.RepliesKept)
	if again := l.request(id, bad); first == nil || again == nil || first.Error() != again.Error() {
		t.Errorf("retry: got %v, want the reply of before, %v", again, first)
	}
	if err := l.request(catalog.RequestID{Client: "h1", Counter: 8}, bad); err != nil {
		t.Errorf("another request: got %v", err)
	}
	l.now = l.now.Add(time.Nanosecond)
	if err := l.request(id, bad); err != nil {
		t.Errorf("after 5 minutes: got %v, want it carried out", err)
	}
}

func TestApply_PanicsOnALogItCannotFollow(t *testing.T) {
	newer := append([]byte{catalog.Version + 1}, "anything"...)
	tests := []struct {
		name  string
		index uint64
		cmd   []byte
		as    any
	}{
		{"newer version", 1, newer, new(*catalog.UnknownVersionError)},
		{"unknown type", 1, mustEncode(t, futureBody{}), new(*catalog.UnknownTypeError)},
		{"no command", 1, nil, nil},
		{"an index again", 0, mustEncode(t, registerNode("a", "")), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := state.New()
			defer func() {
				err, _ := recover().(error)
				if err == nil || (tt.as != nil && !errors.As(err, tt.as)) {
					t.Errorf("got panic %v", err)
				}
				s.Apply(2, mustEncode(t, registerNode("b", ""))) // still usable: nothing is locked or half done
				if _, nodes := s.Read().Nodes(nil); len(nodes) != 1 {
					t.Errorf("nodes: got %v", nodes)
				}
			}()
			s.Apply(tt.index, tt.cmd)
		})
	}
}

type futureBody struct{}

func (futureBody) Type() catalog.Type { return 255 }
func (futureBody) Validate() error    { return nil }

func mustEncode(t testing.TB, b catalog.Body) []byte {
	t.Helper()
	p, err := catalog.Command{Time: epoch, Body: b}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSubscription_TellsChangesInOrderAndNeverHoldsApplyUp(t *testing.T) {
	l := newLog(t)
	sub := l.store.Subscribe()
	defer sub.Close()
	next := func() state.Change {
		t.Helper()
		c, err := sub.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := next(); !c.Resync {
		t.Errorf("first: got %+v, want a resync", c)
	}
	output := registerCheck("a", "c", "web", catalog.Passing)
	output.Checks[0].Output = "fine"
	steps := []struct {
		name string
		body catalog.Body
		want state.Change
	}{
		{"register", registerService("A", "Web"), state.Change{Records: []string{"a"}, Services: []string{"web"}, Nodes: []string{"a"}, ServiceNames: true, NodeNames: true}},
		{"second instance", registerService("b", "web"), state.Change{Records: []string{"b"}, Services: []string{"web"}, Nodes: []string{"b"}, NodeNames: true}},
		{"check", registerCheck("a", "c", "Web", catalog.Passing), state.Change{Records: []string{"a"}, Services: []string{"web"}}},
		{"node check", registerCheck("a", "n", "", catalog.Passing), state.Change{Records: []string{"a"}, Services: []string{"web"}, Nodes: []string{"a"}}},
		{"last instance but one", &catalog.Deregister{Node: "b"}, state.Change{Records: []string{"b"}, Services: []string{"web"}, Nodes: []string{"b"}, NodeNames: true, Marked: []string{"b"}}},
		{"last", &catalog.Deregister{Node: "a", ServiceID: "Web"}, state.Change{Records: []string{"a"}, Services: []string{"web"}, ServiceNames: true, Marked: []string{"a"}}},
		{"history", &catalog.BeginHistory{ID: history1, Base: 9}, state.Change{History: true}},
	}
	for _, s := range steps {
		l.must(s.body)
		s.want.Index = l.index
		if diff := cmp.Diff(s.want, next(), cmp.AllowUnexported(state.Change{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.name, diff)
		}
	}
	l.must(registerService("a", "web"), registerCheck("a", "c", "web", catalog.Passing))
	next()
	l.must(output)
	if c := next(); len(c.Services) > 0 || !cmp.Equal(c.Details, []string{"web"}) {
		t.Errorf("output alone: got %+v, want it among the details only", c)
	}
	l.must(output)
	if c := next(); len(c.Records) > 0 || len(c.Details) > 0 || c.Index != l.index {
		t.Errorf("nothing: got %+v, want the index alone", c)
	}
	for i := range 5000 {
		l.must(registerService("a", fmt.Sprint("s", i)))
	}
	if c := next(); !c.Resync || c.Index != l.index || len(c.Services) > 0 {
		t.Errorf("far behind: got resync %v, %d names, want a resync", c.Resync, len(c.Services))
	}
}

func TestSubscription_MissesNothingThatIsAppliedMeanwhile(t *testing.T) {
	l := newLog(t)
	for range 10_000 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.must(&catalog.Deregister{Node: "n"})
		}()
		sub := l.store.Subscribe()
		<-done
		c, err := sub.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c.Index != l.index {
			t.Fatalf("told up to index %d, %d was applied", c.Index, l.index)
		}
		sub.Close()
	}
}

func TestAutopilot_IsSetOnlyOverTheOneThatWasRead(t *testing.T) {
	l := newLog(t)
	read := func() (uint64, *catalog.Autopilot) { return l.store.Read().Autopilot(nil) }
	if _, c := read(); c != nil {
		t.Fatalf("of an empty catalog: %+v", c)
	}
	set := func(quorum int, cas bool, at uint64) *catalog.SetAutopilot {
		return &catalog.SetAutopilot{Config: catalog.Autopilot{MinQuorum: quorum, ModifyIndex: 99}, CAS: cas, ModifyIndex: at}
	}
	if err := l.apply(set(1, true, 7)); !errors.Is(err, catalog.ErrChanged) {
		t.Errorf("over one that isn't there: %v", err)
	}
	l.must(set(1, true, 0))
	first, c := read()
	if c == nil || c.MinQuorum != 1 || c.CreateIndex != first || c.ModifyIndex != first {
		t.Fatalf("at %d: %+v", first, c)
	}
	ws := memdb.NewWatchSet()
	l.store.Read().Autopilot(ws)
	l.must(registerNode("a", idA), set(1, false, 0))
	if at, _ := read(); at != first || (query{ws: ws}).fired() {
		t.Errorf("a set that changes nothing moved the index from %d to %d, or woke", first, at)
	}
	if err := l.apply(set(2, true, first-1)); !errors.Is(err, catalog.ErrChanged) || (query{ws: ws}).fired() {
		t.Errorf("over an older one: %v", err)
	}
	l.must(set(3, true, first))
	at, c := read()
	if !(query{ws: ws}).fired() || at <= first || c.MinQuorum != 3 || c.CreateIndex != first || c.ModifyIndex != at {
		t.Errorf("at %d: %+v", at, c)
	}
	if err := l.apply(set(-1, false, 0)); err == nil {
		t.Error("a negative quorum was taken")
	}
	again := state.New()
	if err := again.Restore(bytes.NewReader(l.snapshot())); err != nil {
		t.Fatal(err)
	}
	if _, restored := again.Read().Autopilot(nil); restored == nil || *restored != *c {
		t.Errorf("restored %+v, want %+v", restored, c)
	}
}

// Who waits for a change of a store that ends is woken, each time.
func TestClose_WakesWatches(t *testing.T) {
	s := state.New()
	for i := range 2 {
		for name, query := range map[string]func(catalog.Watch){
			"nodes":    func(ws catalog.Watch) { s.Read().Nodes(ws) },
			"service":  func(ws catalog.Watch) { s.Read().ServiceInstances(ws, "none") },
			"nodes of": func(ws catalog.Watch) { s.Read().ServiceNodes(ws, "none") },
		} {
			ws := memdb.NewWatchSet()
			query(ws)
			if before := !ws.Watch(time.After(0)); before {
				t.Fatalf("%s: woken before", name)
			}
			s.Close()
			if timeout := ws.Watch(time.After(time.Second)); timeout {
				t.Errorf("close %d does not wake a watch of %s", i, name)
			}
		}
	}
}
