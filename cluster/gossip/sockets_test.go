package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meibo/cluster/clustertest/logtest"
)

// onLoopback runs a host on sockets, on an address of its own.
func onLoopback(t *testing.T, i int, edit func(*Config)) *host {
	t.Helper()
	cfg := Config{ID: id(i), Name: fmt.Sprintf("h%d", i), Datacenter: "dc1", Logger: testLogger(t, fmt.Sprintf("h%d", i))}
	cfg.Bind = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 81, 3, byte(i)}), 0)
	edit(&cfg)
	return run(t, cfg)
}

func keyed(t *testing.T, path string, key byte) *Keyring {
	t.Helper()
	k, err := OpenKeyring(path, bytes.Repeat([]byte{key}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSockets_AKeyedClusterMeetsRotatesItsKeyAndKeepsOthersOut(t *testing.T) {
	rings := []*Keyring{keyed(t, filepath.Join(t.TempDir(), "ring"), 1), keyed(t, "", 1), keyed(t, "", 1)}
	first := onLoopback(t, 1, func(c *Config) { c.Keyring = rings[0] })
	join := []string{first.self.At().String()}
	hosts := []*host{first}
	for i := 2; i <= 3; i++ {
		hosts = append(hosts, onLoopback(t, i, func(c *Config) { c.Keyring, c.RetryJoin = rings[i-1], join }))
	}
	within(t, 10*time.Second, "all see all", func() bool { return whole(hosts...) })

	var log logtest.Text
	for name, ring := range map[string]*Keyring{"a wrong key": keyed(t, "", 9), "no key": nil} {
		stranger := onLoopback(t, 9, func(c *Config) {
			c.Keyring, c.Logger = ring, slog.New(slog.NewTextHandler(&log, nil))
		})
		_, err := stranger.Join(t.Context(), join)
		if err == nil || !strings.Contains(err.Error(), join[0]) {
			t.Errorf("%s: got %v", name, err)
		}
		if m := stranger.Members().Members(); len(m) != 1 {
			t.Errorf("%s: learned %v", name, m)
		}
		stranger.stop()
	}

	next := bytes.Repeat([]byte{2}, 16)
	for _, step := range []func(*Keyring) error{
		func(k *Keyring) error { return k.Install(next) },
		func(k *Keyring) error { return k.Use(next) },
		func(k *Keyring) error { return k.Remove(bytes.Repeat([]byte{1}, 32)) },
	} {
		for _, ring := range rings {
			if err := step(ring); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := hosts[1].Ping(t.Context(), "h3"); err != nil {
			t.Error(err)
		}
	}
	late := onLoopback(t, 4, func(c *Config) {
		ring, _ := OpenKeyring("", next)
		c.Keyring, c.RetryJoin = ring, join
	})
	within(t, 10*time.Second, "a host with the new key joins", func() bool { return whole(append(hosts, late)...) })
	if m := hosts[0].Members().Members(); len(m) != 4 {
		t.Errorf("got %v", m)
	}

	// Who was away meanwhile has the removed key still, until it hears that it is none.
	ring := keyed(t, "", 1)
	if err := ring.Install(next); err != nil {
		t.Fatal(err)
	}
	before := len(log.String())
	back := onLoopback(t, 5, func(c *Config) {
		c.Keyring, c.RetryJoin, c.Logger = ring, join, slog.New(slog.NewTextHandler(&log, nil))
	})
	within(t, 10*time.Second, "a host that is back calls in vain at first", func() bool { return strings.Contains(log.String()[before:], "nobody was reached") })
	hosts = append(hosts, late)
	within(t, 10*time.Second, "a host that is back drops the removed key", func() bool {
		_, _ = first.Join(t.Context(), []string{back.self.At().String()})
		keys, _ := ring.Keys()
		return len(keys) == 1 && bytes.Equal(keys[0], next) && strings.Contains(log.String(), "removed here too")
	})
	within(t, 10*time.Second, "and is there", func() bool { return whole(append(hosts, back)...) })
	if text := log.String()[before:]; strings.Contains(text, "stop this host") || strings.Count(text, "level=WARN") > 0 {
		t.Errorf("who has a key that works is told to begin anew, or warned:\n%s", text)
	}
	stranger := onLoopback(t, 9, func(c *Config) { c.Keyring = keyed(t, "", 1) })
	if _, err := stranger.Join(t.Context(), []string{back.self.At().String()}); err == nil || !strings.Contains(err.Error(), "were removed from its keyring") {
		t.Errorf("a newcomer with the removed key: got %v", err)
	}
}

func TestSockets_OnlyTheAllowedGossip(t *testing.T) {
	first := onLoopback(t, 1, func(c *Config) {
		c.Allowed = []netip.Prefix{netip.MustParsePrefix("127.81.3.1/32"), netip.MustParsePrefix("127.81.3.2/32")}
	})
	join := []string{first.self.At().String()}
	second := onLoopback(t, 2, func(c *Config) { c.RetryJoin = join })
	within(t, 10*time.Second, "the allowed one joins", func() bool { return whole(first, second) })
	third := onLoopback(t, 3, func(c *Config) {})
	_, err := third.Join(t.Context(), join)
	if m := first.Members().Members(); len(m) != 2 {
		t.Errorf("took %v (join: %v)", m, err)
	}
}

func TestSockets_ATakenPortIsAnErrorThatNamesIt(t *testing.T) {
	l, err := net.Listen("tcp", "127.81.3.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	if _, err := New(Config{ID: id(1), Name: "h1", Bind: at}); err == nil || !strings.Contains(err.Error(), at.String()) {
		t.Errorf("got %v", err)
	}
}

func TestJoin_AFailureNamesTheAddress(t *testing.T) {
	h := onLoopback(t, 1, func(c *Config) {})
	for given, want := range map[string]string{
		"127.81.3.9:1":               "refused",
		"nobody.invalid.:99999":      "65535",
		"provider=aws tag_key=meibo": "isn't supported",
	} {
		n, err := h.Join(t.Context(), []string{given})
		if n != 0 || err == nil || !strings.Contains(err.Error(), given) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %d, %v", given, n, err)
		}
	}
	if n, err := h.Join(t.Context(), []string{h.self.At().String(), "127.81.3.9:1"}); n != 1 || err != nil {
		t.Errorf("itself: %d, %v", n, err)
	}
}

func TestRetryJoin_ProgramsSayWhom(t *testing.T) {
	first := onLoopback(t, 1, func(*Config) {})
	list := filepath.Join(t.TempDir(), "hosts")
	var log logtest.Text
	second := onLoopback(t, 2, func(c *Config) {
		// One that fails, one that prints nothing at first, one that keeps its output open.
		c.RetryJoinExec = [][]string{{"/bin/sh", "-c", "echo not today >&2; exit 3"}, {"cat", list}, {"/bin/sh", "-c", "sleep 60 & echo 127.81.3.9:1"}}
		c.RetryInterval = 50 * time.Millisecond
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	within(t, 20*time.Second, "what went wrong is said", func() bool {
		return strings.Contains(log.String(), "not today") && strings.Contains(log.String(), "exit status 3") && strings.Contains(log.String(), "No such file")
	})
	if err := os.WriteFile(list, []byte("127.81.3.9:1\n "+first.self.At().String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	within(t, 20*time.Second, "the one it names is joined", func() bool { return whole(first, second) })
	if _, err := first.Join(t.Context(), []string{"exec=cat /etc/passwd"}); err == nil || !strings.Contains(err.Error(), "retry_join") {
		t.Errorf("a program was run for who asked for a join: %v", err)
	}
}

func TestAddresses_AreBounded(t *testing.T) {
	found, err := addresses(t.Context(), []string{"/bin/sh", "-c", "yes 10.0.0.1 | head -c 1000000"})
	if err != nil || len(found) > execOutput/9+1 {
		t.Errorf("%d found, %v", len(found), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := addresses(ctx, []string{"sleep", "60"}); err == nil {
		t.Error("a program outlived who waited for it")
	}
	if _, err := addresses(t.Context(), []string{"true", "secret"}); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	any4 := netip.MustParseAddrPort("0.0.0.0:0")
	for name, cfg := range map[string]Config{
		"no name":              {ID: "x", Bind: any4},
		"no address":           {ID: "x", Name: "y"},
		"nothing to advertise": {ID: "x", Name: "y", Bind: any4},
		"tags that don't fit":  {ID: "x", Name: "y", Bind: netip.MustParseAddrPort("127.0.0.1:0"), Tags: map[string]string{"a": strings.Repeat("b", 600)}},
	} {
		if g, err := New(cfg); err == nil {
			t.Errorf("%s was taken", name)
			g.Close()
		}
	}
	g, err := New(Config{ID: "x", Name: "y", Bind: any4, Advertise: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	if l := g.Members().Self(); l.Port == 0 || l.Addr != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("got %+v", l)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if err := g.Run(context.Background()); err == nil {
		t.Error("ran after Close")
	}
}
