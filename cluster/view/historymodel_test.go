package view

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"meibo/cluster/catalog"
)

// account is what one history, or all earlier ones, said, as flat as it can be
// written down: nodes by key, services and checks by node key and ID.
type account struct {
	nodes    map[string]*catalog.Node
	services map[[2]string]*catalog.Service
	checks   map[[2]string]*catalog.Check
}

func newAccount() account {
	return account{map[string]*catalog.Node{}, map[[2]string]*catalog.Service{}, map[[2]string]*catalog.Check{}}
}

func (a account) clone() account {
	return account{maps.Clone(a.nodes), maps.Clone(a.services), maps.Clone(a.checks)}
}

// over adds what lower says of what a doesn't say.
func (a account) over(lower account) account {
	out := lower.clone()
	maps.Copy(out.nodes, a.nodes)
	maps.Copy(out.services, a.services)
	maps.Copy(out.checks, a.checks)
	return out
}

// drop takes out what f says of the node, service and check by key.
func (a account) drop(f func(node, serviceID, checkID string) bool) {
	maps.DeleteFunc(a.nodes, func(k string, _ *catalog.Node) bool { return f(k, "", "") })
	maps.DeleteFunc(a.services, func(k [2]string, s *catalog.Service) bool { return f(k[0], s.ID, "") })
	maps.DeleteFunc(a.checks, func(k [2]string, c *catalog.Check) bool { return f(k[0], c.ServiceID, c.CheckID) })
}

func (a account) records() map[string]Record {
	out := make(map[string]Record)
	for key, n := range a.nodes {
		rec := Record{Node: n}
		for k, s := range a.services {
			if k[0] == key {
				rec.Services = append(rec.Services, s)
			}
		}
		for k, c := range a.checks {
			if k[0] == key {
				rec.Checks = append(rec.Checks, c)
			}
		}
		out[key] = rec
	}
	return out
}

// historyModel is a server's truth, and what a host should make of what it is told.
type historyModel struct {
	model // own, life; catalog is worked out
	truth map[string]Record

	history          catalog.History
	index            uint64
	whole            bool
	cur, rem         account
	names, complete  set
	missed           set
	earlier, settled bool
	living           []string
	merging          bool
}

func (m *historyModel) isHere(key string) bool { return m.whole || m.complete.has(key) }

// namesOf are the service keys that nodes have.
func namesOf(nodes map[string]Record) set {
	names := make(set)
	for _, rec := range nodes {
		for _, s := range rec.Services {
			names.add(nameKey(s.Service))
		}
	}
	return names
}

// tellNode puts a node into an update and into the account, with those of its
// services whose contents are told.
func (m *historyModel) tellNode(u *catalog.Update, a account, key string, keys []string) {
	rec := m.truth[key]
	ns := catalog.NodeState{Node: rec.Node}
	a.nodes[key] = rec.Node
	for k := range a.checks {
		if k[0] == key && a.checks[k].ServiceID == "" {
			delete(a.checks, k)
		}
	}
	for _, c := range rec.Checks {
		if c.ServiceID == "" {
			ns.Checks = append(ns.Checks, c)
			a.checks[[2]string{key, c.CheckID}] = c
		}
	}
	u.Nodes = append(u.Nodes, ns)
	for _, name := range keys {
		m.tellPart(u, a, key, name)
	}
}

func (m *historyModel) tellPart(u *catalog.Update, a account, key, name string) {
	a.drop(func(node, serviceID, checkID string) bool {
		return node == key && serviceID != "" && nameKey(serviceID) == name
	})
	rec := m.truth[key]
	p := catalog.Part{Node: rec.Node.Node, Service: name}
	for _, s := range rec.Services {
		if nameKey(s.Service) != name {
			continue
		}
		p.Services = append(p.Services, s)
		a.services[[2]string{key, s.ID}] = s
		for _, c := range rec.Checks {
			if c.ServiceID == s.ID {
				p.Checks = append(p.Checks, c)
				a.checks[[2]string{key, c.CheckID}] = c
			}
		}
	}
	u.Parts = append(u.Parts, p)
}

var modelKeys = []string{"web", "db", "mail", "consul"}

func (m *historyModel) keysHere() []string {
	return slices.DeleteFunc(slices.Clone(modelKeys), func(key string) bool { return !m.isHere(key) })
}

// became makes cur what the present history says, in the place of what it said
// before.
func (m *historyModel) became(cur account) {
	was := m.cur
	m.cur = cur
	m.rem.drop(func(node, serviceID, checkID string) bool {
		if _, had := was.nodes[node]; had && cur.nodes[node] == nil {
			return true
		}
		lost := func(id string) bool {
			k := [2]string{node, id}
			return id != "" && was.services[k] != nil && cur.services[k] == nil
		}
		k := [2]string{node, checkID}
		return lost(serviceID) || checkID != "" && was.checks[k] != nil && cur.checks[k] == nil
	})
}

// tidy drops what must not be remembered any more, and works out what shows.
func (m *historyModel) tidy() {
	m.rem.drop(func(node, _, _ string) bool {
		cur := m.cur.nodes[node]
		return cur != nil && cur.Synced == m.history.ID || m.life["id-"+node] == catalog.Left
	})
	m.merging = false
	if !m.settled {
		for _, id := range m.living {
			n := m.cur.nodes[strings.TrimPrefix(id, "id-")]
			m.merging = m.merging || n == nil || n.Synced != m.history.ID
		}
		if !m.merging && len(m.living) > 0 {
			m.settled = true
			clear(m.missed)
		}
	}
	m.catalog = m.cur.over(m.rem).records()
}

// standing is what State should say of a service: what is known of it, its
// contents or older ones.
func (m *historyModel) standing(name string) string {
	key := nameKey(name)
	contents := m.service(name)
	switch {
	case m.isHere(key) && contents == "no" && m.missed.has(key):
		return "not yet, before: no"
	case m.isHere(key) && contents != "no":
		return contents
	case !m.isHere(key) && (m.names.has(key) || m.missed.has(key)):
		return "not yet, before: " + contents
	case contents == "no" && m.merging && !m.earlier:
		return "not yet, before: no"
	}
	return contents
}

func showStanding(s *State, name string) string {
	out := show(s, name)
	if out == "not yet" {
		out += ", before: "
		if before, ok := s.Older(name); ok {
			return out + showInstances(before)
		}
		return out + "no"
	}
	return out
}

func (m *historyModel) standingOfNode(name string) string {
	if got := m.node(name); got != "no" || !m.merging || m.earlier {
		return got
	}
	return "not yet"
}

// drawTruth changes some nodes of the server's and returns which.
func (m *historyModel) drawTruth(t *rapid.T) (changed, gone []string) {
	for _, name := range modelNodes {
		key := nameKey(name)
		switch rapid.IntRange(0, 3).Draw(t, name) {
		case 0:
			rec := drawRecord(t, name)
			rec.Node.Synced = rapid.SampledFrom([]string{"", m.history.ID}).Draw(t, "synced")
			rec.Checks = slices.DeleteFunc(rec.Checks, func(c *catalog.Check) bool {
				return c.ServiceID != "" && !slices.ContainsFunc(rec.Services, func(s *catalog.Service) bool { return s.ID == c.ServiceID })
			})
			m.truth[key] = rec
			changed = append(changed, key)
		case 1:
			if _, ok := m.truth[key]; ok {
				gone = append(gone, key)
			}
			delete(m.truth, key)
		}
	}
	return changed, gone
}

// change is an update that goes on.
func (m *historyModel) change(t *rapid.T) catalog.Update {
	before := namesOf(m.truth)
	changed, gone := m.drawTruth(t)
	m.index++
	u := catalog.Update{History: m.history, Index: m.index, Whole: m.whole, GoneNodes: gone}
	cur := m.cur.clone()
	cur.drop(func(node, _, _ string) bool { return slices.Contains(gone, node) })
	for _, key := range changed {
		m.tellNode(&u, cur, key, m.keysHere())
	}
	m.names = namesOf(m.truth)
	for _, key := range modelKeys {
		switch {
		case m.names.has(key) && !before.has(key):
			u.Names = append(u.Names, key)
		case !m.names.has(key) && before.has(key):
			u.GoneNames = append(u.GoneNames, key)
			cur.drop(func(_, serviceID, _ string) bool { return nameKey(serviceID) == key && serviceID != "" })
		}
	}
	m.became(cur)
	return u
}

// reset is an update that begins anew, in the same history or in another.
func (m *historyModel) reset(t *rapid.T) catalog.Update {
	old, oldNames := m.cur, m.names
	anew := rapid.Bool().Draw(t, "another history")
	if anew {
		if !m.history.Provisional {
			m.rem = m.cur.over(m.rem)
			for name := range oldNames {
				if !m.isHere(name) && (m.names.has(name) || m.missed.has(name)) {
					m.missed.add(name)
				}
			}
			m.earlier = true
		}
		m.settled = false
		m.history = catalog.History{ID: fmt.Sprint("h", m.index+1), Provisional: rapid.Bool().Draw(t, "provisional")}
		clear(m.truth)
		old = newAccount()
	}
	m.drawTruth(t)
	m.index++
	m.whole = rapid.Bool().Draw(t, "whole")
	m.complete = make(set)
	m.names = namesOf(m.truth)
	u := catalog.Update{History: m.history, Index: m.index, Reset: true, Whole: m.whole, Confirmed: true, Names: sorted(m.names)}
	if !m.whole {
		for _, key := range modelKeys {
			if rapid.Bool().Draw(t, "complete "+key) {
				m.complete.add(key)
				u.Complete = append(u.Complete, key)
			}
		}
	}
	cur := newAccount()
	for key := range m.truth {
		m.tellNode(&u, cur, key, m.keysHere())
	}
	m.keepOlder(cur, old)
	if anew {
		m.cur = newAccount() // nothing of the new history was removed
	}
	m.became(cur)
	return u
}

// keepOlder keeps contents of services that exist and weren't told.
func (m *historyModel) keepOlder(cur, old account) {
	kept := old.clone()
	kept.drop(func(node, serviceID, _ string) bool {
		key := nameKey(serviceID)
		return serviceID == "" || m.isHere(key) || !m.names.has(key) || cur.nodes[node] == nil
	})
	maps.Copy(cur.services, kept.services)
	maps.Copy(cur.checks, kept.checks)
}

// answer is an update that answers a subscription.
func (m *historyModel) answer(name string) catalog.Update {
	u := catalog.Update{History: m.history, Index: m.index, Complete: []string{name}}
	cur := m.cur.clone()
	for key := range m.truth {
		m.tellPart(&u, cur, key, name)
	}
	u.Parts = slices.DeleteFunc(u.Parts, func(p catalog.Part) bool { return len(p.Services) == 0 })
	m.complete.add(name)
	m.became(cur)
	return u
}

func TestModel_HistoriesAndSubscriptions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		agent := &agentDouble{}
		m := &historyModel{
			model: model{life: lives{}}, truth: map[string]Record{}, history: catalog.History{ID: "h1"}, index: 1, whole: true,
			cur: newAccount(), rem: newAccount(), names: make(set), complete: make(set), missed: make(set),
		}
		v, err := New(Config{
			NodeName: "me", NodeID: "id-me", Local: agent, Liveness: m.life, Living: func() iter.Seq[string] { return slices.Values(m.living) },
		})
		if err != nil {
			t.Fatal(err)
		}
		src := newScripted(0)
		v.setSource(src)
		mustTake(t, v, whole(1))
		now := time.Now()
		m.tidy()
		var entries []cached
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) { mustTake(t, v, m.change(t)) },
			"reset": func(t *rapid.T) {
				v.setSource(src) // another stream
				mustTake(t, v, m.reset(t))
			},
			"refused": func(t *rapid.T) {
				u := catalog.Update{History: catalog.History{ID: "other"}, Index: m.index + 1, Reset: true, Names: []string{"web"}}
				if rapid.Bool().Draw(t, "lagging") {
					u.History, u.Index = m.history, m.index-1
				}
				mustTake(t, v, u)
				v.setSource(src)
			},
			"subscribe": func(t *rapid.T) {
				name := rapid.SampledFrom(modelKeys).Draw(t, "name")
				v.Want(name)
				if !m.isHere(name) && (m.names.has(name) || m.missed.has(name)) {
					mustTake(t, v, m.answer(name))
				}
			},
			"idle": func(t *rapid.T) {
				if m.whole {
					return
				}
				for _, name := range modelKeys {
					v.Want(name) // what is subscribed to is noted as such
				}
				for _, d := range []time.Duration{0, idleAfter + time.Minute, probation} {
					now = now.Add(d)
					v.sweep(now)
				}
				clear(m.complete)
			},
			"tombstone": func(t *rapid.T) {
				ts := catalog.Tombstone{Node: nameKey(rapid.SampledFrom(modelNodes).Draw(t, "node")),
					ServiceID: rapid.SampledFrom([]string{"", "web", "db"}).Draw(t, "service")}
				m.index++
				mustTake(t, v, catalog.Update{History: m.history, Index: m.index, Tombstones: []catalog.Tombstone{ts}})
				m.rem.drop(func(node, serviceID, _ string) bool {
					return node == ts.Node && (ts.ServiceID == "" || ts.ServiceID == serviceID)
				})
			},
			"agent": func(t *rapid.T) {
				m.own = drawRecord(t, "me")
				m.own.Checks = slices.DeleteFunc(m.own.Checks, func(c *catalog.Check) bool { return c.CheckID == catalog.SerfHealth })
				agent.set(m.own)
				v.OnLocalChange()
			},
			"liveness": func(t *rapid.T) {
				id := "id-" + nameKey(rapid.SampledFrom(modelNodes).Draw(t, "node"))
				m.life[id] = rapid.SampledFrom([]catalog.Life{catalog.NeverSeen, catalog.Alive, catalog.Failed, catalog.Left}).Draw(t, "life")
				m.living = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"id-n1", "id-n2"}), 0, 2, rapid.ID).Draw(t, "living")
				v.OnLifeChange(id)
			},
			"": func(t *rapid.T) {
				m.tidy()
				s := v.Load()
				for _, name := range modelServices {
					if got, want := showStanding(s, name), m.standing(name); got != want {
						t.Fatalf("service %s:\n%s\nwant:\n%s", name, got, want)
					}
				}
				for _, name := range modelNodes {
					if got, want := showNode(s, name), m.standingOfNode(name); got != want {
						t.Fatalf("node %s: %s, want %s", name, got, want)
					}
				}
				for _, e := range entries {
					if now := e.now(s); e.counted() && now != e.content {
						t.Fatalf("%s is served late: %s, want %s", e.what, e.content, now)
					}
				}
				entries = cacheAll(s)
			},
		})
	})
}
