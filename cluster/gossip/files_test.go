package gossip

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func TestKeyring_IsKeptAsConsulKeepsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "serf", "local.keyring")
	a, b, c := bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 24), bytes.Repeat([]byte{3}, 32)
	k, err := OpenKeyring(path, a)
	if err != nil {
		t.Fatal(err)
	}
	_, changed := k.Keys()
	for _, err := range []error{k.Install(b), k.Install(b), k.Use(b), k.Install(c), k.Remove(a)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-changed:
	default:
		t.Error("not told of the change")
	}
	for what, err := range map[string]error{"primary removed": k.Remove(b), "unknown used": k.Use(a), "odd size": k.Install([]byte("short"))} {
		if err == nil {
			t.Error(what)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	k, err = OpenKeyring(path, a)
	if err != nil {
		t.Fatal(err)
	}
	if keys, _ := k.Keys(); !reflect.DeepEqual(keys, [][]byte{b, c}) || !strings.Contains(k.Notice(), "was removed") {
		t.Errorf("a removed key came back: %x, %q", keys, k.Notice())
	}
	if err := k.Install(a); err != nil { // by command it can
		t.Fatal(err)
	}
	if k, err = OpenKeyring(path, a); err != nil || k.Notice() != "" {
		t.Errorf("%v, %q", err, k.Notice())
	}
	if keys, _ := k.Keys(); !reflect.DeepEqual(keys, [][]byte{b, c, a}) {
		t.Errorf("got %x", keys)
	}
	if err := os.WriteFile(path, []byte("[\"x\"]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeyring(path, a); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if keys, _ := (*Keyring)(nil).Keys(); keys != nil {
		t.Error("a nil ring has keys")
	}
}

// A key that was mistyped at the first start must not stay for ever; one that others were met with must.
func TestKeyring_GivesWayUntilItHasMetSomebody(t *testing.T) {
	dir := t.TempDir()
	slip, key, other := bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 16), bytes.Repeat([]byte{3}, 16)
	path := filepath.Join(dir, "local.keyring")
	for _, step := range []struct {
		configured []byte
		want       [][]byte
		notice     string
		meets      bool
	}{
		{slip, [][]byte{slip}, "", false},
		{slip, [][]byte{slip}, "", false},
		{key, [][]byte{key}, "gives way", true},
		{other, [][]byte{key, other}, "", false},
		{slip, [][]byte{key, other, slip}, "", false},
	} {
		k, err := OpenKeyring(path, step.configured)
		if err != nil {
			t.Fatal(err)
		}
		if keys, _ := k.Keys(); !reflect.DeepEqual(keys, step.want) || !strings.Contains(k.Notice(), step.notice) || step.notice == "" && k.Notice() != "" {
			t.Errorf("configured %x: got %x, %q", step.configured, keys, k.Notice())
		}
		if step.meets {
			if err := k.SetMet(); err != nil {
				t.Fatal(err)
			}
		}
	}
	// One of Consul's has a past that nobody knows.
	consuls := filepath.Join(dir, "consul")
	if err := os.WriteFile(consuls, []byte(`["AQEBAQEBAQEBAQEBAQEBAQ=="]`), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKeyring(consuls, key)
	if err != nil {
		t.Fatal(err)
	}
	if keys, _ := k.Keys(); !reflect.DeepEqual(keys, [][]byte{slip, key}) {
		t.Errorf("got %x", keys)
	}
	if err := k.Remove(key); err != nil {
		t.Fatal(err)
	}
	if k, err = OpenKeyring(consuls, key); err != nil {
		t.Fatal(err)
	}
	if keys, _ := k.Keys(); !reflect.DeepEqual(keys, [][]byte{slip}) {
		t.Errorf("got %x", keys)
	}
}

// Hosts that were away when a key was removed drop it when they hear of it; one
// that has no other keeps it and says so; what was installed again later stays.
func TestKeyring_LearnsWhatWasRemoved(t *testing.T) {
	key := func(i byte) []byte { return bytes.Repeat([]byte{i}, 16) }
	open := func(path string, keys ...[]byte) *Keyring {
		k, err := OpenKeyring(path, keys[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys[1:] {
			if err := k.Install(key); err != nil {
				t.Fatal(err)
			}
		}
		return k
	}
	learn := func(k, from *Keyring, want int, wantStuck bool, has ...[]byte) {
		t.Helper()
		orders, ok := decodeOrders(from.orders())
		dropped, stuck, err := k.learn(orders)
		if keys, _ := k.Keys(); !ok || err != nil || len(dropped) != want || stuck != wantStuck || !reflect.DeepEqual(keys, has) {
			t.Errorf("dropped %x, stuck %v, error %v, has %x", dropped, stuck, err, keys)
		}
	}
	path := filepath.Join(t.TempDir(), "local.keyring")
	there, away, only := open("", key(2), key(1)), open(path, key(1), key(2)), open("", key(1))
	learn(away, there, 0, false, key(1), key(2))
	if err := there.Remove(key(1)); err != nil {
		t.Fatal(err)
	}
	learn(away, there, 1, false, key(2)) // it was its primary
	learn(away, there, 0, false, key(2))
	learn(only, there, 0, true, key(1))
	learn(only, there, 0, false, key(1)) // said once
	if again := open(path, key(1)); again.Notice() == "" {
		t.Error("the removed key is taken from the configuration again")
	}
	if err := there.Install(key(1)); err != nil {
		t.Fatal(err)
	}
	if err := away.Install(key(1)); err != nil { // by the same command
		t.Fatal(err)
	}
	learn(away, there, 0, false, key(2), key(1))
	learn(there, away, 0, false, key(2), key(1))
	learn(away, only, 0, false, key(2), key(1)) // knows the earlier removal alone
	learn(only, there, 0, false, key(1))
	if err := only.Install(key(3)); err != nil {
		t.Fatal(err)
	}
	learn(only, away, 0, false, key(1), key(3))
}

func TestKeyring_MemberlistsRingFollows(t *testing.T) {
	ring, err := memberlist.NewKeyring(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	key := func(i byte) []byte { return bytes.Repeat([]byte{i}, 16) }
	for _, keys := range [][][]byte{{}, {key(1)}, {key(1), key(2), key(3)}, {key(3), key(1), key(2)}, {key(3), key(2)}, {key(4)}} {
		if err := mirror(ring, keys); err != nil {
			t.Fatal(err)
		}
		have := ring.GetKeys()
		if len(have) != len(keys) || len(keys) > 0 && !bytes.Equal(have[0], keys[0]) {
			t.Errorf("got %x, want %x", have, keys)
		}
	}
}

func TestSnapshot_DamagedIsSetAside(t *testing.T) {
	dir := t.TempDir()
	for _, data := range []string{"", "{", `{"Version":9}`, `{"Version":1,"Members":[{"Name":"x"}]}`} {
		if err := os.WriteFile(filepath.Join(dir, snapshotFile), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		_, aside, err := readSnapshot(dir)
		if err == nil || aside == "" {
			t.Errorf("%q was taken", data)
		}
		if _, err := os.Stat(aside); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := readSnapshot(dir); err != nil {
		t.Errorf("none: %v", err)
	}
}

func FuzzMeta(f *testing.F) {
	b, err := meta{life: 3, tags: map[string]string{"id": "x", "dc": "dc1", "role": "consul"}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil {
			return // longer than memberlist would carry
		}
		if back, err := decodeMeta(again); err != nil || !reflect.DeepEqual(m, back) {
			t.Errorf("got %v, %v, want %v", back, err, m)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add(message{kind: pingMessage, nonce: 1, name: "a", id: "b", from: "c", reply: netip.MustParseAddrPort("10.0.0.1:8301")}.encode())
	f.Add(message{kind: forceMessage, ltime: 9, life: 8, name: "a", id: "b", prune: true}.encode())
	f.Add(message{kind: noticeMessage, name: "a", id: "b", words: "set another node_name"}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			return
		}
		if back, err := decodeMessage(m.encode()); err != nil || back != m {
			t.Errorf("got %+v, %v, want %+v", back, err, m)
		}
	})
}

func FuzzHearsay(f *testing.F) {
	f.Add(hearsay{from: "a", clock: 7, gone: []departed{{name: "b", id: "c", dc: "dc1", life: 4, addr: netip.MustParseAddrPort("[::1]:8301"), status: Failed, ago: time.Hour}}}.encode())
	f.Add(hearsay{}.encode())
	f.Add(append(hearsay{}.encode(), encodeOrders([]keyOrder{{Hash: hashOf(nil), At: 7, Removed: true}})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHearsay(b)
		if err != nil {
			return
		}
		if back, err := decodeHearsay(append(h.encode(), encodeOrders(h.keys)...)); err != nil || !reflect.DeepEqual(back, h) {
			t.Errorf("got %+v, %v, want %+v", back, err, h)
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	f.Add([]byte(`{"Version":1,"Clock":3,"Members":[{"Name":"h2","Addr":"10.0.0.2:8301","Tags":{"id":"x"},"Life":1,"Status":"failed","Since":"2026-11-23T00:00:00Z"}],"Gone":{"y":"2026-11-23T00:00:00Z"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSnapshot(b)
		if err != nil {
			return
		}
		self := &record{}
		self.Name, self.ID = "self", "self-id"
		l := newLedger(self, time.Unix(1e9, 0), time.Hour, time.Hour, standardHolds)
		l.load(time.Unix(1e9, 0), s)
		l.sweep(time.Unix(1e9+60, 0))
		l.step(time.Unix(1e9+60, 0))
		for _, k := range l.keep().Members {
			if _, known := l.byName[k.Name]; !known {
				t.Errorf("keeps %q, which it doesn't know", k.Name)
			}
		}
	})
}

func FuzzKeyring(f *testing.F) {
	f.Add([]byte(`["AQEBAQEBAQEBAQEBAQEBAQ=="]`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseKeyring(b)
		if err != nil {
			return
		}
		ring, err := memberlist.NewKeyring(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := mirror(ring, keys); err != nil || len(ring.GetKeys()) != len(keys) {
			t.Errorf("memberlist takes %d of %d keys: %v", len(ring.GetKeys()), len(keys), err)
		}
	})
}

// FuzzLedger gives the rules whatever may come from others, in any order, and
// looks whether the ledger still agrees with itself.
func FuzzLedger(f *testing.F) {
	f.Add([]byte{0, 1, 2, 0, 2, 2, 3, 1, 4, 9, 5, 1, 6, 1, 7, 1, 8, 1, 9, 1, 10, 20})
	f.Add([]byte{0, 1, 0, 2, 0, 3, 0, 4, 2, 1, 2, 2, 2, 3, 2, 4, 10, 40, 0, 1, 10, 250})
	f.Fuzz(func(t *testing.T, script []byte) {
		b := newBook(t, 4)
		for ; len(script) >= 2; script = script[2:] {
			i := int(script[1] % 6)
			n, name, id := b.node(i), b.node(i).name, b.node(i).meta.tags[tagID]
			if script[1]&0x40 != 0 {
				n.meta = meta{life: uint64(script[1]), tags: map[string]string{tagID: b.node(int(script[1]>>3) % 6).meta.tags[tagID]}}
			}
			if script[1]&0x80 != 0 {
				n.addr = b.node(9).addr
			}
			m := message{nonce: uint64(script[1]), ltime: uint64(script[1] >> 2), life: 7, name: name, id: id, from: "n1", prune: script[1]&0x20 != 0}
			switch script[0] % 12 {
			case 0:
				b.joined(b.now, n)
			case 1:
				b.updated(b.now, n)
			case 2:
				b.silent[name] = true
				b.left(b.now, name, "n2")
			case 3:
				delete(b.silent, name)
			case 4:
				b.contested(b.now, n)
			case 5:
				m.kind = leaveMessage
				b.intent(b.now, m)
			case 6:
				m.kind = forceMessage
				b.intent(b.now, m)
			case 7:
				m.kind = doubtMessage
				b.intent(b.now, m)
			case 8:
				b.refused(b.now, id)
			case 9:
				b.heard(b.now, hearsay{from: "n3", clock: 9, gone: []departed{{name: name, id: id, life: 7, addr: n.addr, status: Failed + Status(script[1]>>7), ago: time.Minute}}})
			case 10:
				b.pass(time.Duration(script[1]) * busyTurn)
			case 11:
				b.sweep(b.now)
				b.confirm(b.now, id)
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
		if r.Status == Failed && b.brake.on && b.brake.held[r] {
			b.t.Fatalf("%s is out though the brake holds it", name)
		}
		if b.gone[r.ID] != (time.Time{}) && r.Status != Left {
			b.t.Fatalf("%s counts as gone, and is %v", name, r.Status)
		}
	}
	if len(b.byID) != len(b.byName) {
		b.t.Fatalf("%d IDs for %d names", len(b.byID), len(b.byName))
	}
	for r := range b.brake.held {
		if b.byName[r.Name] != r {
			b.t.Fatalf("the brake holds %s, which is gone", r.Name)
		}
	}
}
