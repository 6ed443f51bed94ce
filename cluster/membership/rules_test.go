package membership

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// book is a machine under test, with a clock of its own and members that answer,
// or don't.
type book struct {
	*Machine
	t      *testing.T
	now    time.Time
	silent map[string]bool
}

// turn is how often a machine is told the time here.
const turn = 50 * time.Millisecond

func address(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

func newBook(t *testing.T, others int) *book {
	b := &book{t: t, now: time.Unix(1e9, 0), silent: make(map[string]bool)}
	b.Machine = New(b.now, standard)
	for i := range others {
		b.Alive(b.now, b.node(i))
	}
	b.pass(2 * time.Minute)
	return b
}

func (b *book) node(i int) Node {
	id := fmt.Sprintf("id%d", i)
	return Node{Name: fmt.Sprintf("n%d", i), ID: id, Addr: address(i), Port: 1, Life: 7, Tags: map[string]string{TagID: id}}
}

// pass lets time go by, in turns; who isn't silent answers.
func (b *book) pass(d time.Duration) {
	for end := b.now.Add(d); b.now.Before(end); b.now = b.now.Add(turn) {
		b.Step(b.now)
		for _, s := range b.Publish().Sends {
			if m := s.Message; m.Kind == MessagePing && !b.silent[m.Name] {
				b.Receive(b.now, Message{Kind: MessagePong, Nonce: m.Nonce, ID: m.ID, Life: 7}, b.now)
			}
		}
	}
}

// die makes members silent and has gossip say so.
func (b *book) die(names ...string) {
	for _, n := range names {
		b.silent[n] = true
		b.Dead(b.now, n, "")
	}
}

// rise makes members answer again and has gossip say so.
func (b *book) rise(names ...string) {
	for _, n := range names {
		delete(b.silent, n)
		b.Alive(b.now, b.byName[n].Node)
	}
}

func (b *book) is(name string, want Status) {
	b.t.Helper()
	if got := b.byName[name].Status; got != want {
		b.t.Errorf("%s is %v, want %v", name, got, want)
	}
}

func TestRule20_ADeathIsSuspicionUntilThreePingsWentUnanswered(t *testing.T) {
	b := newBook(t, 5)
	b.die("n1")
	b.is("n1", Suspect)
	b.pass(confirmWindow)
	b.is("n1", Suspect)
	b.pass(2 * turn)
	b.is("n1", Failed)
}

func TestRule20_AMemberThatAnswersStaysAliveAndIsToldDead(t *testing.T) {
	b := newBook(t, 5)
	b.Dead(b.now, "n1", "n2")
	b.pass(2 * turn)
	b.is("n1", Alive)
	r := b.byName["n1"]
	if r.Told != Failed || r.ToldBy != "n2" || b.counts.Refuted != 1 {
		t.Errorf("got %+v, %+v", r.Member, b.counts)
	}
	b.silent["n1"] = true // nobody else watches it by then
	b.pass(verifyEvery + confirmWindow + 3*turn)
	b.is("n1", Failed)
}

func TestRule20_SuspicionsOfTheLatelyDeadAndAfterAPauseOfOurOwnArePutOff(t *testing.T) {
	b := newBook(t, 5)
	b.die("n2")
	b.pass(time.Second)
	b.rise("n2")
	b.pass(10 * time.Second)
	b.is("n2", Alive)
	b.Dead(b.now, "n1", "n2")
	b.is("n1", Alive)
	b.Stalled(b.now)
	b.Dead(b.now, "n3", "")
	b.is("n3", Alive)
	if b.counts.Ignored != 2 {
		t.Errorf("ignored %d suspicions, want 2", b.counts.Ignored)
	}
}

func TestRule20_APauseOfOurOwnBeginsTheConfirmationAnew(t *testing.T) {
	b := newBook(t, 5)
	b.Dead(b.now, "n1", "")
	b.Step(b.now)
	b.Publish()                         // the pings go out,
	b.now = b.now.Add(30 * time.Second) // and the process is stopped before the answers are read
	b.Stalled(b.now)
	b.pass(time.Second)
	b.is("n1", Alive)
}

func TestRule20_WhoHearsAgainAsksAnewBeforeAnybodyDies(t *testing.T) {
	b := newBook(t, 4)
	for i := range 4 {
		b.silent[fmt.Sprintf("n%d", i)] = true // this host's cable is out
	}
	b.pass(3 * time.Second)
	b.Dead(b.now, "n1", "")
	b.Dead(b.now, "n2", "")
	for b.byName["n1"].suspicion == nil || b.byName["n1"].suspicion.sent < confirmPings {
		b.pass(turn)
	}
	delete(b.silent, "n0") // it is in again, and the answers come one after the other
	delete(b.silent, "n3")
	b.answered(b.now, b.byName["n0"], 0)
	b.pass(2 * turn)
	delete(b.silent, "n2")
	b.pass(2*confirmWindow + 2*turn) // longer than an answer is waited for otherwise
	delete(b.silent, "n1")
	b.pass(5 * time.Second)
	for i := range 4 {
		b.is(fmt.Sprintf("n%d", i), Alive)
		if n := b.byName[fmt.Sprintf("n%d", i)].Flaps; n > 0 {
			t.Errorf("n%d was dead %d times", i, n)
		}
	}
}

var standard = Config{
	Self:             Node{Name: "self", ID: "self-id", Addr: address(250), Port: 1, Life: 1},
	ReconnectTimeout: 72 * time.Hour, TombstoneTimeout: 24 * time.Hour, HoldDown: DefaultHoldDown, HoldDownMax: DefaultHoldDownMax,
}

func TestRule20_Holddown(t *testing.T) {
	at := time.Unix(1e9, 0)
	for _, test := range []struct {
		name  string
		flaps []time.Duration // after at
		back  time.Duration
		want  time.Duration // from back
	}{
		{"the first time", []time.Duration{0}, 10 * time.Second, 5 * time.Second},
		{"the second", []time.Duration{0, 20 * time.Second}, 30 * time.Second, 10 * time.Second},
		{"the third", []time.Duration{0, 20 * time.Second, 40 * time.Second}, 45 * time.Second, 20 * time.Second},
		{"a quiet minute between", []time.Duration{0, 70 * time.Second}, 75 * time.Second, 5 * time.Second},
		{"dead for long", []time.Duration{0, 20 * time.Second, 40 * time.Second}, time.Hour, 5 * time.Second},
		{"halved while it is held", []time.Duration{0, 1, 2, 3, 4, 5, 6}, 0, 120 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			var h holddown
			for _, f := range test.flaps {
				h.flap(at.Add(f), &standard)
			}
			back := at.Add(test.back)
			if got := h.until(back, &standard).Sub(back).Round(time.Second); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
	var h holddown
	for range 20 {
		h.flap(at, &standard)
	}
	if h.hold != DefaultHoldDownMax {
		t.Errorf("got %v, want %v", h.hold, DefaultHoldDownMax)
	}
}

func TestRule20_BackOnlyWhenSteadyForTheHolddown(t *testing.T) {
	b := newBook(t, 5)
	b.die("n1")
	b.pass(time.Second)
	b.is("n1", Failed)
	b.rise("n1")
	b.pass(4 * time.Second)
	b.is("n1", Failed)
	if b.byName["n1"].HeldUntil.IsZero() {
		t.Error("nothing says until when it is held")
	}
	b.silent["n1"] = true // gossip doesn't know yet
	b.pass(5 * time.Second)
	b.is("n1", Failed)
	if b.byName["n1"].Flaps != 2 {
		t.Errorf("got %d flaps, want 2", b.byName["n1"].Flaps)
	}
	delete(b.silent, "n1")
	b.pass(8 * time.Second)
	b.is("n1", Failed)
	b.pass(4 * time.Second)
	b.is("n1", Alive)
}

func TestRule21_TheGuard(t *testing.T) {
	names := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprintf("n%d", i))
		}
		return out
	}
	for _, test := range []struct {
		others, die int
		apart       time.Duration
		want        bool
	}{
		{9, 4, 0, false},
		{9, 5, 0, true},
		{9, 5, 20 * time.Second, false}, // not within a minute
		{9, 5, 10 * time.Second, true},
		{2, 2, 0, false}, // not three
		{3, 3, 0, true},
		{4, 2, 0, false},
		{5, 3, 0, true},
	} {
		t.Run(fmt.Sprintf("%d of %d, %v apart", test.die, test.others, test.apart), func(t *testing.T) {
			b := newBook(t, test.others)
			for _, n := range names(test.die) {
				b.die(n)
				b.pass(test.apart)
			}
			b.pass(3 * time.Second)
			if b.guard.on != test.want {
				t.Fatalf("guarded: %v, want %v", b.guard.on, test.want)
			}
			want := Failed
			if test.want {
				want = Suspect
			}
			for _, n := range names(test.die) {
				b.is(n, want)
			}
		})
	}
}

func TestRule21_TheGuardEndsWhenHalfAreBack(t *testing.T) {
	b := newBook(t, 9)
	b.die("n0", "n1", "n2", "n3", "n4", "n5")
	b.pass(3 * time.Second)
	b.rise("n0", "n1")
	b.pass(3 * time.Second)
	b.is("n0", Alive) // it never was out
	b.is("n5", Suspect)
	b.rise("n2")
	b.pass(3 * time.Second)
	if b.guard.on {
		t.Error("guarded though half are back")
	}
	b.is("n5", Failed)
	b.pass(time.Minute)
	if b.guard.on {
		t.Error("guarded anew for the same deaths")
	}
}

func TestRule21_AServersWordTakesOutThoseItConfirms(t *testing.T) {
	b := newBook(t, 9)
	b.die("n0", "n1", "n2", "n3", "n4", "n5")
	b.pass(3 * time.Second)
	b.Confirm(b.now, "id0")
	b.is("n0", Failed)
	b.is("n1", Suspect)
	b.Confirm(b.now, "id1")
	b.Confirm(b.now, "id2")
	b.is("n5", Suspect) // asked once more
	b.pass(afterCutOff + time.Second)
	b.is("n5", Failed)
	if b.guard.on {
		t.Error("guarded though half are confirmed")
	}
	b.pass(10 * time.Second)
	if b.guard.on {
		t.Error("guarded anew for the same deaths")
	}
}

func TestRule21_WhoHearsNobodyTakesOutNobody(t *testing.T) {
	b := newBook(t, 20)
	for i := range 20 {
		b.silent[fmt.Sprintf("n%d", i)] = true
	}
	b.Dead(b.now, "n3", "self")
	for range 40 {
		b.pass(500 * time.Millisecond)
		for _, r := range b.byName {
			if r.Status == Failed {
				t.Fatalf("%s is out", r.Name)
			}
		}
	}
	if !b.guard.on {
		t.Error("the guard isn't on")
	}
}

func TestRule21_AMinorityTakesOutNobody(t *testing.T) {
	for _, hosts := range []int{7, 40} {
		for heard := range 3 { // beside itself, the minority has so many
			b := newBook(t, hosts)
			for i := heard; i < hosts; i++ {
				b.silent[fmt.Sprintf("n%d", i)] = true
			}
			for i := range 4 { // one after the other, as gossip finds them
				b.Dead(b.now, fmt.Sprintf("n%d", hosts-1-i), "n0")
				for range 16 {
					b.pass(50 * time.Millisecond)
					for _, r := range b.byName {
						if r.Status == Failed {
							t.Fatalf("%d hosts, %d heard: %s is out", hosts, heard, r.Name)
						}
					}
				}
			}
			b.pass(5 * time.Second)
			if !b.guard.on {
				t.Errorf("%d hosts, %d heard: the guard isn't on", hosts, heard)
			}
		}
	}
}

func TestRule21_WhomNobodyAccusesIsBackWhenTheGuardEnds(t *testing.T) {
	b := newBook(t, 7)
	for i := range 4 {
		b.silent[fmt.Sprintf("n%d", i)] = true
	}
	for i := range 3 { // n3 is only out of this host's reach
		b.Dead(b.now, fmt.Sprintf("n%d", i), "n6")
	}
	b.pass(3 * time.Second)
	if !b.guard.on {
		t.Fatal("the guard isn't on though four of seven are silent")
	}
	b.Confirm(b.now, "id0")
	b.Confirm(b.now, "id1")
	if b.guard.on {
		t.Fatal("guarded though two of four deaths are confirmed")
	}
	b.pass(4 * time.Second)
	b.is("n2", Failed)
	b.is("n3", Alive)
}

func TestRule21_SomeDeathsAtOnceAreBelieved(t *testing.T) {
	b := newBook(t, 9)
	b.silent["n0"], b.silent["n1"], b.silent["n2"] = true, true, true
	for _, name := range []string{"n0", "n1", "n2"} {
		b.Dead(b.now, name, "n8")
	}
	b.pass(3 * time.Second)
	for _, name := range []string{"n0", "n1", "n2"} {
		b.is(name, Failed)
	}
	b.is("n3", Alive)
	if b.guard.on {
		t.Error("guarded for three of nine")
	}
}

func TestRule20_WhoIsAskedBesideADeadOneIsNotFoundDead(t *testing.T) {
	b := newBook(t, 9)
	b.silent["n0"], b.silent["n1"] = true, true // n1 is only restarting: nobody accuses it
	b.Dead(b.now, "n0", "n8")
	b.pass(1700 * time.Millisecond)
	b.is("n0", Failed)
	b.is("n1", Alive)
}

func TestRule21_ASmallClusterTakesOutItsDead(t *testing.T) {
	b := newBook(t, 2)
	b.die("n0", "n1")
	b.pass(3 * time.Second)
	b.is("n0", Failed)
	b.is("n1", Failed)
}

func TestRule19_FailedNeverBecomesNeverSeenAndReapedCountsAsLeft(t *testing.T) {
	b := newBook(t, 3)
	b.die("n0")
	b.pass(time.Second)
	b.now = b.now.Add(71 * time.Hour)
	b.Sweep(b.now)
	b.is("n0", Failed)
	b.now = b.now.Add(2 * time.Hour)
	b.Sweep(b.now)
	b.is("n0", Left)
	b.now = b.now.Add(25 * time.Hour)
	b.Sweep(b.now)
	if b.byName["n0"] != nil || b.life("id0") != Left {
		t.Errorf("got %v, life %v", b.byName["n0"], b.life("id0"))
	}
	if b.life("id7") != NeverSeen {
		t.Error("an unknown host is not never seen")
	}
}

// One that is told alive again and has yet to answer isn't reaped, however long ago it
// died: gossip has it, and would not tell it once more.
func TestRule19_WhoIsBackIsNotReaped(t *testing.T) {
	b := newBook(t, 3)
	b.die("n0")
	b.pass(time.Second)
	b.now = b.now.Add(73 * time.Hour)
	b.rise("n0")
	b.Sweep(b.now)
	b.pass(10 * time.Second)
	b.is("n0", Alive)
}

func TestResync_MakesTheMembersWhatGossipHas(t *testing.T) {
	b := newBook(t, 3)
	b.silent["n1"] = true
	b.Resync(b.now, []Node{b.node(0), b.node(2), b.node(3)}) // the death of n1 and the arrival of n3 were lost
	b.pass(time.Second)
	for i, want := range []Status{Alive, Failed, Alive, Alive} {
		b.is(b.node(i).Name, want)
	}
}

// What is told of a member that others alone have told of counts until it is found
// out, and is told on once.
func TestRule19_WhatIsToldOfOneNeverSeenCountsUntilItAnswers(t *testing.T) {
	b := newBook(t, 2)
	b.silent["n5"] = true
	b.Merge(b.now, PushPull{From: "n0", Gone: []Departed{{Node: b.node(5), Status: Failed}}})
	b.Restore([]Life{{ID: "id5", Name: "n5", Status: Failed, Since: b.now}})
	b.Publish()
	told := func() (lives []Status) {
		for _, l := range b.Table().Lives() {
			if l.ID == "id5" {
				lives = append(lives, l.Status)
			}
		}
		return lives
	}
	if got := told(); len(got) != 1 || got[0] != Failed || b.Table().Life("id5") != Failed {
		t.Errorf("told on: %v", got)
	}
	delete(b.silent, "n5")
	b.pass(10 * time.Second)
	if got := told(); len(got) != 1 || got[0] != Alive || b.Table().Life("id5") != Alive {
		t.Errorf("after it answered: %v", got)
	}
}

func TestIntent_OneOfAnEarlierLifeOrPlayedAgainSaysNothing(t *testing.T) {
	b := newBook(t, 3)
	old := Message{Kind: MessageLeave, LTime: 5, Nonce: 1, Name: "n0", ID: "id0", Life: 6}
	b.intent(b.now, old)
	b.is("n0", Alive)
	force := Message{Kind: MessageForce, LTime: 6, Nonce: 2, Name: "n0", ID: "id0", Life: 7}
	b.die("n0")
	b.pass(time.Second)
	b.intent(b.now, force)
	b.is("n0", Left)
	b.rise("n0")
	b.pass(3 * time.Second)
	b.is("n0", Alive)
	b.die("n0")
	b.pass(time.Second)
	b.is("n0", Failed)
	b.intent(b.now, force) // seen
	force.Nonce = 3
	b.intent(b.now, force) // not seen, but older than its return
	b.is("n0", Failed)
}

func TestIntent_ForceBeforeTheDeathIsFoundCountsThen(t *testing.T) {
	b := newBook(t, 3)
	b.intent(b.now, Message{Kind: MessageForce, LTime: 6, Nonce: 2, Name: "n0", ID: "id0", Life: 7})
	b.is("n0", Alive)
	b.die("n0")
	b.pass(time.Second)
	b.is("n0", Left)

	b.intent(b.now, Message{Kind: MessageForce, LTime: 7, Nonce: 3, Name: "n1", ID: "id1", Life: 7})
	b.silent["n1"] = true
	b.pass(forceKept)
	b.die("n1")
	b.pass(time.Second)
	b.is("n1", Failed)
}

// Who lived when it was given fails like any other when it dies seconds later.
func TestIntent_ForceOfTheLivingIsRefutedByTheNextSignOfLife(t *testing.T) {
	b := newBook(t, 5)
	b.intent(b.now, Message{Kind: MessageForce, LTime: 6, Nonce: 2, Name: "n0", ID: "id0", Life: 7})
	b.Merge(b.now, PushPull{From: "n3", Clock: 7, Gone: []Departed{{Node: b.node(1), Status: Left}}})
	for _, n := range []string{"n0", "n1"} {
		b.pass(2 * time.Second)
		b.is(n, Alive)
		b.die(n)
		b.pass(time.Second)
		b.is(n, Failed)
	}
}

func TestIntent_RingTakesEachOnceAndNoOldOnes(t *testing.T) {
	var r seenIntents
	for _, test := range []struct {
		clock, ltime, id uint64
		want             bool
	}{{0, 1, 1, true}, {1, 1, 1, false}, {1, 1, 2, true}, {600, 1, 3, false}, {600, 600, 1, true}, {600, 88, 1, false}, {1100, 1000, 9, true}} {
		if got := r.fresh(test.clock, test.ltime, test.id); got != test.want {
			t.Errorf("%+v: got %v", test, got)
		}
	}
}

// Who holds a member down doesn't vouch for its return.
func TestHoldDown_IsTold(t *testing.T) {
	b := newBook(t, 3)
	told := func() string {
		b.Publish()
		var names []string
		for _, d := range b.Table().PushPull(b.now).Gone {
			names = append(names, d.Name)
		}
		return strings.Join(names, " ")
	}
	b.die("n0")
	b.pass(2 * time.Second)
	for i, want := range []string{"n0", "n0", ""} {
		if got := told(); got != want {
			t.Errorf("%d: told %q, want %q", i, got, want)
		}
		if i == 0 {
			b.rise("n0")
		}
		b.pass(DefaultHoldDown/2 + time.Second)
	}
}

// A host that was away while another came back takes the word of those who saw it, and
// holds down only whom they don't have alive either.
func TestHoldDown_OfAReturnWhileThisHostWasAway(t *testing.T) {
	for _, tt := range []struct {
		others PushPull
		life   uint64 // of this process; the other one's is 7
		after  time.Duration
	}{
		{PushPull{From: "n2"}, 8, 100 * time.Millisecond},
		{PushPull{From: "n2"}, 6, DefaultHoldDown},
		{PushPull{From: "n0"}, 8, DefaultHoldDown},
		{PushPull{From: "n2", Gone: []Departed{{Node: Node{Name: "n0", ID: "id0"}, Status: Failed}}}, 8, DefaultHoldDown},
	} {
		b := newBook(t, 3)
		b.die("n0")
		b.pass(5 * time.Second)
		b.is("n0", Failed)
		kept := b.Snapshot()

		again := &book{t: t, now: b.now, silent: make(map[string]bool)}
		cfg := standard
		cfg.Self.Life = tt.life
		again.Machine = New(again.now, cfg)
		again.Load(kept)
		for i := range 3 {
			again.Alive(again.now, b.node(i))
		}
		again.Merge(again.now, tt.others)
		again.pass(tt.after - 2*turn)
		if tt.after > time.Second {
			again.is("n0", Failed)
		}
		again.pass(6 * turn)
		again.is("n0", Alive)
	}
}

// Who began anew and met nobody who knows the others is told of them by some who hear of
// its new life, in a large cluster by few.
func TestRestart_IsCalled(t *testing.T) {
	const rounds = 300
	for members, want := range map[int][2]int{3: {rounds, rounds}, 400: {0, 20}} {
		b := newBook(t, members)
		n, called := b.node(1), 0
		for range rounds {
			b.Updated(b.now, n)
			if syncs := b.Publish().Syncs; len(syncs) != 0 {
				t.Fatalf("a member of the same life is called: %v", syncs)
			}
			n.Life++
			b.Updated(b.now, n)
			called += len(b.Publish().Syncs)
		}
		if called < want[0] || called > want[1] {
			t.Errorf("one of %d members began anew %d times and was called %d times, want %v", members, rounds, called, want)
		}
	}
}
