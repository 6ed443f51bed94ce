package view

import (
	"context"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meibo/cluster/catalog"
)

// base is a Reset that tells names and nodes, and no contents.
func base(index uint64, names string, nodes ...Record) catalog.Update {
	u := catalog.Update{Index: index, Reset: true, Confirmed: true, Names: strings.Fields(names)}
	for _, rec := range nodes {
		ns := catalog.NodeState{Node: rec.Node}
		for _, s := range rec.Services {
			if s.Address != "" {
				ns.Addresses = append(ns.Addresses, catalog.AddressOf{Address: s.Address, Service: s.Service, ServiceID: s.ID})
			}
		}
		u.Nodes = append(u.Nodes, ns)
	}
	u.History.ID = "h1"
	return u
}

// contents answers a subscription: all instances of a name, one on each node.
func contents(index uint64, name string, nodes ...string) catalog.Update {
	u := catalog.Update{Index: index, Complete: []string{name}}
	for _, n := range nodes {
		u.Parts = append(u.Parts, part1(name, n))
	}
	u.History.ID = "h1"
	return u
}

func part1(name, node string) catalog.Part {
	return catalog.Part{Node: node, Service: name, Services: []*catalog.Service{service(name, 80)}}
}

// filled adds contents to an update.
func filled(u, contents catalog.Update) catalog.Update {
	u.Complete = append(u.Complete, contents.Complete...)
	u.Parts = append(u.Parts, contents.Parts...)
	return u
}

// three nodes.
func three() []Record {
	return []Record{node("n1", "10.0.0.1"), node("n2", "10.0.0.2"), node("n3", "10.0.0.3")}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestRule8_TheBaseSetTellsWhatExistsFromWhatDoesNot(t *testing.T) {
	v := mustNew(t, Config{})
	mustTake(t, v, base(1, "web db", three()...))
	s := v.Load()
	wantPlaces(t, v, "WEB", "not yet")
	wantPlaces(t, v, "mail", "no")
	if got := showNode(s, "N1"); !strings.HasPrefix(got, "n1 ") {
		t.Errorf("node: %s", got)
	}
	if _, c, _ := s.Service("web"); c == nil {
		t.Error("a name in the base set has no counter")
	}
	if _, ok := s.Older("web"); ok {
		t.Error("older contents out of nothing")
	}

	got := moved(v, func() { mustTake(t, v, contents(2, "web", "n1", "n3")) }, []string{"web", "db"}, []string{"n1"})
	if want := "any service web"; strings.Join(got, " ") != want {
		t.Errorf("contents moved %v, want %s", got, want)
	}
	wantPlaces(t, v, "web", "n1/web n3/web")
	got = moved(v, func() {
		mustTake(t, v, inHistory("h1", catalog.Update{Index: 3, Names: []string{"mail"}, GoneNames: []string{"db"}}))
	}, []string{"web", "db"}, nil)
	if want := "any names service db"; strings.Join(got, " ") != want {
		t.Errorf("names moved %v, want %s", got, want)
	}
	wantPlaces(t, v, "db", "no")
	wantPlaces(t, v, "mail", "not yet")
	mustTake(t, v, inHistory("h1", catalog.Update{Index: 4, GoneNodes: []string{"n3"}}))
	wantPlaces(t, v, "web", "n1/web")
}

func TestRule8_AWholeCatalogKnowsAll(t *testing.T) {
	v := mustNew(t, Config{})
	mustTake(t, v, confirmed(whole(1, node("n1", "10.0.0.1", service("web", 80)))))
	if _, _, known := v.Load().Service("web"); known != catalog.Present {
		t.Error("not known")
	}
	if !isClosed(v.Want("web")) || !isClosed(v.Want("db")) {
		t.Error("one has to wait")
	}
}

func TestRule8_AddressesOfServicesAreInTheBaseSet(t *testing.T) {
	vip := service("web", 80)
	vip.Address = "192.0.2.1"
	v := mustNew(t, Config{})
	mustTake(t, v, base(1, "web", node("n1", "10.0.0.1", vip)))
	check := func(addr, want string) {
		t.Helper()
		got := ""
		if o, ok := v.Load().AddressOwner(netip.MustParseAddr(addr)); ok {
			got = o.Node.Node
			if o.Service != nil {
				got += "/" + o.Service.Service
			}
		}
		if got != want {
			t.Errorf("%s is of %q, want %q", addr, got, want)
		}
	}
	check("192.0.2.1", "n1/web")
	check("10.0.0.1", "n1")
	u := contents(2, "web", "n1")
	u.Parts[0].Services = []*catalog.Service{vip}
	if got := moved(v, func() { mustTake(t, v, u) }, nil, nil); strings.Join(got, " ") != "any" {
		t.Errorf("contents that say the same of addresses moved %v", got)
	}
	check("192.0.2.1", "n1/web")
	mustTake(t, v, inHistory("h1", catalog.Update{Index: 3, Nodes: []catalog.NodeState{{Node: node("n1", "10.0.0.1").Node}},
		Parts: []catalog.Part{{Node: "n1", Service: "web"}}}))
	check("192.0.2.1", "")
}

func TestWant_SubscribesOnceAndWakesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := mustNew(t, Config{})
		src := newScripted(0)
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		done := make(chan error, 1)
		early := v.Want("Web")
		go func() { done <- v.Follow(ctx, src) }()
		src.updates <- base(1, "web db", three()...)
		synctest.Wait()
		if got := src.take(); got != "+web" {
			t.Errorf("asked %q for what was wanted before the base set, want +web", got)
		}
		ch := v.Want("WEB")
		if isClosed(ch) || isClosed(early) || ch != early {
			t.Error("nothing to wait for, or not the same")
		}
		again := v.Want("db")
		v.Want("db")
		if got := src.take(); got != "+db" {
			t.Errorf("asked %q, want +db", got)
		}
		if !isClosed(v.Want("mail")) {
			t.Error("one has to wait for a name that doesn't exist")
		}
		src.updates <- contents(2, "web", "n1")
		src.updates <- inHistory("h1", catalog.Update{Index: 3, GoneNames: []string{"db"}})
		synctest.Wait()
		if !isClosed(early) || !isClosed(again) {
			t.Error("not woken")
		}
		if got := src.take(); got != "" {
			t.Errorf("asked %q", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWant_IsBounded(t *testing.T) {
	v := mustNew(t, Config{})
	for i := range maxWaiting + 10 {
		v.Want(strings.Repeat("x", i%50) + string(rune('a'+i%26)) + time.Duration(i).String())
	}
	if len(v.waiting) > maxWaiting {
		t.Errorf("%d names are waited for", len(v.waiting))
	}
}

func TestRule10_AnIdleSubscriptionEndsAndItsContentsStayAsOlderOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := mustNew(t, Config{})
		src := newScripted(0)
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		done := make(chan error, 2)
		go func() { done <- v.Follow(ctx, src) }()
		go func() { done <- v.Run(ctx) }()
		beats := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) {
				src.updates <- inHistory("h1", catalog.Update{Confirmed: true})
			}
			synctest.Wait()
		}
		src.updates <- base(1, "web db", three()...)
		synctest.Wait()
		v.Want("web")
		v.Want("db")
		synctest.Wait()
		src.take()
		src.updates <- filled(contents(2, "web", "n1"), contents(2, "db", "n2"))
		synctest.Wait()
		_, web, _ := v.Load().Service("web")
		_, db, _ := v.Load().Service("db")
		start := web.Load()
		beats(idleAfter - time.Minute)
		if web.Load() != start || src.take() != "" {
			t.Fatal("put to the test too early")
		}
		beats(time.Minute + 2*sweepEvery)
		if web.Load() != start+1 || src.take() != "" {
			t.Fatalf("after an hour the counter moved by %d, want 1", web.Load()-start)
		}
		// What was made from db is asked for again; nobody needs web.
		v.Load().Service("db")
		kept := db.Load()
		beats(probation + 2*sweepEvery)
		if got := src.take(); got != "-web" {
			t.Errorf("asked %q, want -web", got)
		}
		if web.Load() != start+2 || db.Load() != kept {
			t.Errorf("counters moved by %d and %d", web.Load()-start, db.Load()-kept)
		}
		wantPlaces(t, v, "web", "not yet")
		wantPlaces(t, v, "db", "n2/db")
		if got := olderPlaces(v.Load(), "web"); got != "n1/web" {
			t.Errorf("older: %s", got)
		}
		if from, at := v.Load().Provenance("web"); from != "catalog" || at.IsZero() {
			t.Errorf("provenance %s %s", from, at)
		}
		v.Want("web")
		if got := src.take(); got != "+web" {
			t.Errorf("asked %q, want +web", got)
		}
		src.updates <- contents(3, "web", "n3")
		synctest.Wait()
		wantPlaces(t, v, "web", "n3/web")
		cancel()
		<-done
		<-done
	})
}

func TestRule10_ContentsThatComeAfterTheEndDoNotCount(t *testing.T) {
	for name, late := range map[string]catalog.Update{
		"an answer": contents(3, "web", "n2"),
		"a Reset":   filled(base(3, "web", three()...), contents(3, "web", "n2")),
	} {
		t.Run(name, func(t *testing.T) {
			v := mustNew(t, Config{})
			src := newScripted(0)
			v.setSource(src)
			mustTake(t, v, base(1, "web", three()...))
			v.Want("web")
			mustTake(t, v, contents(2, "web", "n1"))
			now := time.Now()
			for _, d := range []time.Duration{0, idleAfter + time.Minute, probation} {
				now = now.Add(d)
				v.sweep(now)
			}
			if got := src.take(); got != "+web -web" {
				t.Fatalf("asked %q", got)
			}
			mustTake(t, v, late)
			wantPlaces(t, v, "web", "not yet")
			v.Want("web")
			mustTake(t, v, contents(4, "web", "n3"))
			wantPlaces(t, v, "web", "n3/web")
		})
	}
}

func TestRule10_WithoutASourceNothingEnds(t *testing.T) {
	v := mustNew(t, Config{})
	mustTake(t, v, filled(base(1, "web", three()...), contents(1, "web", "n1")))
	v.resubscribe()
	for d := range time.Duration(5) {
		v.sweep(time.Now().Add(d * idleAfter))
	}
	wantPlaces(t, v, "web", "n1/web")
}

func TestRule10_AWholeCatalogEndsNothing(t *testing.T) {
	v := mustNew(t, Config{})
	mustTake(t, v, confirmed(whole(1, node("n1", "10.0.0.1", service("web", 80)))))
	before := v.Load()
	v.sweep(time.Now().Add(2 * idleAfter))
	v.sweep(time.Now().Add(3 * idleAfter))
	if v.Load() != before {
		t.Error("something changed")
	}
}

func TestRule11_ContentsThatAResetLeavesOutAreOlderOnes(t *testing.T) {
	v := mustNew(t, Config{})
	all := filled(contents(1, "web", "n1", "n2"), contents(1, "db", "n1"))
	mustTake(t, v, filled(base(1, "web db", three()...), all))
	_, web, _ := v.Load().Service("web")
	start := web.Load()
	mustTake(t, v, filled(base(2, "web db", three()[0]), contents(2, "db", "n1")))
	wantPlaces(t, v, "db", "n1/db")
	wantPlaces(t, v, "web", "not yet")
	if got := olderPlaces(v.Load(), "web"); got != "n1/web" {
		t.Errorf("older: %q, want that on the node that is left", got)
	}
	if web.Load() != start+1 {
		t.Errorf("counter moved by %d", web.Load()-start)
	}
	mustTake(t, v, contents(3, "web"), inHistory("h1", catalog.Update{GoneNames: []string{"web"}, Index: 3}))
	wantPlaces(t, v, "web", "no")
}

func TestRule11_ALostSourceLeavesEverythingAndTheNextOneIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := mustNew(t, Config{})
		first, second := newScripted(0), newScripted(0)
		done := make(chan error, 1)
		go func() { done <- v.Follow(t.Context(), first) }()
		first.updates <- base(1, "web db", three()...)
		synctest.Wait()
		v.Want("web")
		v.Want("db")
		first.updates <- contents(2, "web", "n1")
		synctest.Wait()
		close(first.updates)
		if err := <-done; err == nil {
			t.Error("no error")
		}
		wantPlaces(t, v, "web", "n1/web")
		h, index, isWhole, names := v.Resume()
		if h.ID != "h1" || index != 2 || isWhole || strings.Join(names, " ") != "web" {
			t.Errorf("resume from %s %d %v %v", h.ID, index, isWhole, names)
		}
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		go func() { done <- v.Follow(ctx, second) }()
		synctest.Wait()
		if got := second.take(); got != "+db" {
			t.Errorf("asked %q, want +db: web goes on by itself", got)
		}
		before := v.Load()
		second.updates <- inHistory("h1", catalog.Update{Index: 2, Confirmed: true})
		synctest.Wait()
		if v.Load() != before {
			t.Error("going on changed something")
		}
		second.updates <- base(3, "web db", three()...) // it couldn't go on, and forgot
		synctest.Wait()
		if got := second.take(); got != "+db +web" {
			t.Errorf("asked %q, want +db +web", got)
		}
		cancel()
		<-done
	})
}

func TestSwitch_BetweenWholeAndPartial(t *testing.T) {
	v := mustNew(t, Config{})
	src := newScripted(0)
	v.setSource(src)
	mustTake(t, v, confirmed(whole(1, node("n1", "10.0.0.1", service("web", 80)))))
	mustTake(t, v, base(2, "web", node("n1", "10.0.0.1")))
	wantPlaces(t, v, "web", "not yet")
	if got := olderPlaces(v.Load(), "web"); got != "n1/web" {
		t.Errorf("older: %s", got)
	}
	v.Want("web")
	if got := src.take(); got != "+web" {
		t.Errorf("asked %q", got)
	}
	mustTake(t, v, confirmed(whole(3, node("n1", "10.0.0.1", service("web", 80)))))
	wantPlaces(t, v, "web", "n1/web")
	if len(v.subs) != 0 {
		t.Error("a whole catalog is subscribed to by name")
	}
}

func TestRule16_InAPartialCatalogSubscribedNamesDoNotShrink(t *testing.T) {
	v := mustNew(t, Config{})
	mustTake(t, v, filled(base(1, "web db mail", three()...), contents(1, "web", "n1", "n2")))
	h2 := func(u catalog.Update) { mustTake(t, v, confirmed(inHistory("h2", u))) }
	// The servers come back empty; n1 is the first to tell what it has.
	h2(filled(base(10, "", node("n1", "10.0.0.1")), contents(10, "web")))
	wantPlaces(t, v, "web", "n1/web n2/web")
	wantPlaces(t, v, "mail", "not yet")
	wantPlaces(t, v, "never", "no")
	h2(inHistory("h2", catalog.Update{Index: 11, Names: []string{"web"}, Nodes: []catalog.NodeState{{Node: synced("h2", node("n1", "10.0.0.1")).Node}},
		Parts: []catalog.Part{part1("web", "n1")}}))
	wantPlaces(t, v, "web", "n1/web n2/web")
	h2(inHistory("h2", catalog.Update{Index: 12, Nodes: []catalog.NodeState{{Node: synced("h2", node("n2", "10.0.0.2")).Node}}}))
	wantPlaces(t, v, "web", "n1/web")
}

func TestRule18_NamesThatNobodyHasContentsOfGoOnceAllAreSynced(t *testing.T) {
	v := mustNew(t, Config{Living: func() iter.Seq[string] { return slices.Values([]string{"id-n1"}) }})
	mustTake(t, v, base(1, "web mail", three()...))
	mustTake(t, v, inHistory("h2", base(10, "web", three()...)))
	wantPlaces(t, v, "mail", "not yet")
	mustTake(t, v, inHistory("h2", contents(11, "mail")))
	wantPlaces(t, v, "mail", "not yet")
	mustTake(t, v, inHistory("h2", catalog.Update{Index: 12, Nodes: []catalog.NodeState{{Node: synced("h2", node("n1", "10.0.0.1")).Node}}}))
	wantPlaces(t, v, "mail", "no")
}

func TestRule9_AnOwnServiceShowsBeforeAndBesideOthers(t *testing.T) {
	agent := &agentDouble{}
	agent.set(node("me", "10.0.0.9", service("web", 80)))
	v := mustNew(t, Config{NodeName: "me", NodeID: "id-me", Local: agent})
	mustTake(t, v, base(1, "db", three()...))
	wantPlaces(t, v, "web", "me/web")
	if from, _ := v.Load().Provenance("web"); from != "agent" {
		t.Errorf("provenance %s", from)
	}
	mustTake(t, v, inHistory("h1", catalog.Update{Index: 2, Names: []string{"web"}}))
	wantPlaces(t, v, "web", "not yet")
	if got := olderPlaces(v.Load(), "web"); got != "me/web" {
		t.Errorf("older: %s", got)
	}
	mustTake(t, v, contents(3, "web", "n1"))
	wantPlaces(t, v, "web", "me/web n1/web")
	agent.set(node("me", "10.0.0.9"))
	v.OnLocalChange()
	wantPlaces(t, v, "web", "n1/web")
}

func TestLookups_DoNotAllocate(t *testing.T) {
	v := mustNew(t, Config{})
	mustTake(t, v, filled(base(1, "web db", three()...), contents(1, "web", "n1")))
	s := v.Load()
	if n := testing.AllocsPerRun(100, func() {
		s.Service("web")
		s.Service("db")
		s.Node("n1")
		s.Older("db")
		v.Load().Fresh()
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// When a name was asked for is remembered while there are contents of it, here or of
// before, and no longer.
func TestView_WhenANameWasAskedForIsForgottenWithTheName(t *testing.T) {
	for _, whole := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			v := mustNew(t, Config{})
			ctx, cancel := contextOf(t)
			var wg sync.WaitGroup
			src := newScripted(16)
			wg.Go(func() { v.Run(ctx) })
			wg.Go(func() { v.Follow(ctx, src) })
			now := filled(base(1, "web db", three()...), contents(1, "web", "n1"))
			now.Whole = whole
			src.updates <- now
			synctest.Wait()
			v.Load().Service("web")
			asked := func() map[string]time.Time {
				v.Export()
				v.mu.Lock()
				defer v.mu.Unlock()
				return v.asked
			}
			time.Sleep(2 * idleAfter) // which ends a subscription
			if _, ok := asked()["web"]; !ok {
				t.Errorf("whole %v: not remembered while the name has contents", whole)
			}
			gone := update(2)
			gone.Whole, gone.GoneNames, gone.Confirmed = whole, []string{"web"}, true
			src.updates <- gone
			time.Sleep(2 * sweepEvery)
			if n := len(asked()); n > 0 {
				t.Errorf("whole %v: %d names are remembered, want none", whole, n)
			}
			if n := len(v.ended); n > 0 {
				t.Errorf("whole %v: %d subscriptions that ended are remembered, want none", whole, n)
			}
			cancel()
			wg.Wait()
		})
	}
}
