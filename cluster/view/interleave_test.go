package view

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"meibo/cluster/catalog"
	"meibo/cluster/clustertest/interleave"
)

// What follows runs a writer and a reader as step machines over every order in
// which their steps can come, on the real states and counters. After each whole
// change of the writer an entry that still counts must say what is so.

// faults are ways to do it wrong, to see that the enumeration finds them.
type faults struct {
	noSecondLoad bool // the reader doesn't load the state again
	bumpFirst    bool // the writer moves the counters before it publishes
	noRetire     bool // the writer gives a counter up without moving it
	readFirst    bool // the reader takes its counter from another, older state
}

// entry is a cached answer.
type entry struct {
	name, epoch           *atomic.Uint64
	nameValue, epochValue uint64
	content               string
}

func (e *entry) counts() bool {
	return e.name.Load() == e.nameValue && e.epoch.Load() == e.epochValue
}

// change is one change of what answers show: settings, then the next state.
type change struct {
	set   func(settings *int)
	build func(*View) *stateBuilder
}

// world is what both machines share. Settings stand for all that answers depend
// on besides the catalog.
type world struct {
	v        *View
	settings int
}

func (w *world) answer(s *State) string { return fmt.Sprint(w.settings, " ", showStanding(s, "web")) }

// writer takes changes one after the other, in steps: settings, publish, then
// each counter that the reader may hold on its own; the others come with the
// publication, since nobody here looks at them.
type writer struct {
	*world
	changes []change
	faults  faults
	steps   []func()
}

func (w *writer) done() bool  { return len(w.steps) == 0 && len(w.changes) == 0 }
func (w *writer) quiet() bool { return len(w.steps) == 0 }

func (w *writer) step() {
	if len(w.steps) == 0 {
		w.begin()
	}
	step := w.steps[0]
	w.steps = w.steps[1:]
	step()
}

func (w *writer) begin() {
	c := w.changes[0]
	w.changes = w.changes[1:]
	before := w.v.Load()
	next, bumps := c.build(w.v).finish()
	publish := func() { w.v.state.Store(next) }
	if c.set != nil {
		w.steps = append(w.steps, func() { c.set(&w.settings) })
	}
	if !w.faults.bumpFirst {
		w.steps = append(w.steps, publish)
	}
	for _, c := range bumps {
		retired := c == counterOf(before, "web") && c != counterOf(next, "web") && c != next.Names()
		held := retired || c == counterOf(next, "web") || c == next.Names() || c == next.Epoch()
		if held && !(retired && w.faults.noRetire) {
			w.steps = append(w.steps, func() { c.Add(1) })
		}
	}
	if w.faults.bumpFirst {
		w.steps = append(w.steps, publish)
	}
}

// reader makes one entry for the service web, in the steps of the rule.
type reader struct {
	*world
	faults   faults
	pc       int
	s        *State
	settings string
	e        entry
	stored   *entry
}

func (r *reader) done() bool { return r.stored != nil }

func (r *reader) step() {
	r.pc++
	switch r.pc {
	case 1: // load the state, take its counters from it
		r.s = r.v.Load()
		r.e.name, r.e.epoch = counterOf(r.s, "web"), r.s.Epoch()
	case 2: // read what else the answer depends on, as early as may be
		r.settings = fmt.Sprint(r.world.settings)
	case 3: // read the values
		r.e.nameValue = r.e.name.Load()
	case 4:
		r.e.epochValue = r.e.epoch.Load()
	case 5: // load again
		now := r.v.Load()
		if now != r.s && !r.faults.noSecondLoad {
			r.pc = 0
		}
		if r.faults.readFirst {
			r.s, r.pc = now, 5
		}
	case 6: // build from that state, store
		r.e.content = r.settings + " " + showStanding(r.s, "web")
		e := r.e
		r.stored = &e
	}
}

// late runs every interleaving and returns how many there were, in how many the
// entry counted at the end, and the first in which it was wrong.
func late(start catalog.Update, changes []change, f faults) (runs, counted int, wrong string) {
	runs = interleave.Explore(func(choose func(int) int) {
		v, _ := New(Config{})
		v.applyUpdate(start)
		shared := &world{v: v}
		w := &writer{world: shared, changes: changes, faults: f}
		r := &reader{world: shared, faults: f}
		var trace strings.Builder
		for !w.done() || !r.done() {
			who := 0
			switch {
			case w.done():
				who = 1
			case !r.done():
				who = choose(2)
			}
			if who == 0 {
				w.step()
			} else {
				r.step()
			}
			fmt.Fprintf(&trace, "%c", "WR"[who])
			if r.done() && w.quiet() && r.stored.counts() {
				if now := shared.answer(v.Load()); now != r.stored.content && wrong == "" {
					wrong = fmt.Sprintf("%s: cached %q, is %q", &trace, r.stored.content, now)
				}
			}
		}
		if r.stored.counts() {
			counted++
		}
	})
	return runs, counted, wrong
}

func batchChange(u catalog.Update) change {
	return change{build: func(v *View) *stateBuilder {
		b, err := v.prepareUpdate(&u)
		if err != nil {
			panic(err)
		}
		return b
	}}
}

// configured is a change of settings, as BumpEpoch makes it.
func configured(value int) change {
	return change{
		set: func(settings *int) { *settings = value },
		build: func(v *View) *stateBuilder {
			b := v.newBuilder()
			b.bumpEpoch()
			return b
		},
	}
}

// subscriptionEnd is what sweep does to an idle subscription.
func subscriptionEnd() change {
	return change{build: func(v *View) *stateBuilder {
		b := v.newBuilder()
		v.current.complete.drop("web")
		b.touchName("web")
		return b
	}}
}

// scenarios are pairs of changes of the service web, from each beginning.
func scenarios() map[string]struct {
	start   catalog.Update
	changes []change
} {
	with := func(port int) catalog.Update { return update(2, node("n1", "10.0.0.1", service("web", port))) }
	none := update(2, node("n1", "10.0.0.1"))
	there := whole(2, node("n1", "10.0.0.1", service("web", 1)))
	absent := whole(2, node("n1", "10.0.0.1"))
	pair := func(a, b catalog.Update) []change { return []change{batchChange(a), batchChange(b)} }
	n1 := node("n1", "10.0.0.1")
	named, known := base(2, "web", n1), filled(base(2, "web", n1), contents(2, "web", "n1"))
	answered, nameGone := contents(3, "web", "n1"), inHistory("h1", catalog.Update{Index: 4, GoneNames: []string{"web"}})
	anew := confirmed(inHistory("h2", whole(9)))
	done := inHistory("h2", update(10, synced("h2", n1)))
	type scenario = struct {
		start   catalog.Update
		changes []change
	}
	return map[string]scenario{
		"altered, retired":        {there, pair(with(2), none)},
		"altered, altered":        {there, pair(with(2), with(3))},
		"retired, created":        {there, pair(none, with(2))},
		"created, altered":        {absent, pair(with(2), with(3))},
		"created, retired":        {absent, pair(with(2), none)},
		"node gone, created":      {there, pair(gone(2, "n1"), with(2))},
		"configured, altered":     {there, []change{configured(1), batchChange(with(2))}},
		"contents come, altered":  {named, pair(answered, inHistory("h1", catalog.Update{Index: 4, Parts: []catalog.Part{{Node: "n1", Service: "web", Services: []*catalog.Service{service("web", 9)}}}}))},
		"contents come, gone":     {named, pair(answered, nameGone)},
		"named, contents come":    {base(1, "", n1), pair(named, answered)},
		"subscription ends, anew": {known, []change{subscriptionEnd(), batchChange(answered)}},
		"subscription ends, gone": {known, []change{subscriptionEnd(), batchChange(nameGone)}},
		"new history, synced":     {there, pair(anew, done)},
		"new history, named":      {there, pair(anew, inHistory("h2", with(3)))},
		"retired, configured":     {there, []change{batchChange(none), configured(1)}},
	}
}

func TestRule2_NoInterleavingServesLate(t *testing.T) {
	for name, sc := range scenarios() {
		t.Run(name, func(t *testing.T) {
			runs, counted, wrong := late(sc.start, sc.changes, faults{})
			if wrong != "" {
				t.Errorf("served late: %s", wrong)
			}
			if counted == 0 || counted == runs {
				t.Errorf("the entry counted in %d of %d interleavings: nothing was tried", counted, runs)
			}
			t.Logf("%d interleavings, entry good at the end of %d", runs, counted)
		})
	}
}

// TestRule2_EnumerationFindsTheFaults holds the enumeration itself to account.
func TestRule2_EnumerationFindsTheFaults(t *testing.T) {
	for name, f := range map[string]faults{
		"without the second load":             {noSecondLoad: true},
		"counters moved before publication":   {bumpFirst: true},
		"built from another state than asked": {readFirst: true},
	} {
		t.Run(name, func(t *testing.T) {
			found := 0
			for _, sc := range scenarios() {
				if _, _, wrong := late(sc.start, sc.changes, f); wrong != "" {
					found++
				}
			}
			if found == 0 {
				t.Error("no interleaving serves late")
			}
		})
	}
}

func TestRule4_WithoutTheLastMoveARetiredNameIsServedLate(t *testing.T) {
	sc := scenarios()["altered, retired"]
	if _, _, wrong := late(sc.start, sc.changes, faults{noRetire: true}); wrong == "" {
		t.Error("no interleaving serves late")
	}
	if _, _, wrong := late(sc.start, sc.changes, faults{}); wrong != "" {
		t.Error(wrong)
	}
}
