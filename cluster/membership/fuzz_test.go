package membership

import (
	"testing"
	"time"
)

// FuzzMachine gives the rules whatever may come from others, in any order, and
// looks whether the machine still agrees with itself.
func FuzzMachine(f *testing.F) {
	f.Add([]byte{0, 1, 2, 0, 2, 2, 3, 1, 4, 9, 5, 1, 6, 1, 7, 1, 8, 1, 9, 1, 10, 20})
	f.Add([]byte{0, 1, 0, 2, 0, 3, 0, 4, 2, 1, 2, 2, 2, 3, 2, 4, 10, 40, 0, 1, 10, 250})
	f.Add([]byte{9, 5, 12, 29, 10, 20, 13, 8, 10, 40, 12, 11, 13, 1, 11, 3, 10, 99})
	f.Fuzz(func(t *testing.T, script []byte) {
		b := newBook(t, 4)
		for ; len(script) >= 2; script = script[2:] {
			i := int(script[1] % 6)
			n, name, id := b.node(i), b.node(i).Name, b.node(i).ID
			if script[1]&0x40 != 0 {
				n.Life, n.ID = uint64(script[1]), b.node(int(script[1]>>3)%6).ID
				n.Tags = map[string]string{TagID: n.ID}
			}
			if script[1]&0x80 != 0 {
				n.Addr = b.node(9).Addr
			}
			m := Message{Nonce: uint64(script[1]), LTime: uint64(script[1] >> 2), Life: 7, Name: name, ID: id, From: "n1", Prune: script[1]&0x20 != 0}
			switch script[0] % 14 {
			case 0:
				b.Alive(b.now, n)
			case 1:
				b.Updated(b.now, n)
			case 2:
				b.silent[name] = true
				b.Dead(b.now, name, "n2")
			case 3:
				delete(b.silent, name)
			case 4:
				b.Conflict(b.now, n)
			case 5:
				m.Kind = MessageLeave
				b.intent(b.now, m)
			case 6:
				m.Kind = MessageForce
				b.intent(b.now, m)
			case 7:
				m.Kind = MessageSuspect
				b.intent(b.now, m)
			case 8:
				b.LinkRefused(b.now, id)
			case 9:
				b.Merge(b.now, PushPull{From: "n3", Clock: 9, Gone: []Departed{{Node: n, Status: Failed + Status(script[1]>>7), Ago: time.Minute}}})
			case 10:
				b.pass(time.Duration(script[1]) * turn)
			case 11:
				b.Sweep(b.now)
				b.Confirm(b.now, id)
			case 12:
				b.Restore([]Life{{ID: id, Name: name, Status: Status(script[1]>>3) % 5, Since: b.now}})
			case 13:
				b.Resync(b.now, []Node{n, b.node(int(script[1]>>3) % 6)})
			}
			b.agrees()
		}
	})
}

// agrees checks what always holds.
func (b *book) agrees() {
	b.t.Helper()
	for name, r := range b.byName {
		if r.Name != name || b.byID[r.ID] != r {
			b.t.Fatalf("%q is listed as %q, and by ID as %v", r.Name, name, b.byID[r.ID])
		}
		if r.dead && r.Status != Failed && r.Status != Suspect || r.Status == Failed && !r.dead {
			b.t.Fatalf("%s: dead %v, status %v", name, r.dead, r.Status)
		}
		if r.Status == Failed && b.guard.on && b.guard.protected[r] {
			b.t.Fatalf("%s is out though the guard protects it", name)
		}
		if b.restored[r.ID].Status == Left && r.Status != Left {
			b.t.Fatalf("%s counts as gone, and is %v", name, r.Status)
		}
	}
	if len(b.byID) != len(b.byName) {
		b.t.Fatalf("%d IDs for %d names", len(b.byID), len(b.byName))
	}
	sends := b.Publish().Sends
	b.want.Sends = sends // for pass
	if what := b.Table().agrees(b.Machine); what != "" {
		b.t.Fatalf("the table shows %s", what)
	}
	for r := range b.guard.protected {
		if b.byName[r.Name] != r {
			b.t.Fatalf("the guard protects %s, which is gone", r.Name)
		}
	}
}
