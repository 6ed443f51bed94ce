package fleet

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"meibo/bench/hosttest"
	"meibo/bench/netswitch"
	"meibo/cluster/clustertest/logtest"
	"meibo/cluster/link"
)

// newFleetKey is what fleetKey is replaced by, otherFleetKey is never a key of the fleet.
const (
	newFleetKey   = "YW5vdGhlciBrZXkgZm9yIHRoZSB0ZXN0IGZsZWV0IDE="
	otherFleetKey = "bm90IHRoZSBrZXkgb2YgdGhlIHRlc3QgZmxlZXQgMDA="
)

// TestFleet_StrangersGetNowhere has hosts without the key, with a wrong one and with one that was removed try to join, to
// read and to open links, before and after the keys of the running fleet are rotated.
func TestFleet_StrangersGetNowhere(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 2)
		keyless, wrong := f.stranger("x1", 31, "none"), f.stranger("x2", 32, otherFleetKey)
		f.start()
		keyless.start()
		wrong.start()
		f.nowhere(keyless, wrong)
		f.refusesLinks(keyless, "", otherFleetKey)

		w := newWriter(f)
		took := f.rotate(fleetKey, newFleetKey)
		w.end(t)
		t.Logf("rotated from one key to another on %d hosts in %v", len(f.hosts), took.Round(time.Millisecond))
		f.refusesLinks(keyless, fleetKey)
		if err := f.dials(keyless, newFleetKey, f.servers()[0], "meibo-feed/1"); err != nil {
			t.Errorf("a link with the new key: %v", err)
		}
		old := f.stranger("x3", 33, fleetKey)
		old.start()
		f.nowhere(keyless, wrong, old)

		// The keyring on disk goes before the key in the configuration, which nobody has changed yet.
		for _, h := range []*fleetHost{f.agents()[0], f.servers()[1]} {
			f.restart(h)
		}
		f.whole()
		f.client.settled()
		f.client.check()
	})
}

// TestFleet_WithoutKeyOnlyInWords has hosts that say that there shall be no key be a cluster, and one that says nothing
// refuse to start.
func TestFleet_WithoutKeyOnlyInWords(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		f := newFleet(t, 1, 2)
		for _, h := range f.hosts {
			h.key = "none"
		}
		mute := f.stranger("x1", 31, "")
		f.start()
		mute.start()
		if code := mute.proc.Exit(t); code == 0 {
			t.Error("a host without a key that is to join other machines ended with 0")
		}
		for _, part := range []string{"retry_join", "encrypt", "meibo keygen", `encrypt = "none"`} {
			if !strings.Contains(mute.log(), part) {
				t.Errorf("its refusal doesn't name %s:\n%s", part, mute.log())
			}
		}
		f.client.settled()
		f.client.soak(time.Second)
		f.client.check()
	})
}

// stranger is a host on the fleet's network that is no part of it.
func (f *fleet) stranger(name string, n byte, key string) *fleetHost {
	f.t.Helper()
	h := &fleetHost{fleet: f, n: n, name: name, key: key, do: make(chan func()), dir: f.t.TempDir()}
	h.live(f.t)
	if !hosttest.Verifying() {
		h.http.Timeout = 2 * time.Second // nobody comes who could answer
	}
	return h
}

// nowhere waits until the strangers and the fleet have told one another that their keys differ, and then judges what
// strangers can do.
func (f *fleet) nowhere(strangers ...*fleetHost) {
	f.t.Helper()
	var tries sync.WaitGroup
	for _, x := range strangers {
		hosttest.Eventually(f.t, "a word about the key on both sides", func() error { return f.saidOnBothSides(x) })
		var members []struct{ Name string }
		if err := x.get("/v1/agent/members", &members); err != nil || len(members) != 1 || members[0].Name != x.name {
			f.t.Errorf("%s sees the members %v, %v", x.name, members, err)
		}
		for _, path := range []string{"/v1/catalog/nodes", "/v1/catalog/services?stale", "/v1/health/service/web", "/v1/catalog/node/a1?consistent"} {
			tries.Go(func() { // each is held for a while, in case that a server comes
				var got any
				if err := x.get(path, &got); err == nil && strings.Contains(fmt.Sprint(got), "10.77.0.") {
					f.t.Errorf("%s reads %s: %v", x.name, path, got)
				}
			})
		}
		tries.Go(func() {
			if err := register(x, "by-a-stranger", "192.0.2.66"); err == nil {
				f.t.Errorf("%s could write to a catalog", x.name)
			}
		})
		if got := x.lookup("web"); got.Err == nil {
			f.t.Errorf("%s resolves web.service.consul to %v", x.name, got.Addrs)
		}
	}
	tries.Wait()
	for _, h := range f.hosts {
		var members []struct{ Name string }
		hosttest.Must(f.t, h.get("/v1/agent/members", &members))
		if len(members) != len(f.hosts) {
			f.t.Errorf("%s has the members %v", h.name, members)
		}
	}
	if got, err := readConsistent(f.hosts[0], "by-a-stranger"); err != nil || got != "" {
		f.t.Errorf("a stranger's node is in the catalog: %q, %v", got, err)
	}
}

// saidOnBothSides reports where nobody has warned of keys that differ.
func (f *fleet) saidOnBothSides(x *fleetHost) error {
	if !warnsOf(x.log(), "key") {
		return fmt.Errorf("%s says nothing:\n%s", x.name, x.log())
	}
	for _, h := range f.hosts {
		if warnsOf(h.log(), "key", x.addr()+":") {
			return nil
		}
	}
	return fmt.Errorf("no host of the fleet says anything of %s", x.name)
}

// warnsOf reports whether there is a line of warning or worse with all the parts.
func warnsOf(log string, parts ...string) bool {
next:
	for line := range strings.Lines(log) {
		if strings.Contains(line, "level=DEBUG") || strings.Contains(line, "level=INFO") {
			continue
		}
		for _, part := range parts {
			if !strings.Contains(line, part) {
				continue next
			}
		}
		return true
	}
	return false
}

// refusesLinks tries every passenger of every kind of host with the keys, "" for none, from x.
func (f *fleet) refusesLinks(x *fleetHost, keys ...string) {
	f.t.Helper()
	for _, key := range keys {
		for h, passengers := range map[*fleetHost][]link.Protocol{
			f.servers()[0]: {"meibo-raft/1", "meibo-feed/1", "meibo-view/2", link.HTTP},
			f.agents()[0]:  {"meibo-view/2", link.HTTP},
		} {
			for _, p := range passengers {
				if err := f.dials(x, key, h, p); !errors.Is(err, link.ErrKey) {
					f.t.Errorf("%s on %s with the key %q: %v, want that the keys differ", p, h.name, key, err)
				}
			}
			hosttest.Eventually(f.t, "a word about the link on "+h.name, func() error {
				if !warnsOf(h.log(), "a host was refused", "key", x.addr()) {
					return errors.New("nothing is said")
				}
				return nil
			})
		}
	}
}

// dials opens a link from one host to another as one who holds that key alone.
func (f *fleet) dials(x *fleetHost, key string, to *fleetHost, p link.Protocol) (err error) {
	f.t.Helper()
	var keys link.Keys
	if key != "" {
		keys = oneKey(key)
	}
	x.inside(func() {
		var l *link.Link
		if l, err = link.New(link.Config{
			Listen: netip.AddrPortFrom(netswitch.HostAddr(x.n), 0), Keys: keys, Logger: slog.New(slog.DiscardHandler),
			Self: link.Peer{ID: "6d616465-2075-7020-6279-207465737473", Name: "made-up", Datacenter: "dc1"},
		}); err != nil {
			return
		}
		defer l.Close()
		ctx, cancel := context.WithTimeout(context.Background(), hosttest.Patience)
		defer cancel()
		conn, dialErr := l.Dial(ctx, to.addr()+":8300", p, "")
		if err = dialErr; err == nil {
			conn.Close()
		}
	})
	return err
}

// oneKey is a ring of one key, in base64.
type oneKey string

// Keys implements link.Keys.
func (k oneKey) Keys() ([][]byte, <-chan struct{}) {
	key, err := base64.StdEncoding.DecodeString(string(k))
	if err != nil {
		panic(err)
	}
	return [][]byte{key}, nil
}

// rotate replaces the fleet's key by the operator's commands, and returns how long that took.
func (f *fleet) rotate(from, to string) time.Duration {
	f.t.Helper()
	begin := time.Now()
	at := f.agents()[0]
	all := fmt.Sprintf("[%d/%d]", len(f.hosts), len(f.hosts))
	step := func(op, key string) {
		f.t.Helper()
		out, err := at.meibo("keyring", op, key)
		if err != nil || !strings.Contains(out, all) {
			f.t.Fatalf("keyring %s: %v\n%s", op, err, out)
		}
	}
	listed := func(key, how string, there bool) {
		f.t.Helper()
		hosttest.Eventually(f.t, "every host's keyring", func() error {
			out, err := at.meibo("keyring", "list")
			if line := lineWith(out, key); err != nil || (line != "") != there || there && !strings.Contains(line, how) {
				return fmt.Errorf("%v\n%s", err, out)
			}
			return nil
		})
	}
	step("install", to)
	listed(to, to+" "+all, true)
	step("use", to)
	listed(to, "primary "+all, true)
	step("remove", from)
	listed(from, "", false)
	return time.Since(begin)
}

func lineWith(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

// meibo runs a command on the host.
// operate runs a command that an operator alone may, over the host's control socket.
func (h *fleetHost) operate(args ...string) {
	h.fleet.t.Helper()
	if out, err := h.meibo(args...); err != nil {
		h.fleet.t.Fatalf("meibo %s on %s: %v\n%s", strings.Join(args, " "), h.name, err, out)
	}
}

func (h *fleetHost) meibo(args ...string) (string, error) {
	bin, err := fleetBinary()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(bin, args...)
	var out logtest.Text
	cmd.Stdout, cmd.Stderr = &out, &out
	h.inside(func() { err = cmd.Start() })
	if err == nil {
		err = cmd.Wait()
	}
	return out.String(), err
}
