package consul_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meibo/cluster/catalog"
	"meibo/resolver"
	"meibo/resolver/consul"
	"meibo/resolver/wire"
)

// instance is one on a host of that address, with the checks "ID=status".
func instance(addr string, checks ...string) catalog.Instance {
	node := &catalog.Node{Node: "n" + strings.ReplaceAll(addr, ".", "-"), Address: addr}
	in := catalog.Instance{Node: node, Service: &catalog.Service{Node: node.Node, ID: "web", Service: "web"}}
	for _, c := range checks {
		id, status, _ := strings.Cut(c, "=")
		in.Checks = append(in.Checks, &catalog.Check{CheckID: id, Status: status})
	}
	return in
}

// addresses are those an A answer holds, sorted.
func addresses(a *wire.Answer) string {
	var out []string
	for _, rr := range a.RRs() {
		if rr.Section == wire.Answers && rr.Type == wire.TypeA {
			out = append(out, fmt.Sprintf("%d.%d.%d.%d", rr.Data[0], rr.Data[1], rr.Data[2], rr.Data[3]))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// withOlder makes the contents of web unknown, and older ones those.
func withOlder(w *world, older ...catalog.Instance) {
	w.notYet["web"] = true
	if older != nil {
		w.older["web"] = older
	}
	w.publish()
}

func TestRule22_TheDeathOfHostsAloneLeavesNoServiceEmpty(t *testing.T) {
	const dead, own = "serfHealth=critical", "http=critical"
	for _, tc := range []struct {
		name        string
		instances   []catalog.Instance
		onlyPassing bool
		resort      bool
		want        string
	}{
		{"one lives", []catalog.Instance{instance("10.0.0.1", dead), instance("10.0.0.2", "serfHealth=passing")}, false, false, "10.0.0.2"},
		{"all hosts are dead", []catalog.Instance{instance("10.0.0.1", dead), instance("10.0.0.2", dead)}, false, true, "10.0.0.1 10.0.0.2"},
		{"all dead, one critical of its own", []catalog.Instance{instance("10.0.0.1", dead, own), instance("10.0.0.2", dead)}, false, true, "10.0.0.2"},
		{"one dead, the other critical", []catalog.Instance{instance("10.0.0.1", dead), instance("10.0.0.2", own)}, false, true, "10.0.0.1"},
		{"all critical of their own", []catalog.Instance{instance("10.0.0.1", dead, own), instance("10.0.0.2", own)}, false, false, ""},
		{"a host in maintenance", []catalog.Instance{instance("10.0.0.1", dead, catalog.NodeMaint+"=critical")}, false, false, ""},
		{"all dead, one warns, only passing", []catalog.Instance{instance("10.0.0.1", dead, "http=warning"), instance("10.0.0.2", dead)}, true, true, "10.0.0.2"},
		{"a warning isn't dead", []catalog.Instance{instance("10.0.0.1", dead), instance("10.0.0.2", "http=warning")}, false, false, "10.0.0.2"},
		{"no instances", nil, false, false, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := consul.LastResort(tc.instances, tc.onlyPassing); got != tc.resort {
				t.Errorf("last resort %v, want %v", got, tc.resort)
			}
			w := newWorld(t, plain)
			if err := w.zone.SetConfig(consul.Config{OnlyPassing: tc.onlyPassing}); err != nil {
				t.Fatal(err)
			}
			withOlder(w, append([]catalog.Instance{}, tc.instances...)...)
			r, err := w.zone.Resolve(canceled(t), question(t, "web.service.consul.", wire.TypeA))
			if err != nil {
				t.Fatal(err)
			}
			if got := addresses(r.Answer); got != tc.want {
				t.Errorf("answered %q, want %q", got, tc.want)
			}
			if got := metric(t, w.zone, "meibo_catalog_last_resort_answers_total") > 0; got != tc.resort {
				t.Errorf("counted %v, want %v", got, tc.resort)
			}
		})
	}
}

// canceled is a context that waits for nothing.
func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestRule22_TheTagStillNarrows(t *testing.T) {
	a, b := instance("10.0.0.1", "serfHealth=critical"), instance("10.0.0.2")
	a.Service.Tags = []string{"primary"}
	w := newWorld(t, plain)
	withOlder(w, a, b)
	r, err := w.zone.Resolve(canceled(t), question(t, "primary.web.service.consul.", wire.TypeA))
	if err != nil || r.Answer.Rcode() != wire.RcodeNXDomain {
		t.Errorf("rcode %d, %v: the service is not empty, so its dead primary stays out", r.Answer.Rcode(), err)
	}
}

func TestRule11_OlderContentsAreGivenAfter300ms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, plain)
		withOlder(w, instance("10.0.0.1"))
		q := question(t, "web.service.consul.", wire.TypeA)
		if _, outcome := w.zone.Answer(q); outcome != resolver.Later {
			t.Fatalf("outcome %v, want Later", outcome)
		}
		start := time.Now()
		r, err := w.zone.Resolve(t.Context(), q)
		if waited := time.Since(start); waited != 300*time.Millisecond {
			t.Errorf("answered after %v, want 300ms", waited)
		}
		if err != nil || addresses(r.Answer) != "10.0.0.1" || r.EDE != wire.EDEStale {
			t.Errorf("%q, EDE %d, %v; want 10.0.0.1 marked stale", addresses(r.Answer), r.EDE, err)
		}
		if !r.NoStore {
			t.Error("kept, though the contents are due any moment")
		}
		if w.wanted["web"] == 0 {
			t.Error("nobody subscribed to the name")
		}
	})
}

func TestRule11_WithoutServersOnlyTheFirstWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, plain)
		w.stale.Store(true)
		withOlder(w, instance("10.0.0.1"))
		q := question(t, "web.service.consul.", wire.TypeA)
		ask := func() (time.Duration, cached) {
			start := time.Now()
			r, err := w.zone.Resolve(t.Context(), q)
			if err != nil || addresses(r.Answer) != "10.0.0.1" {
				t.Fatalf("%q, %v", addresses(r.Answer), err)
			}
			return time.Since(start), cached{q, r}
		}
		if waited, _ := ask(); waited != 300*time.Millisecond {
			t.Errorf("the first waited %v, want 300ms", waited)
		}
		waited, c := ask()
		if waited != 0 {
			t.Errorf("the second waited %v, though the first had waited in vain", waited)
		}
		if !c.counts() {
			t.Error("not kept, though nothing better is to be had")
		}
		for _, step := range w.set("web", "10.0.0.2") {
			step()
		}
		w.coming.Add(1)
		if c.counts() {
			t.Error("still counts after the contents came")
		}
	})
}

func TestRule11_WithoutOlderContentsANeighbourIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, plain)
		var asked []string
		knows := false
		zone, err := consul.New(consul.Options{State: w.fake.State, Want: w.fake.Want, Moved: func() {},
			Neighbour: func(_ context.Context, name string) bool {
				asked = append(asked, name)
				if knows {
					withOlder(w, instance("10.0.0.7"))
				}
				return knows
			}})
		if err != nil {
			t.Fatal(err)
		}
		withOlder(w)
		q := question(t, "Web.service.consul.", wire.TypeA)
		r, err := zone.Resolve(t.Context(), q)
		if err != nil || r.Answer.Rcode() != wire.RcodeServFail || r.EDE != wire.EDENoReachable || !r.NoStore {
			t.Errorf("rcode %d, EDE %d, %v; want SERVFAIL, 22", r.Answer.Rcode(), r.EDE, err)
		}
		knows = true
		r, err = zone.Resolve(t.Context(), q)
		if err != nil || addresses(r.Answer) != "10.0.0.7" || r.EDE != wire.EDEStale {
			t.Errorf("%q, EDE %d, %v; want what the neighbour knows, marked stale", addresses(r.Answer), r.EDE, err)
		}
		if !slices.Equal(asked, []string{"web", "web"}) {
			t.Errorf("asked for %q", asked)
		}
	})
}

func TestRule12_OlderContentsAreGivenBeforeTheBaseSet(t *testing.T) {
	w := newWorld(t, plain)
	w.noBase = true
	withOlder(w, instance("10.0.0.1"))
	r, err := w.zone.Resolve(canceled(t), question(t, "web.service.consul.", wire.TypeA))
	if err != nil || addresses(r.Answer) != "10.0.0.1" {
		t.Errorf("%q, %v", addresses(r.Answer), err)
	}
	r, _ = w.zone.Resolve(canceled(t), question(t, "other.service.consul.", wire.TypeA))
	if r.Answer.Rcode() != wire.RcodeServFail || r.EDE != wire.EDENotReady {
		t.Errorf("rcode %d, EDE %d; want SERVFAIL, 14", r.Answer.Rcode(), r.EDE)
	}
}

func TestStale_AnswersSaySo(t *testing.T) {
	w := newWorld(t, plain)
	for _, step := range w.set("web", "10.0.0.1") {
		step()
	}
	for _, tc := range []struct {
		name string
		want uint16
	}{
		{"web.service.consul.", wire.EDEStale}, {"10.0.0.1.node.consul.", wire.EDEStale},
		{"none.service.consul.", wire.EDEStaleNXDomain}, {"consul.", wire.EDEStale},
		{"0a000001.addr.consul.", 0}, {"nothing.consul.", 0},
	} {
		w.stale.Store(true)
		if c := w.lookup(t, question(t, tc.name, wire.TypeA)); c.EDE != tc.want {
			t.Errorf("%s: EDE %d, want %d", tc.name, c.EDE, tc.want)
		}
		w.stale.Store(false)
		if c := w.lookup(t, question(t, tc.name, wire.TypeA)); c.EDE != 0 {
			t.Errorf("%s: EDE %d of a fresh answer", tc.name, c.EDE)
		}
	}
}

func TestMaxStale_IsWhatTheOperatorChose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, plain)
		for _, step := range w.set("web", "10.0.0.1") {
			step()
		}
		w.stale.Store(true)
		names := []*wire.Query{question(t, "web.service.consul.", wire.TypeA), question(t, reverse("10.0.0.1"), wire.TypePTR)}
		zones := []resolver.Zone{w.zone, w.zone.Mounts("\x0210\x07in-addr\x04arpa\x00")[3].Zone}
		for _, tc := range []struct {
			name      string
			maxStale  time.Duration
			answer    consul.StaleAnswer
			confirmed time.Duration // ago; 0: never
			ttl       uint32
			life      time.Duration
			failed    bool
		}{
			{"off", 0, consul.ServFail, 100 * time.Hour, 60, 0, false},
			{"not yet", time.Hour, consul.ServFail, 20 * time.Minute, 60, 40 * time.Minute, false},
			{"short TTL", time.Hour, consul.ShortTTL, time.Hour, 5, 0, false},
			{"failed", time.Hour, consul.ServFail, time.Hour, 0, 0, true},
			{"own word only", time.Hour, consul.ServFail, 0, 60, 0, false},
		} {
			w.confirmed = time.Time{}
			if tc.confirmed > 0 {
				w.confirmed = time.Now().Add(-tc.confirmed)
			}
			err := w.zone.SetConfig(consul.Config{
				ServiceTTL: map[string]time.Duration{"*": time.Minute}, NodeTTL: time.Minute, MaxStale: tc.maxStale, StaleAnswer: tc.answer,
			})
			if err != nil {
				t.Fatal(err)
			}
			for i, q := range names {
				r, _ := zones[i].Answer(q)
				if failed := r.Answer.Rcode() == wire.RcodeServFail; failed != tc.failed {
					t.Errorf("%s: %d failed %v, want %v", tc.name, i, failed, tc.failed)
				}
				if ttl, _ := r.Answer.MinTTL(); ttl != tc.ttl || r.Life != tc.life {
					t.Errorf("%s: %d has TTL %d, life %v; want %d, %v", tc.name, i, ttl, r.Life, tc.ttl, tc.life)
				}
			}
		}
	})
}

func TestRule17_WhatNoServerConfirmsIsAnsweredAndMarked(t *testing.T) {
	w := newWorld(t, plain)
	for _, r := range []string{
		`{"Node":"n1","Address":"10.0.0.1","Service":{"Service":"web","Port":1}}`,
		`{"Node":"n2","Address":"10.0.0.2","Service":{"Service":"web","Port":1}}`,
		`{"Node":"n2","Address":"10.0.0.2","Service":{"Service":"db","Port":1}}`,
		`{"Node":"n1","Address":"10.0.0.1","Service":{"Service":"mail","Port":1}}`,
	} {
		if err := w.Register(r); err != nil {
			t.Fatal(err)
		}
	}
	w.settle()
	w.unconfirmed = map[string]bool{"n2/web": true, "n2/db": true, "n2/": true}
	for name, stale := range map[string]bool{
		"web.service.consul.": true, "db.service.consul.": true, "mail.service.consul.": false, "n2.node.consul.": true,
		"n1.node.consul.": false, "nope.service.consul.": false,
	} {
		r, _ := w.zone.Answer(question(t, name, wire.TypeA))
		if (r.EDE == wire.EDEStale) != stale || stale && (!strings.Contains(r.EDEText, "n2") || r.NoStore || addresses(r.Answer) == "") {
			t.Errorf("%s: EDE %d %q, no store %v, %q; want marked: %v", name, r.EDE, r.EDEText, r.NoStore, addresses(r.Answer), stale)
		}
	}
}

func TestLargeServices_AreLeftToAFlight(t *testing.T) {
	w := newWorld(t, plain)
	for i := range 65 {
		if err := w.Register(fmt.Sprintf(`{"Node":"n%d","Address":"10.0.0.%d","Service":{"Service":"web","Port":1}}`, i, i)); err != nil {
			t.Fatal(err)
		}
		w.settle()
		_, outcome := w.zone.Answer(question(t, "web.service.consul.", wire.TypeSRV))
		if want := i+1 > 64; (outcome == resolver.Later) != want {
			t.Errorf("%d instances: outcome %v", i+1, outcome)
		}
	}
}
