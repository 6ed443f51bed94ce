package resolvconf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse_ResolvConf5(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       File
		servers    string
	}{
		{"the usual file", "# made by hand\n; too\nsearch example.com corp.example\nnameserver 192.0.2.1\nnameserver 2001:db8::1\noptions edns0 trust-ad\n",
			File{Search: []string{"example.com", "corp.example"}, Options: []string{"edns0", "trust-ad"}}, "192.0.2.1 2001:db8::1"},
		{"blanks, tabs, carriage returns and comments after values", "nameserver\t192.0.2.1 # first\r\n   nameserver 192.0.2.2;\nnameserver 192.0.2.3 ; third\n",
			File{Faults: []string{`line 2: "192.0.2.2;" is no IP address`}}, "192.0.2.1 192.0.2.3"},
		{"the last of search and domain counts", "search a b\ndomain c d\n", File{Search: []string{"c"}}, ""},
		{"options add up", "options ndots:2\noptions rotate\n", File{Options: []string{"ndots:2", "rotate"}}, ""},
		{"a zone, a mapped address, a server twice", "nameserver fe80::1%eth0\nnameserver ::ffff:192.0.2.1\nnameserver 192.0.2.1\n", File{}, "fe80::1%eth0 192.0.2.1"},
		{"lines that make no sense", "nameserver\nnameserver dns.example\nnamserver 192.0.2.1\nsortlist 192.0.2.0\n",
			File{Faults: []string{"line 1: nameserver without an address", `line 2: "dns.example" is no IP address`, `line 3: unknown keyword "namserver"`}}, ""},
		{"nothing", "", File{}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Parse(tc.text)
			var servers []string
			for _, s := range got.Servers {
				servers = append(servers, s.String())
			}
			if s := strings.Join(servers, " "); s != tc.servers {
				t.Errorf("servers %q, want %q", s, tc.servers)
			}
			got.Servers = nil
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// files makes a configuration over files in a directory; "" leaves a file out.
func files(t *testing.T, main, resolved, manager string) Config {
	t.Helper()
	dir := t.TempDir()
	c := Config{
		Path:      filepath.Join(dir, "resolv.conf"),
		Elsewhere: []string{filepath.Join(dir, "resolved"), filepath.Join(dir, "manager")},
		LocalAddrs: func() []netip.Addr {
			return []netip.Addr{netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("fd00::100")}
		},
	}
	for path, text := range map[string]string{c.Path: main, c.Elsewhere[0]: resolved, c.Elsewhere[1]: manager} {
		if text != "" {
			write(t, path, text)
		}
	}
	return c
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFind_TheTrueUpstreams(t *testing.T) {
	self := func(list ...string) (out []netip.AddrPort) {
		for _, s := range list {
			out = append(out, netip.MustParseAddrPort(s))
		}
		return out
	}
	const public = "nameserver 192.0.2.1\nnameserver 192.0.2.2\n"
	const stub = "nameserver 127.0.0.53\noptions edns0\nsearch lan\n"
	const us = "nameserver 127.0.0.1\n"
	for _, tc := range []struct {
		name                    string
		main, resolved, manager string
		self                    []netip.AddrPort
		want                    string // servers, then the file
	}{
		{"the file itself", public, "nameserver 9.9.9.9\n", "", nil, "192.0.2.1:53 192.0.2.2:53 resolv.conf"},
		{"systemd-resolved behind its stub", stub, public, "", nil, "192.0.2.1:53 192.0.2.2:53 resolved"},
		{"NetworkManager behind a stub", stub, "", public, nil, "192.0.2.1:53 192.0.2.2:53 manager"},
		{"we are in the file", us, "", public, self("127.0.0.1:53"), "192.0.2.1:53 192.0.2.2:53 manager"},
		{"we are first in the file", us + public, "", "", self("127.0.0.1:53"), "192.0.2.1:53 192.0.2.2:53 resolv.conf"},
		{"we are in resolved's file too", us, us + public, "", self("127.0.0.1:53", "[::1]:53"), "192.0.2.1:53 192.0.2.2:53 resolved"},
		{"a container's resolver on loopback", "nameserver 127.0.0.11\n", "", "", self("127.0.0.1:53"), "127.0.0.11:53 resolv.conf"},
		{"dnsmasq on port 53 and we on 8600", us, "", "", self("127.0.0.1:8600"), "127.0.0.1:53 resolv.conf"},
		{"our own address of an interface", "nameserver 192.0.2.100\nnameserver 192.0.2.1\n", "", "", self("192.0.2.100:53"), "192.0.2.1:53 resolv.conf"},
		{"we listen on all addresses", "nameserver 192.0.2.100\nnameserver fd00::100\nnameserver 127.0.0.53\nnameserver 192.0.2.1\n", "", "", self("[::]:53"), "192.0.2.1:53 resolv.conf"},
		{"another resolver on loopback beside us and a server elsewhere", "nameserver 127.0.0.77\nnameserver 127.4.0.5\nnameserver fe80::1%lo\n", "", "", self("127.0.0.77:53"), "127.4.0.5:53 [fe80::1%lo]:53 resolv.conf"},
		{"the same in resolved's file", us, "nameserver 127.0.0.1\nnameserver 192.0.2.1\nnameserver ::1\n", "", self("127.0.0.1:53"), "192.0.2.1:53 [::1]:53 resolved"},
		{"0.0.0.0 means this host", "nameserver 0.0.0.0\n", "", "", self("127.0.0.1:8600"), "127.0.0.1:53 resolv.conf"},
		{"no file, but NetworkManager's", "", "", public, nil, "192.0.2.1:53 192.0.2.2:53 manager"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := files(t, tc.main, tc.resolved, tc.manager)
			c.Self = tc.self
			up, err := Find(c)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range up.Servers {
				got = append(got, s.String())
			}
			got = append(got, filepath.Base(up.From))
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("got %s, want %s", s, tc.want)
			}
			if tc.main == stub && (!slices.Equal(up.Search, []string{"lan"}) || !slices.Equal(up.Options, []string{"edns0"})) {
				t.Errorf("search %v, options %v were not kept", up.Search, up.Options)
			}
		})
	}
}

func TestFind_NeverOurselvesAndAnErrorThatSaysWhatWasSeen(t *testing.T) {
	self := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	for _, tc := range []struct {
		name, main, resolved string
		want                 string
	}{
		{"only ourselves", "nameserver 127.0.0.1\n", "", "names only this host (127.0.0.1)"},
		{"ourselves as 0.0.0.0", "nameserver 0.0.0.0\n", "nameserver 127.0.0.1\n", "resolved names only this host (127.0.0.1)"},
		{"no server", "search example.com\n", "", "names no server"},
		{"no file", "", "", "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := files(t, tc.main, tc.resolved, "")
			c.Self = self
			up, err := Find(c)
			if !errors.Is(err, ErrNone) || len(up.Servers) != 0 || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "recursors") {
				t.Errorf("servers %v, error %v; want none, and %q with what to do", up.Servers, err, tc.want)
			}
		})
	}
}

func TestWatcher_TellsOfOtherServersAndKeepsTheLastOnes(t *testing.T) {
	c := files(t, "nameserver 192.0.2.1\n", "", "")
	told := make(chan Upstreams, 16)
	c.Changed = func(up Upstreams) { told <- up }
	w, err := NewWatcher(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()
	expect := func(want string) {
		t.Helper()
		select {
		case up := <-told:
			if got := fmt.Sprint(up.Servers); got != want {
				t.Errorf("told %s, want %s", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: not seen", want)
		}
	}
	write(t, c.Path+".new", "nameserver 192.0.2.2\n")
	if err := os.Rename(c.Path+".new", c.Path); err != nil {
		t.Fatal(err)
	}
	expect("[192.0.2.2:53]")

	write(t, c.Path, "# the network went away\n")
	write(t, c.Elsewhere[0], "nameserver 192.0.2.3\n")
	expect("[192.0.2.3:53]")

	if err := os.Remove(c.Elsewhere[0]); err != nil {
		t.Fatal(err)
	}
	write(t, c.Path, "nameserver 192.0.2.3\n") // the same servers again: nothing to tell
	write(t, c.Elsewhere[1], "nameserver 192.0.2.9\n")
	write(t, c.Path, "nameserver 127.0.0.53\n")
	expect("[192.0.2.9:53]")
	if got := fmt.Sprint(w.Upstreams().Servers); got != "[192.0.2.9:53]" {
		t.Errorf("Upstreams() = %s", got)
	}
}

func TestWatcher_StartsWithoutServersAndKeepsTheLastWhenNoneIsLeft(t *testing.T) {
	c := files(t, "", "", "")
	w, err := NewWatcher(c)
	if !errors.Is(err, ErrNone) || w == nil {
		t.Fatalf("watcher %v, error %v; want a watcher and ErrNone", w, err)
	}
	write(t, c.Path, "nameserver 192.0.2.1\n")
	w.reload()
	if len(w.Upstreams().Servers) != 1 {
		t.Error("the server that came was not found")
	}
	write(t, c.Path, "")
	w.reload()
	if len(w.Upstreams().Servers) != 1 {
		t.Error("the last server was not kept")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("# c\nsearch example.com\nnameserver 192.0.2.1\noptions edns0 trust-ad ndots:1\n")
	f.Add("nameserver fe80::1%eth0\r\n; x\ndomain a\nsortlist 1.2.3.4/8\nnameserver #\n\x00\xff nameserver ::1")
	f.Fuzz(func(t *testing.T, text string) {
		file := Parse(text)
		if len(file.Servers) > maxServers || len(file.Faults) > maxServers {
			t.Fatalf("%d servers, %d faults", len(file.Servers), len(file.Faults))
		}
		for i, s := range file.Servers {
			if !s.IsValid() || slices.Contains(file.Servers[:i], s) {
				t.Fatalf("server %v", s)
			}
		}
	})
}
