package consul_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/clustertest/interleave"
	"meibo/resolver"
	"meibo/resolver/consul"
	"meibo/resolver/wire"
)

// cached is an answer as a cache holds it.
type cached struct {
	q *wire.Query
	resolver.Result
}

func (c *cached) counts() bool {
	return !c.NoStore && !c.Deps[0].Moved() && !c.Deps[1].Moved()
}

// text writes what an answer says, in an order of its own.
func text(a *wire.Answer) string {
	var lines []string
	for _, rr := range a.RRs() {
		data := fmt.Sprintf("%x", rr.Data)
		if rr.Type == wire.TypeSOA {
			data = "" // its serial is the time
		}
		lines = append(lines, fmt.Sprintf("%s %s %d %s %s", rr.Section, rr.Owner, rr.TTL, wire.TypeString(rr.Type), data))
	}
	slices.Sort(lines)
	return fmt.Sprint(a.Rcode(), "\n", strings.Join(lines, "\n"))
}

func question(t testing.TB, name string, typ wire.Type) *wire.Query {
	n, err := wire.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	return wire.NewQuery(n, typ)
}

// world is a fake catalog, a zone over it, and whole changes of both, each a
// list of steps as whoever publishes makes them.
type world struct {
	*fake
	zone *consul.Zone
}

func newWorld(t testing.TB, wrap func(func() consul.State) func() consul.State) *world {
	w := &world{fake: newFake()}
	zone, err := consul.New(consul.Options{State: wrap(w.State), Want: w.Want, Moved: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	w.zone = zone
	return w
}

func plain(state func() consul.State) func() consul.State { return state }

func bump(c *atomic.Uint64) func() { return func() { c.Add(1) } }

// set gives the service an instance on a node of that address; a service that
// isn't there begins to exist.
func (w *world) set(service, addr string) []func() {
	counter := new(atomic.Uint64)
	return []func(){
		func() {
			w.nodes[addr] = &catalog.Node{Node: "n" + addr, Address: addr}
			if s := w.services[service]; s != nil {
				counter = s.counter
			} else {
				w.services[service] = &fakeService{counter: counter}
			}
			w.services[service].instances = map[string]*catalog.Service{"i": {Node: addr, ID: "i", Service: service}}
			w.publish()
		},
		func() { counter.Add(1) },
		func() { w.names.Add(1); w.addresses.Add(1); w.any.Add(1) },
	}
}

// retire takes the service away.
func (w *world) retire(service string) []func() {
	counter := new(atomic.Uint64)
	return []func(){
		func() {
			if s := w.services[service]; s != nil {
				counter = s.counter
			}
			delete(w.services, service)
			w.publish()
		},
		func() { counter.Add(1) },
		func() { w.names.Add(1); w.any.Add(1) },
	}
}

// configure gives every service a TTL.
func (w *world) configure(t testing.TB, ttl time.Duration) []func() {
	return []func(){
		func() {
			if err := w.zone.SetConfig(consul.Config{ServiceTTL: map[string]time.Duration{"*": ttl}}); err != nil {
				t.Fatal(err)
			}
		},
		bump(&w.epoch),
	}
}

// lookup answers a question as it is answered now, past any cache.
func (w *world) lookup(t testing.TB, q *wire.Query) cached {
	r, outcome := w.zone.Answer(q)
	if outcome != resolver.Answered {
		t.Fatalf("outcome %v", outcome)
	}
	return cached{q, r}
}

// everyOrder runs one question against changes in every order of their steps
// and returns what was served late.
func everyOrder(t *testing.T, wrap func(func() consul.State) func() consul.State, name string, before, changes func(w *world) [][]func()) (late []string) {
	runs := interleave.Explore(func(choose func(int) int) {
		w := newWorld(t, wrap)
		for _, change := range before(w) {
			for _, step := range change {
				step()
			}
		}
		steps := slices.Concat(changes(w)...)
		w.onCall = func() {
			for range choose(len(steps) + 1) {
				steps[0]()
				steps = steps[1:]
			}
		}
		q := question(t, name, wire.TypeA)
		c := w.lookup(t, q)
		w.onCall = nil
		for _, step := range steps {
			step()
		}
		if now := w.lookup(t, q); c.counts() && text(c.Answer) != text(now.Answer) {
			late = append(late, text(c.Answer))
		}
	})
	t.Logf("%d orders", runs)
	return late
}

var interleavings = []struct {
	name            string
	before, changes func(w *world) [][]func()
}{
	{"a name begins", nothing, func(w *world) [][]func() { return [][]func(){w.set("web", "192.0.2.1")} }},
	{"a name changes", one, func(w *world) [][]func() { return [][]func(){w.set("web", "192.0.2.2")} }},
	{"a name ends", one, func(w *world) [][]func() { return [][]func(){w.retire("web")} }},
	{"a name ends and begins", one, func(w *world) [][]func() { return [][]func(){w.retire("web"), w.set("web", "192.0.2.2")} }},
	{"a name begins and ends", nothing, func(w *world) [][]func() { return [][]func(){w.set("web", "192.0.2.1"), w.retire("web")} }},
}

func nothing(*world) [][]func() { return nil }
func one(w *world) [][]func()   { return [][]func(){w.set("web", "192.0.2.1")} }
func another(w *world) [][]func() {
	return [][]func(){w.set("web", "192.0.2.1"), w.set("db", "192.0.2.9")}
}
func reverse(a string) (n string)  { return wire.ReverseName(mustAddr(a)).String() }
func settings(w *world) [][]func() { return [][]func(){w.configure(nil, time.Minute)} }

func TestRule2_AnAnswerIsNeverServedLate_EveryOrderOfSteps(t *testing.T) {
	for _, tc := range interleavings {
		t.Run(tc.name, func(t *testing.T) {
			if late := everyOrder(t, plain, "web.service.consul.", tc.before, tc.changes); len(late) > 0 {
				t.Errorf("served late in %d orders, first:\n%s", len(late), late[0])
			}
		})
	}
	t.Run("the configuration changes", func(t *testing.T) {
		if late := everyOrder(t, plain, "web.service.consul.", one, settings); len(late) > 0 {
			t.Errorf("served late in %d orders, first:\n%s", len(late), late[0])
		}
	})
}

// once answers every second call as the one before it: what a zone would see
// that didn't load the state again.
func once(state func() consul.State) func() consul.State {
	var last consul.State
	return func() consul.State {
		if was := last; was != nil {
			last = nil
			return was
		}
		last = state()
		return last
	}
}

func TestRule2_TheEnumerationFindsAMissingSecondLoad(t *testing.T) {
	tc := interleavings[3]
	late := everyOrder(t, once, "web.service.consul.", tc.before, tc.changes)
	if len(late) == 0 {
		t.Error("no order of steps shows what the second load is for")
	}
}

// TestRule4 is the retirement seen from here: without the counter's last move an
// answer of the ended name would count for ever.
func TestRule4_TheEnumerationFindsARetirementWithoutItsMove(t *testing.T) {
	late := everyOrder(t, plain, "web.service.consul.", one, func(w *world) [][]func() {
		steps := w.retire("web")
		return [][]func(){{steps[0], steps[2]}}
	})
	if len(late) == 0 {
		t.Error("no order of steps shows what the move is for")
	}
}

func TestRule5_NothingThatCountsIsLate_RandomChanges(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	names := []string{"web.service.consul.", "db.service.consul.", "n192.0.2.1.node.consul.", "n192.0.2.2.node.consul.",
		"api.service.consul.", "nobody.node.consul.", "consul."}
	w := newWorld(t, plain)
	var entries []cached
	for range 3000 {
		var steps []func()
		switch service := []string{"web", "db", "api"}[rng.IntN(3)]; rng.IntN(5) {
		case 0:
			steps = w.retire(service)
		case 1:
			steps = w.configure(t, time.Duration(rng.IntN(3))*time.Minute)
		default:
			steps = w.set(service, fmt.Sprintf("192.0.2.%d", 1+rng.IntN(3)))
		}
		for len(steps) > 0 {
			if rng.IntN(2) == 0 {
				entries = append(entries, w.lookup(t, question(t, names[rng.IntN(len(names))], wire.TypeA)))
				continue
			}
			steps[0]()
			steps = steps[1:]
		}
		entries = slices.DeleteFunc(entries, func(c cached) bool { return !c.counts() })
		for _, c := range entries {
			if now := w.lookup(t, c.q); text(now.Answer) != text(c.Answer) {
				t.Fatalf("%s is served late:\n%s\nnow:\n%s", wire.Name(c.q.Name()), text(c.Answer), text(now.Answer))
			}
		}
	}
}

func TestRule3_AnAnswerDependsOnItsNameAndTheEpochOnly(t *testing.T) {
	w := newWorld(t, plain)
	for _, change := range another(w) {
		for _, step := range change {
			step()
		}
	}
	web := w.lookup(t, question(t, "web.service.consul.", wire.TypeA))
	static := w.lookup(t, question(t, "7f000001.addr.consul.", wire.TypeA))
	for _, step := range w.set("db", "192.0.2.3") {
		step()
	}
	if !web.counts() || !static.counts() {
		t.Error("a change of another name dropped the answer")
	}
	w.epoch.Add(1)
	if web.counts() || static.counts() {
		t.Error("the epoch moved and the answer still counts")
	}
}

func TestRule6_TTLAndLifeAreTwoThings(t *testing.T) {
	w := newWorld(t, plain)
	for _, step := range w.set("web", "192.0.2.1") {
		step()
	}
	c := w.lookup(t, question(t, "web.service.consul.", wire.TypeA))
	if ttl, ok := c.Answer.MinTTL(); !ok || ttl != 0 {
		t.Errorf("TTL %d, want 0", ttl)
	}
	if c.Life != 0 || c.NoStore || c.Ages {
		t.Errorf("life %v, no store %v, ages %v: want an answer that is kept until a counter moves", c.Life, c.NoStore, c.Ages)
	}
}

func TestRule6_WhatIsFollowedUpstreamBoundsTheLife(t *testing.T) {
	w := newWorld(t, plain)
	zone, err := consul.New(consul.Options{State: w.fake.State, Want: w.fake.Want, Moved: func() {},
		Chase: func(ctx context.Context, q *wire.Query) (resolver.Result, error) {
			return scripted{"www.example.com. 25 IN A 192.0.2.1"}.Exchange(ctx, q)
		}})
	if err != nil {
		t.Fatal(err)
	}
	w.zone = zone
	if err := w.Register(`{"Node":"n","Address":"www.example.com","Service":{"Service":"web","Port":1}}`); err != nil {
		t.Fatal(err)
	}
	w.settle()
	q := question(t, "web.service.consul.", wire.TypeA)
	if _, outcome := zone.Answer(q); outcome != resolver.Later {
		t.Fatalf("outcome %v, want Later: a name must be followed", outcome)
	}
	r, err := zone.Resolve(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	if r.Life != 25*time.Second || !r.Ages || r.NoStore {
		t.Errorf("life %v, ages %v, no store %v: want 25 s, counting down", r.Life, r.Ages, r.NoStore)
	}
	w.any.Add(1)
	if !r.Deps[0].Moved() {
		t.Error("an answer that may lead through other names must depend on any change")
	}
}

// A name of a hosts file has a counter of its own that our entry has no room for.
func TestRule6_WhatIsFollowedIntoAnotherZoneIsBoundByItsTTL(t *testing.T) {
	w := newWorld(t, plain)
	zone, err := consul.New(consul.Options{State: w.fake.State, Want: w.fake.Want, Moved: func() {},
		Chase: func(ctx context.Context, q *wire.Query) (resolver.Result, error) {
			r, err := scripted{"nas.home. 10 IN A 192.0.2.1"}.Exchange(ctx, q)
			r.Ages, r.Deps[0].Counter = false, new(atomic.Uint64)
			return r, err
		}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Register(`{"Node":"n","Address":"nas.home","Service":{"Service":"web","Port":1}}`); err != nil {
		t.Fatal(err)
	}
	w.settle()
	for _, typ := range []wire.Type{wire.TypeA, wire.TypeSRV} {
		r, err := zone.Resolve(context.Background(), question(t, "web.service.consul.", typ))
		if err != nil {
			t.Fatal(err)
		}
		if r.Life != 10*time.Second || r.NoStore {
			t.Errorf("%s: life %v, no store %v: want 10 s", wire.TypeString(typ), r.Life, r.NoStore)
		}
	}
}

func TestRule7_ASetBeyond64KBIsDrawnAnew(t *testing.T) {
	w := newWorld(t, plain)
	const instances = 6000
	for i := range instances {
		err := w.Register(fmt.Sprintf(`{"Node":"node%d","Address":"10.0.%d.%d","Service":{"Service":"web","Port":1}}`, i, i>>8, i&255))
		if err != nil {
			t.Fatal(err)
		}
	}
	w.settle()
	seen := make(map[string]bool)
	q := question(t, "web.service.consul.", wire.TypeA)
	if _, outcome := w.zone.Answer(q); outcome != resolver.Later {
		t.Fatalf("outcome %v, want Later: %d instances are too many to build between two packets", outcome, instances)
	}
	for range 12 {
		r, err := w.zone.Resolve(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		if r.Life <= 0 || r.Life > 10*time.Second {
			t.Fatalf("life %v, want at most 10 s", r.Life)
		}
		rrs := r.Answer.RRs()
		if len(rrs) < 3900 || r.Answer.Size() > 256<<10 {
			t.Fatalf("%d records in %d octets", len(rrs), r.Answer.Size())
		}
		for _, rr := range rrs {
			seen[string(rr.Data)] = true
		}
	}
	// Each drawing misses an instance with probability 1/3; 12 of them all with 2e-6.
	if len(seen) < instances-5 {
		t.Errorf("%d of %d instances were ever drawn", len(seen), instances)
	}
}

func TestRule12_WithoutABaseSetNothingIsDenied(t *testing.T) {
	w := newWorld(t, plain)
	w.noBase = true
	w.publish()
	for _, name := range []string{"web.service.consul.", "n.node.consul."} {
		c := w.lookup(t, question(t, name, wire.TypeA))
		if c.Answer.Rcode() != wire.RcodeServFail || c.EDE != wire.EDENotReady || !c.NoStore {
			t.Errorf("%s: rcode %d, EDE %d, no store %v; want SERVFAIL, 14, true", name, c.Answer.Rcode(), c.EDE, c.NoStore)
		}
	}
	for _, step := range w.set("web", "192.0.2.1") { // this host's own, before the base
		step()
	}
	if c := w.lookup(t, question(t, "web.service.consul.", wire.TypeA)); c.Answer.Rcode() != wire.RcodeSuccess {
		t.Errorf("what is known is not answered: rcode %d", c.Answer.Rcode())
	}
}

func TestNotYet_WaitsForTheContentsThenGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, plain)
		w.notYet["web"] = true
		w.publish()
		q := question(t, "web.service.consul.", wire.TypeA)
		if _, outcome := w.zone.Answer(q); outcome != resolver.Later {
			t.Fatalf("outcome %v, want Later", outcome)
		}
		start := time.Now()
		r, err := w.zone.Resolve(t.Context(), q)
		if err != nil || r.Answer.Rcode() != wire.RcodeServFail || r.EDE != wire.EDENoReachable || !r.NoStore {
			t.Errorf("rcode %d, EDE %d, no store %v, %v; want SERVFAIL, 22, true", r.Answer.Rcode(), r.EDE, r.NoStore, err)
		}
		if waited := time.Since(start); waited != 300*time.Millisecond {
			t.Errorf("gave up after %v, want 300ms", waited)
		}

		time.AfterFunc(100*time.Millisecond, func() {
			for _, step := range w.set("web", "192.0.2.1") {
				step()
			}
		})
		start = time.Now()
		r, err = w.zone.Resolve(t.Context(), q)
		if err != nil || r.Answer.Rcode() != wire.RcodeSuccess || r.NoStore {
			t.Errorf("rcode %d, no store %v, %v; want the contents that came", r.Answer.Rcode(), r.NoStore, err)
		}
		if waited := time.Since(start); waited != 100*time.Millisecond {
			t.Errorf("answered after %v, want 100ms", waited)
		}
	})
}

func TestRule12_WhileOthersAreExpectedAnUnknownNameWaits(t *testing.T) {
	for _, tc := range []struct {
		name, asked string
		after       func(w *world)
		rcode       uint16
		ede         uint16
		waited      time.Duration
	}{
		{"they know it", "web.service.consul.", func(w *world) {
			for _, step := range w.set("web", "192.0.2.1") {
				step()
			}
		}, wire.RcodeSuccess, 0, 100 * time.Millisecond},
		{"they don't", "web.service.consul.", func(w *world) { w.expects = false; w.publish() }, wire.RcodeNXDomain, 0, 100 * time.Millisecond},
		{"no node either", "web.node.consul.", func(w *world) { w.expects = false; w.publish() }, wire.RcodeNXDomain, 0, 100 * time.Millisecond},
		{"they aren't heard", "web.service.consul.", func(*world) {}, wire.RcodeServFail, wire.EDENotReady, 300 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, plain)
				w.expects = true
				w.publish()
				zone, err := consul.New(consul.Options{State: w.fake.State, Want: w.fake.Want, Moved: func() {},
					Neighbour: func(_ context.Context, name string) bool {
						t.Errorf("neighbours are asked for %s, which nobody says exists", name)
						return false
					}})
				if err != nil {
					t.Fatal(err)
				}
				q := question(t, tc.asked, wire.TypeA)
				if _, outcome := zone.Answer(q); outcome != resolver.Later {
					t.Fatalf("outcome %v, want Later", outcome)
				}
				time.AfterFunc(100*time.Millisecond, func() { tc.after(w) })
				start := time.Now()
				r, err := zone.Resolve(t.Context(), q)
				if err != nil || r.Answer.Rcode() != tc.rcode || r.EDE != tc.ede {
					t.Errorf("rcode %d, EDE %d, %v; want %d, %d", r.Answer.Rcode(), r.EDE, err, tc.rcode, tc.ede)
				}
				if waited := time.Since(start); waited != tc.waited {
					t.Errorf("answered after %v, want %v", waited, tc.waited)
				}
				synctest.Wait()
			})
		})
	}
}

func TestReverse_WhatIsNotMineSaysWhenItWouldBe(t *testing.T) {
	w := newWorld(t, plain)
	mounts := w.zone.Mounts("\x0210\x07in-addr\x04arpa\x00")
	zone := mounts[len(mounts)-1].Zone
	q := question(t, reverse("10.0.0.1"), wire.TypePTR)
	r, outcome := zone.Answer(q)
	if outcome != resolver.NotMine || r.Deps[0].Counter != &w.addresses {
		t.Fatalf("outcome %v, deps %v; want NotMine and the counter of addresses", outcome, r.Deps)
	}
	for _, step := range w.set("web", "10.0.0.1") {
		step()
	}
	if !r.Deps[0].Moved() {
		t.Error("the address has an owner now and the counter didn't move")
	}
	if _, outcome := zone.Answer(q); outcome != resolver.Answered {
		t.Errorf("outcome %v, want Answered", outcome)
	}
}
