package membership

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// agrees checks that the table shows the members as they are, in each order.
func (t *Table) agrees(m *Machine) (what string) {
	shown := t.Members()
	if len(shown) != len(m.byName)+1 || t.Self().Name != m.self.Name {
		return "another number of members"
	}
	for i, list := range t.members {
		if len(list) != len(shown) || !slices.IsSortedFunc(list, compare[i]) {
			return "an order that is none"
		}
	}
	for name, r := range m.byName {
		one := r.Member
		one.RTT = 0
		for _, s := range []*Member{t.ByName(name), t.ByID(r.ID)} {
			if s == nil {
				return name + " is missing"
			}
			copied := *s
			copied.RTT = 0 // of a lately answered ping
			if !reflect.DeepEqual(copied, one) {
				return name + " is shown otherwise"
			}
		}
		if t.Life(r.ID) != m.life(r.ID) || !slices.Contains(t.Role(r.Tags[TagRole]), t.ByName(name)) {
			return name + " has another life or role"
		}
	}
	for id := range m.restored {
		if t.Life(id) != m.life(id) {
			return id + " has another life"
		}
	}
	if t.Guarded() != m.guard.on || !reflect.DeepEqual(t.lives, m.restored) && len(t.lives)+len(m.restored) > 0 {
		return "another guard, or other lives"
	}
	return ""
}

func names(list []*Member) string {
	var out []string
	for _, m := range list {
		out = append(out, m.Name)
	}
	return strings.Join(out, " ")
}

func TestTable_IsNeverChangedAndListsByRole(t *testing.T) {
	b := newBook(t, 0)
	server := func(i int) Node {
		n := b.node(i)
		n.Tags = map[string]string{TagID: n.ID, TagRole: "consul"}
		return n
	}
	none := b.Table()
	for _, n := range []Node{b.node(3), server(2), server(1), b.node(0)} {
		b.Alive(b.now, n)
	}
	b.Publish()
	first := b.Table()
	if names(none.Members()) != "self" || names(first.Members()) != "n0 n1 n2 n3 self" || names(first.Role("consul")) != "n1 n2" || names(first.Role("")) != "n0 n3 self" || len(first.Role("x")) != 0 {
		t.Errorf("got %q, then %q, servers %q", names(none.Members()), names(first.Members()), names(first.Role("consul")))
	}
	select {
	case <-none.Changed():
	default:
		t.Error("nobody was told that there is another table")
	}
	b.Alive(b.now, server(3))
	renamed := server(1)
	renamed.Name, renamed.Life = "a", 8
	b.Alive(b.now, renamed)
	b.die("n2")
	b.pass(time.Second)
	b.ForceLeave(b.now, "n2", true)
	b.Publish()
	if now := b.Table(); names(now.Role("consul")) != "a n3" || now.Life("id2") != Left || now.ByName("n1") != nil {
		t.Errorf("then servers are %q", names(now.Role("consul")))
	}
	if names(first.Role("consul")) != "n1 n2" || first.ByName("n2").Status != Alive || first.Life("id2") != Alive {
		t.Errorf("the former table says %q", names(first.Role("consul")))
	}
}

// A round trip that is measured again is no news; the first one is there at once.
func TestTable_RoundTripsWakeNobody(t *testing.T) {
	b := newBook(t, 2)
	b.pass(2 * time.Second)
	changed := b.Table().Changed()
	for range 20 {
		b.Acked(b.now, "n0", b.byName["n0"].At(), 3*time.Millisecond)
		b.pass(time.Second)
	}
	b.Sweep(b.now)
	b.Publish()
	if got := b.Table().ByName("n0").RTT; got != b.byName["n0"].RTT {
		t.Errorf("round trip %v", got)
	}
	select {
	case <-changed:
		t.Error("woken")
	default:
	}
}

// What is known of hosts that are no members is bounded, in number and time.
func TestTable_LivesShrink(t *testing.T) {
	b := newBook(t, 0)
	many := make([]Life, maxRestored+5)
	for i := range many {
		many[i] = Life{ID: b.node(i).ID, Status: Left, Since: b.now}
	}
	b.Restore(many)
	b.Publish()
	if n := len(b.Table().Lives()); n != maxRestored+1 {
		t.Errorf("%d lives", n)
	}
	b.Alive(b.now, b.node(9))
	b.now = b.now.Add(restoredKept + time.Hour)
	b.Sweep(b.now)
	b.Publish()
	if n := len(b.Table().Lives()); n != 2 || len(b.Table().lives) != 0 {
		t.Errorf("%d lives after a month", n)
	}
}

// A table without gossip tells what is told of lives, and nothing of members.
func TestTable_OfNobodyKnowsLives(t *testing.T) {
	var none Table
	told := none.Restored([]Life{{ID: "a", Status: Failed}})
	again := told.Restored([]Life{{ID: "a", Status: Alive}, {ID: "b", Status: Left}})
	if none.Life("a") != NeverSeen || told.Life("a") != Failed || again.Life("a") != Failed || again.Life("b") != Left || len(again.Lives()) != 2 || again.Members() != nil {
		t.Errorf("got %v %v %v %v", none.Life("a"), told.Life("a"), again.Life("a"), again.Life("b"))
	}
}
