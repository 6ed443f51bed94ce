package gossip

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// book is a ledger under test, with a clock of its own and members that answer,
// or don't.
type book struct {
	*ledger
	t      *testing.T
	now    time.Time
	silent map[string]bool
}

func newBook(t *testing.T, others int) *book {
	b := &book{t: t, now: time.Unix(1e9, 0), silent: make(map[string]bool)}
	self := &record{life: 1}
	self.Name, self.ID, self.Addr, self.Status, self.Told = "self", "self-id", address(250).Addr(), Alive, Alive
	b.ledger = newLedger(self, b.now, 72*time.Hour, 24*time.Hour, standardHolds)
	for i := range others {
		b.joined(b.now, b.node(i))
	}
	b.pass(2 * time.Minute)
	return b
}

func (b *book) node(i int) node {
	return node{name: fmt.Sprintf("n%d", i), addr: netip.AddrPortFrom(address(i).Addr(), 1), meta: meta{life: 7, tags: map[string]string{tagID: fmt.Sprintf("id%d", i)}}}
}

// pass lets time go by, in turns of the keeper's; who isn't silent answers.
func (b *book) pass(d time.Duration) {
	for end := b.now.Add(d); b.now.Before(end); b.now = b.now.Add(busyTurn) {
		b.step(b.now)
		for _, p := range b.takeOut().pings {
			if !b.silent[p.name] {
				b.pong(b.now, message{nonce: p.nonce, id: p.id, life: 7}, b.now)
			}
		}
	}
}

// die makes members silent and has gossip say so.
func (b *book) die(names ...string) {
	for _, n := range names {
		b.silent[n] = true
		b.left(b.now, n, "")
	}
}

// wake makes members answer again and has gossip say so.
func (b *book) rise(names ...string) {
	for _, n := range names {
		delete(b.silent, n)
		r := b.byName[n]
		b.joined(b.now, node{name: n, addr: r.at(), meta: meta{life: r.life, tags: map[string]string{tagID: r.ID}}})
	}
}

func (b *book) is(name string, want Status) {
	b.t.Helper()
	if got := b.byName[name].Status; got != want {
		b.t.Errorf("%s is %v, want %v", name, got, want)
	}
}

func TestRule20_AClaimIsSuspicionUntilThreePingsWentUnanswered(t *testing.T) {
	b := newBook(t, 5)
	b.die("n1")
	b.is("n1", Suspect)
	b.pass(claimWindow)
	b.is("n1", Suspect)
	b.pass(2 * busyTurn)
	b.is("n1", Failed)
}

func TestRule20_AMemberThatAnswersStaysAliveAndIsToldDead(t *testing.T) {
	b := newBook(t, 5)
	b.left(b.now, "n1", "n2")
	b.pass(2 * busyTurn)
	b.is("n1", Alive)
	r := b.byName["n1"]
	if r.Told != Failed || r.ToldBy != "n2" || b.counts.refuted != 1 {
		t.Errorf("got %+v, %+v", r.Member, b.counts)
	}
	b.silent["n1"] = true // nobody else watches it by then
	b.pass(verifyEvery + claimWindow + 3*busyTurn)
	b.is("n1", Failed)
}

func TestRule20_ClaimsOfTheLatelyDeadAndAfterAPauseOfOurOwnArePutOff(t *testing.T) {
	b := newBook(t, 5)
	b.die("n2")
	b.pass(time.Second)
	b.rise("n2")
	b.pass(10 * time.Second)
	b.is("n2", Alive)
	b.left(b.now, "n1", "n2")
	b.is("n1", Alive)
	b.stalledUntil(b.now)
	b.left(b.now, "n3", "")
	b.is("n3", Alive)
	if b.counts.ignored != 2 {
		t.Errorf("ignored %d claims, want 2", b.counts.ignored)
	}
}

func TestRule20_APauseOfOurOwnBeginsTheConfirmationAnew(t *testing.T) {
	b := newBook(t, 5)
	b.left(b.now, "n1", "")
	b.step(b.now)
	b.takeOut()                         // the pings go out,
	b.now = b.now.Add(30 * time.Second) // and the process is stopped before the answers are read
	b.stalledUntil(b.now)
	b.pass(time.Second)
	b.is("n1", Alive)
}

func TestRule20_WhoHearsAgainAsksAnewBeforeAnybodyDies(t *testing.T) {
	b := newBook(t, 4)
	for i := range 4 {
		b.silent[fmt.Sprintf("n%d", i)] = true // this host's cable is out
	}
	b.pass(3 * time.Second)
	b.left(b.now, "n1", "")
	b.left(b.now, "n2", "")
	for b.byName["n1"].claim == nil || b.byName["n1"].claim.sent < claimPings {
		b.pass(busyTurn)
	}
	delete(b.silent, "n0") // it is in again, and the answers come one after the other
	delete(b.silent, "n3")
	b.ledger.answered(b.now, b.byName["n0"], 0)
	b.pass(2 * busyTurn)
	delete(b.silent, "n2")
	b.pass(2*claimWindow + 2*busyTurn) // longer than an answer is waited for otherwise
	delete(b.silent, "n1")
	b.pass(5 * time.Second)
	for i := range 4 {
		b.is(fmt.Sprintf("n%d", i), Alive)
		if n := b.byName[fmt.Sprintf("n%d", i)].Flaps; n > 0 {
			t.Errorf("n%d was dead %d times", i, n)
		}
	}
}

var standardHolds = holdLimits{holdFirst, holdMost}

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
				h.flap(at.Add(f), standardHolds)
			}
			back := at.Add(test.back)
			if got := h.until(back, standardHolds).Sub(back).Round(time.Second); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
	var h holddown
	for range 20 {
		h.flap(at, standardHolds)
	}
	if h.hold != holdMost {
		t.Errorf("got %v, want %v", h.hold, holdMost)
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

func TestRule21_Brake(t *testing.T) {
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
			if b.brake.on != test.want {
				t.Fatalf("braking: %v, want %v", b.brake.on, test.want)
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

func TestRule21_TheBrakeEndsWhenHalfAreBack(t *testing.T) {
	b := newBook(t, 9)
	b.die("n0", "n1", "n2", "n3", "n4", "n5")
	b.pass(3 * time.Second)
	b.rise("n0", "n1")
	b.pass(3 * time.Second)
	b.is("n0", Alive) // it never was out
	b.is("n5", Suspect)
	b.rise("n2")
	b.pass(3 * time.Second)
	if b.brake.on {
		t.Error("brakes though half are back")
	}
	b.is("n5", Failed)
	b.pass(time.Minute)
	if b.brake.on {
		t.Error("brakes anew for the same deaths")
	}
}

func TestRule21_AServersWordTakesOutThoseItConfirms(t *testing.T) {
	b := newBook(t, 9)
	b.die("n0", "n1", "n2", "n3", "n4", "n5")
	b.pass(3 * time.Second)
	b.confirm(b.now, "id0")
	b.is("n0", Failed)
	b.is("n1", Suspect)
	b.confirm(b.now, "id1")
	b.confirm(b.now, "id2")
	b.is("n5", Suspect) // asked once more
	b.pass(afterBrake + time.Second)
	b.is("n5", Failed)
	if b.brake.on {
		t.Error("brakes though half are confirmed")
	}
	b.pass(10 * time.Second)
	if b.brake.on {
		t.Error("brakes anew for the same deaths")
	}
}

func TestRule21_WhoHearsNobodyTakesOutNobody(t *testing.T) {
	b := newBook(t, 20)
	for i := range 20 {
		b.silent[fmt.Sprintf("n%d", i)] = true
	}
	b.left(b.now, "n3", "self")
	for range 40 {
		b.pass(500 * time.Millisecond)
		for _, r := range b.byName {
			if r.Status == Failed {
				t.Fatalf("%s is out", r.Name)
			}
		}
	}
	if !b.brake.on {
		t.Error("doesn't brake")
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
				b.left(b.now, fmt.Sprintf("n%d", hosts-1-i), "n0")
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
			if !b.brake.on {
				t.Errorf("%d hosts, %d heard: doesn't brake", hosts, heard)
			}
		}
	}
}

func TestRule21_WhomNobodyAccusesIsBackWhenTheBrakeEnds(t *testing.T) {
	b := newBook(t, 7)
	for i := range 4 {
		b.silent[fmt.Sprintf("n%d", i)] = true
	}
	for i := range 3 { // n3 is only out of this host's reach
		b.left(b.now, fmt.Sprintf("n%d", i), "n6")
	}
	b.pass(3 * time.Second)
	if !b.brake.on {
		t.Fatal("doesn't brake though four of seven are silent")
	}
	b.confirm(b.now, "id0")
	b.confirm(b.now, "id1")
	if b.brake.on {
		t.Fatal("brakes though two of four deaths are confirmed")
	}
	b.pass(4 * time.Second)
	b.is("n2", Failed)
	b.is("n3", Alive)
}

func TestRule21_SomeDeathsAtOnceAreBelieved(t *testing.T) {
	b := newBook(t, 9)
	b.silent["n0"], b.silent["n1"], b.silent["n2"] = true, true, true
	for _, name := range []string{"n0", "n1", "n2"} {
		b.left(b.now, name, "n8")
	}
	b.pass(3 * time.Second)
	for _, name := range []string{"n0", "n1", "n2"} {
		b.is(name, Failed)
	}
	b.is("n3", Alive)
	if b.brake.on {
		t.Error("brakes for three of nine")
	}
}

func TestRule20_WhoIsAskedBesideADeadOneIsNotFoundDead(t *testing.T) {
	b := newBook(t, 9)
	b.silent["n0"], b.silent["n1"] = true, true // n1 is only restarting: nobody accuses it
	b.left(b.now, "n0", "n8")
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
	b.sweep(b.now)
	b.is("n0", Failed)
	b.now = b.now.Add(2 * time.Hour)
	b.sweep(b.now)
	b.is("n0", Left)
	b.now = b.now.Add(25 * time.Hour)
	b.sweep(b.now)
	if b.byName["n0"] != nil || b.life("id0") != Left {
		t.Errorf("got %v, life %v", b.byName["n0"], b.life("id0"))
	}
	if b.life("id7") != NeverSeen {
		t.Error("an unknown host is not never seen")
	}
}

func TestIntent_OneOfAnEarlierLifeOrPlayedAgainSaysNothing(t *testing.T) {
	b := newBook(t, 3)
	old := message{kind: leaveMessage, ltime: 5, nonce: 1, name: "n0", id: "id0", life: 6}
	b.intent(b.now, old)
	b.is("n0", Alive)
	force := message{kind: forceMessage, ltime: 6, nonce: 2, name: "n0", id: "id0", life: 7}
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
	force.nonce = 3
	b.intent(b.now, force) // not seen, but older than its return
	b.is("n0", Failed)
}

func TestIntent_ForceBeforeTheDeathIsFoundCountsThen(t *testing.T) {
	b := newBook(t, 3)
	b.intent(b.now, message{kind: forceMessage, ltime: 6, nonce: 2, name: "n0", id: "id0", life: 7})
	b.is("n0", Alive)
	b.die("n0")
	b.pass(time.Second)
	b.is("n0", Left)

	b.intent(b.now, message{kind: forceMessage, ltime: 7, nonce: 3, name: "n1", id: "id1", life: 7})
	b.silent["n1"] = true
	b.pass(forceKept)
	b.die("n1")
	b.pass(time.Second)
	b.is("n1", Failed)
}

// Who lived when it was given fails like any other when it dies seconds later.
func TestIntent_ForceOfTheLivingIsRefutedByTheNextSignOfLife(t *testing.T) {
	b := newBook(t, 5)
	b.intent(b.now, message{kind: forceMessage, ltime: 6, nonce: 2, name: "n0", id: "id0", life: 7})
	b.heard(b.now, hearsay{from: "n3", clock: 7, gone: []departed{{name: "n1", id: "id1", life: 7, addr: b.node(1).addr, status: Left}}})
	for _, n := range []string{"n0", "n1"} {
		b.pass(2 * time.Second)
		b.is(n, Alive)
		b.die(n)
		b.pass(time.Second)
		b.is(n, Failed)
	}
}

func TestIntent_RingTakesEachOnceAndNoOldOnes(t *testing.T) {
	var r ring
	for _, test := range []struct {
		clock, ltime, id uint64
		want             bool
	}{{0, 1, 1, true}, {1, 1, 1, false}, {1, 1, 2, true}, {600, 1, 3, false}, {600, 600, 1, true}, {600, 88, 1, false}, {1100, 1000, 9, true}} {
		if got := r.fresh(test.clock, test.ltime, test.id); got != test.want {
			t.Errorf("%+v: got %v", test, got)
		}
	}
}
