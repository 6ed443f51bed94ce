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

	"meibo/cluster/membership"
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
	b, err := encodeMeta(3, map[string]string{"id": "x", "dc": "dc1", "role": "consul"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(b))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		life, tags, err := decodeMeta(b)
		if err != nil {
			return
		}
		again, err := encodeMeta(life, tags)
		if err != nil {
			return // longer than memberlist would carry
		}
		if life2, tags2, err := decodeMeta([]byte(again)); err != nil || life2 != life || !reflect.DeepEqual(tags, tags2) {
			t.Errorf("got %v, %v, %v, want %v, %v", life2, tags2, err, life, tags)
		}
	})
}

func FuzzMessage(f *testing.F) {
	for _, m := range []membership.Message{
		{Kind: membership.MessagePing, Nonce: 1, Name: "a", ID: "b", From: "c", Reply: netip.MustParseAddrPort("10.0.0.1:8301")},
		{Kind: membership.MessageForce, LTime: 9, Life: 8, Name: "a", ID: "b", Prune: true},
		{Kind: membership.MessageNotice, Name: "a", ID: "b", Text: "set another node_name"},
	} {
		f.Add(encodeMessage(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			return
		}
		if back, err := decodeMessage(encodeMessage(m)); err != nil || back != m {
			t.Errorf("got %+v, %v, want %+v", back, err, m)
		}
	})
}

func FuzzPushPull(f *testing.F) {
	gone := membership.Departed{Status: membership.Failed, Ago: time.Hour}
	gone.Name, gone.ID, gone.Datacenter, gone.Life, gone.Addr, gone.Port = "b", "c", "dc1", 4, netip.IPv6Loopback(), 8301
	f.Add(encodePushPull(membership.PushPull{From: "a", Clock: 7, Gone: []membership.Departed{gone}}))
	f.Add(encodePushPull(membership.PushPull{}))
	f.Add(append(encodePushPull(membership.PushPull{}), encodeOrders([]keyOrder{{Hash: hashOf(nil), At: 7, Removed: true}})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, orders, err := decodePushPull(b)
		if err != nil {
			return
		}
		back, orders2, err := decodePushPull(append(encodePushPull(s), encodeOrders(orders)...))
		if err != nil || !reflect.DeepEqual(back, s) || !reflect.DeepEqual(orders, orders2) {
			t.Errorf("got %+v, %v, %v, want %+v, %v", back, orders2, err, s, orders)
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
		at := time.Unix(1e9, 0)
		m := membership.New(at, membership.Config{Self: membership.Node{Name: "self", ID: "self-id"}, ReconnectTimeout: time.Hour, TombstoneTimeout: time.Hour})
		m.Load(s)
		m.Sweep(at.Add(time.Minute))
		m.Step(at.Add(time.Minute))
		m.Publish()
		for _, k := range m.Snapshot().Members {
			if m.Table().ByName(k.Name) == nil {
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
