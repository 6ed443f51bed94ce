package state_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/go-memdb"
	"pgregory.net/rapid"

	"meibo/cluster/catalog"
	"meibo/cluster/catalog/state"
)

// model is the catalog as naive maps: what the store must agree with.
type model struct {
	nodes    map[string]catalog.Node    // by folded name
	services map[string]catalog.Service // by folded node, "/", ID
	checks   map[string]catalog.Check   // by folded node, "/", ID
	history  string
}

func newModel() *model {
	return &model{nodes: map[string]catalog.Node{}, services: map[string]catalog.Service{}, checks: map[string]catalog.Check{}}
}

func on(node, id string) string { return strings.ToLower(node) + "/" + id }

// apply reports whether the command is allowed, and carries it out if it is.
func (m *model) apply(body catalog.Body) bool {
	switch b := body.(type) {
	case *catalog.Register:
		return m.register(b)
	case *catalog.Deregister:
		m.deregister(b)
	case *catalog.Forget:
		m.dropNode(b.Node)
	case *catalog.MarkSynced:
		for k, n := range m.nodes {
			if n.ID == b.NodeID && b.History == m.history {
				n.Synced, n.Agentless = b.History, false
				m.nodes[k] = n
				return true
			}
		}
		return false
	}
	return true
}

func (m *model) register(r *catalog.Register) bool {
	k := strings.ToLower(r.Node.Node)
	old, known := m.nodes[k]
	skip := known && r.SkipNodeUpdate
	former, dead := "", false
	if r.Node.ID != "" && !skip {
		for name, n := range m.nodes {
			if n.ID == r.Node.ID && name != k {
				former = name
			}
		}
		health, checked := m.checks[on(r.Node.Node, catalog.SerfHealth)]
		living := checked && health.Status != catalog.Critical
		adopt := old.ID == "" && former == ""
		if known && old.ID != r.Node.ID && living && !adopt {
			return false
		}
		dead = known && old.ID != "" && old.ID != r.Node.ID && checked
	}
	if !m.hasServices(r, former != "" || dead) {
		return false
	}
	n := r.Node
	if former != "" {
		n.Synced = m.nodes[former].Synced
		n.Agentless = n.Agentless && m.nodes[former].Agentless
		m.dropNode(former)
	}
	if dead {
		m.dropNode(k)
		known = false
	}
	if known {
		if n.ID == "" {
			n.ID, n.Node = old.ID, old.Node
		}
		if n.ID == old.ID {
			n.Synced, n.Agentless = old.Synced, n.Agentless && old.Agentless
		}
	}
	if !skip {
		m.nodes[k] = n
	}
	m.putRest(r, k)
	return true
}

func (m *model) hasServices(r *catalog.Register, renamed bool) bool {
	for _, c := range r.Checks {
		_, there := m.services[on(r.Node.Node, c.ServiceID)]
		comes := r.Service != nil && r.Service.ID == c.ServiceID
		if c.ServiceID != "" && !comes && (!there || renamed) {
			return false
		}
	}
	return true
}

func (m *model) putRest(r *catalog.Register, k string) {
	if s := r.Service; s != nil {
		m.services[on(k, s.ID)] = *s
	}
	for _, c := range r.Checks {
		m.checks[on(k, c.CheckID)] = *c
	}
	for id, c := range m.checks { // checks follow their service
		if s, ok := m.services[id[:strings.Index(id, "/")+1]+c.ServiceID]; ok && c.ServiceID != "" {
			c.ServiceName, c.ServiceTags = s.Service, s.Tags
			m.checks[id] = c
		}
	}
}

func (m *model) dropNode(name string) {
	prefix := on(name, "")
	delete(m.nodes, strings.ToLower(name))
	maps.DeleteFunc(m.services, func(k string, _ catalog.Service) bool { return strings.HasPrefix(k, prefix) })
	maps.DeleteFunc(m.checks, func(k string, _ catalog.Check) bool { return strings.HasPrefix(k, prefix) })
}

func (m *model) deregister(d *catalog.Deregister) {
	switch {
	case d.NodeID != "" && m.nodes[strings.ToLower(d.Node)].ID != d.NodeID:
	case d.ServiceID != "":
		delete(m.services, on(d.Node, d.ServiceID))
		maps.DeleteFunc(m.checks, func(k string, c catalog.Check) bool {
			return strings.HasPrefix(k, on(d.Node, "")) && c.ServiceID == d.ServiceID
		})
	case d.CheckID != "":
		delete(m.checks, on(d.Node, d.CheckID))
	default:
		m.dropNode(d.Node)
	}
}

// instances are those of the service with the IDs of their checks.
func (m *model) instances(name string) (lines []string) {
	for _, k := range slices.Sorted(maps.Keys(m.services)) {
		s := m.services[k]
		if !strings.EqualFold(s.Service, name) {
			continue
		}
		node, _, _ := strings.Cut(k, "/")
		var own, ofNode []string
		for _, ck := range slices.Sorted(maps.Keys(m.checks)) {
			c := m.checks[ck]
			if !strings.HasPrefix(ck, node+"/") {
				continue
			}
			switch c.ServiceID {
			case "":
				ofNode = append(ofNode, c.CheckID+"="+c.Status)
			case s.ID:
				own = append(own, c.CheckID+"="+c.Status)
			}
		}
		lines = append(lines, fmt.Sprint(node, "/", s.ID, s.Tags, s.Port, m.nodes[node].Address, append(ofNode, own...)))
	}
	return lines
}

func storeInstances(r *state.Read, name string) (lines []string) {
	_, instances := r.ServiceInstances(nil, name)
	for _, i := range instances {
		var checks []string
		for _, c := range i.Checks {
			checks = append(checks, c.CheckID+"="+c.Status)
		}
		lines = append(lines, fmt.Sprint(strings.ToLower(i.Node.Node), "/", i.Service.ID, i.Service.Tags, i.Service.Port, i.Node.Address, checks))
	}
	return lines
}

func values[T any](m map[string]T) (out []*T) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := m[k]
		out = append(out, &v)
	}
	return out
}

var (
	drawNode    = rapid.SampledFrom([]string{"a", "A", "b", "c"})
	drawID      = rapid.SampledFrom([]string{"", idA, idB})
	drawService = rapid.SampledFrom([]string{"web", "Web", "db"})
	drawSID     = rapid.SampledFrom([]string{"s1", "s2"})
	drawCID     = rapid.SampledFrom([]string{catalog.SerfHealth, "c1", "c2"})
	drawStatus  = rapid.SampledFrom([]string{catalog.Passing, catalog.Warning, catalog.Critical})
	drawTags    = rapid.SampledFrom([][]string{nil, {"x"}, {"x", "y"}})
	drawAddress = rapid.SampledFrom([]string{"192.0.2.1", "192.0.2.2"})
)

func drawRegister(t *rapid.T) *catalog.Register {
	r := &catalog.Register{SkipNodeUpdate: rapid.Bool().Draw(t, "skip")}
	r.Node = catalog.Node{Node: drawNode.Draw(t, "node"), ID: drawID.Draw(t, "id"), Address: drawAddress.Draw(t, "address"), Agentless: rapid.Bool().Draw(t, "agentless")}
	if rapid.Bool().Draw(t, "with service") {
		r.Service = &catalog.Service{ID: drawSID.Draw(t, "sid"), Service: drawService.Draw(t, "service"), Tags: drawTags.Draw(t, "tags"), Port: rapid.IntRange(80, 81).Draw(t, "port")}
	}
	for _, id := range rapid.SliceOfNDistinct(drawCID, 0, 2, rapid.ID).Draw(t, "checks") {
		c := &catalog.Check{CheckID: id, Status: drawStatus.Draw(t, "status"), Output: drawStatus.Draw(t, "output")}
		if c.CheckID != catalog.SerfHealth && rapid.Bool().Draw(t, "of service") {
			c.ServiceID = drawSID.Draw(t, "check's sid")
		}
		r.Checks = append(r.Checks, c)
	}
	r.Normalize()
	return r
}

func drawBody(t *rapid.T) catalog.Body {
	switch rapid.IntRange(0, 9).Draw(t, "command") {
	case 0:
		return &catalog.Deregister{Node: drawNode.Draw(t, "node"), NodeID: drawID.Draw(t, "id")}
	case 1:
		return &catalog.Deregister{Node: drawNode.Draw(t, "node"), ServiceID: drawSID.Draw(t, "sid")}
	case 2:
		return &catalog.Deregister{Node: drawNode.Draw(t, "node"), CheckID: drawCID.Draw(t, "cid")}
	case 3:
		return &catalog.MarkSynced{NodeID: rapid.SampledFrom([]string{idA, idB}).Draw(t, "id"), History: rapid.SampledFrom([]string{history1, history2}).Draw(t, "history")}
	case 4:
		return &catalog.Forget{Node: drawNode.Draw(t, "node")}
	case 5:
		return &catalog.SetAutopilot{Config: catalog.Autopilot{MinQuorum: rapid.IntRange(0, 2).Draw(t, "quorum")}}
	}
	return drawRegister(t)
}

// query is one result with its index and what it watches.
type query struct {
	index  uint64
	result any
	ws     memdb.WatchSet
}

func (q query) fired() bool {
	for ch := range q.ws {
		select {
		case <-ch:
			return true
		default:
		}
	}
	return false
}

// queries asks everything. exact ones have an index that moves only if the
// result changed; the others may move without (see Read).
func queries(s *state.Store) (exact, others map[string]query) {
	r := s.Read()
	exact, others = map[string]query{}, map[string]query{}
	put := func(m map[string]query, name string, f func(catalog.Watch) (uint64, any)) {
		ws := memdb.NewWatchSet()
		i, v := f(ws)
		m[name] = query{i, v, ws}
	}
	put(exact, "nodes", func(ws catalog.Watch) (uint64, any) { i, v := r.Nodes(ws); return i, shown(v) })
	put(exact, "autopilot", func(ws catalog.Watch) (uint64, any) { i, v := r.Autopilot(ws); return i, v })
	put(others, "services", func(ws catalog.Watch) (uint64, any) { i, v := r.Services(ws); return i, v })
	for _, status := range []string{catalog.Passing, catalog.Warning, catalog.Critical, catalog.AnyState} {
		put(exact, "state "+status, func(ws catalog.Watch) (uint64, any) { i, v := r.ChecksInState(ws, status); return i, v })
	}
	for _, name := range []string{"web", "db", "none"} {
		kind := exact
		if _, v := r.ServiceInstances(nil, name); len(v) == 0 {
			kind = others
		}
		put(kind, "instances "+name, func(ws catalog.Watch) (uint64, any) {
			i, v := r.ServiceInstances(ws, name)
			for n := range v {
				v[n].Node = shown([]*catalog.Node{v[n].Node})[0]
			}
			return i, v
		})
		put(others, "nodes of "+name, func(ws catalog.Watch) (uint64, any) {
			i, v := r.ServiceNodes(ws, name)
			for n := range v {
				v[n].Node = shown([]*catalog.Node{v[n].Node})[0]
			}
			return i, v
		})
		put(others, "checks of "+name, func(ws catalog.Watch) (uint64, any) { i, v := r.ServiceChecks(ws, name); return i, v })
	}
	for _, name := range []string{"a", "b", "c"} {
		kind := exact
		if _, n := r.Node(nil, name); n == nil {
			kind = others
		}
		put(kind, "node "+name, func(ws catalog.Watch) (uint64, any) {
			i, v := r.Node(ws, name)
			if v == nil {
				return i, nil
			}
			return i, shown([]*catalog.Node{v})
		})
		put(kind, "checks on "+name, func(ws catalog.Watch) (uint64, any) { i, v := r.NodeChecks(ws, name); return i, v })
		put(others, "services on "+name, func(ws catalog.Watch) (uint64, any) { i, v := r.NodeServices(ws, name); return i, v })
	}
	return exact, others
}

// shown leaves out the marks, which clients don't see.
func shown(nodes []*catalog.Node) (out []*catalog.Node) {
	for _, n := range nodes {
		c := *n
		c.Synced, c.Agentless = "", false
		out = append(out, &c)
	}
	return out
}

func TestStore_AgreesWithANaiveModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l, m := newLog(t), newModel()
		l.must(&catalog.BeginHistory{ID: history1, Base: 1000})
		m.history = history1
		for range rapid.IntRange(1, 30).Draw(rt, "commands") {
			body := drawBody(rt)
			exact, others := queries(l.store)
			allowed := l.apply(body) == nil
			if want := m.apply(body); allowed != want {
				rt.Fatalf("%T: allowed %v, want %v", body, allowed, want)
			}
			compareWithModel(rt, l.store.Read(), m)
			compareIndexes(rt, l, exact, others)
		}
		checkSnapshot(rt, l)
	})
}

func compareWithModel(t *rapid.T, r *state.Read, m *model) {
	t.Helper()
	ignore := []cmp.Option{cmpopts.EquateEmpty(),
		cmpopts.IgnoreFields(catalog.Node{}, "CreateIndex", "ModifyIndex"),
		// The spelling of the node's name is its registration's of then.
		cmpopts.IgnoreFields(catalog.Service{}, "CreateIndex", "ModifyIndex", "Node"),
		cmpopts.IgnoreFields(catalog.Check{}, "CreateIndex", "ModifyIndex", "Node")}
	_, nodes := r.Nodes(nil)
	if diff := cmp.Diff(values(m.nodes), nodes, ignore...); diff != "" {
		t.Fatalf("nodes (-want +got):\n%s", diff)
	}
	var services []*catalog.Service
	for _, n := range nodes {
		_, s := r.NodeServices(nil, n.Node)
		services = append(services, s...)
	}
	if diff := cmp.Diff(values(m.services), services, ignore...); diff != "" {
		t.Fatalf("services (-want +got):\n%s", diff)
	}
	_, checks := r.ChecksInState(nil, catalog.AnyState)
	if diff := cmp.Diff(values(m.checks), checks, ignore...); diff != "" {
		t.Fatalf("checks (-want +got):\n%s", diff)
	}
	for _, name := range []string{"web", "db"} {
		if diff := cmp.Diff(m.instances(name), storeInstances(r, name)); diff != "" {
			t.Fatalf("instances of %s (-want +got):\n%s", name, diff)
		}
	}
}

// compareIndexes: a result that changed has this command's index and its
// watch was closed; no index goes back; exact ones stay when nothing changed.
func compareIndexes(t *rapid.T, l *log, exact, others map[string]query) {
	t.Helper()
	exactNow, othersNow := queries(l.store)
	all := maps.Clone(exactNow)
	maps.Copy(all, othersNow)
	abs := 1000 + l.index
	check := func(name string, before query, strict bool) {
		now := all[name]
		changed := !cmp.Equal(before.result, now.result)
		switch {
		case now.index < before.index:
			t.Fatalf("%s: index went back from %d to %d", name, before.index, now.index)
		case changed && now.index != abs:
			t.Fatalf("%s: changed at %d, index %d: %s", name, abs, now.index, cmp.Diff(before.result, now.result))
		case changed && !before.fired():
			t.Fatalf("%s: changed, and its watch was not closed", name)
		case !changed && strict && now.index != before.index:
			t.Fatalf("%s: did not change, and its index moved from %d to %d", name, before.index, now.index)
		}
	}
	for name, q := range exact {
		_, still := exactNow[name] // what went away has the index of all that did
		check(name, q, still)
	}
	for name, q := range others {
		check(name, q, false)
	}
}

// checkSnapshot: Apply(log) equals Restore(Snapshot(log)), now and after
// whatever comes next.
func checkSnapshot(t *rapid.T, l *log) {
	t.Helper()
	snap := l.snapshot()
	restored := state.New()
	if err := restored.Restore(bytes.NewReader(snap)); err != nil {
		t.Fatalf("restore: %v", err)
	}
	other := &log{t: l.t, store: restored, index: l.index, now: l.now}
	if !bytes.Equal(snap, other.snapshot()) {
		t.Fatal("a restored store gives another snapshot")
	}
	body := drawBody(t)
	if a, b := l.apply(body), other.apply(body); (a == nil) != (b == nil) {
		t.Fatalf("after a restore: got %v, want %v", b, a)
	}
	if !bytes.Equal(l.snapshot(), other.snapshot()) {
		t.Fatal("after a restore the same command gives another state")
	}
}
