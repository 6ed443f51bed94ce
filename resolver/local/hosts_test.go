package local_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"meibo/resolver"
	"meibo/resolver/local"
	"meibo/resolver/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const sample = `# a comment
127.0.0.1	localhost
127.0.1.1 Host.example.com host  # trailing
192.0.2.1 db.example.com db
192.0.2.2 db.example.com
2001:db8::1 db.example.com six.
fe80::1%lo0 link
0.0.0.0 ads.example.com
::ffff:192.0.2.9 mapped
`

// ask puts a question to a zone and writes the answer as text.
func ask(t testing.TB, z resolver.Zone, name, typ string) string {
	t.Helper()
	n, err := wire.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	q := wire.NewQuery(n, dns.StringToType[typ])
	r, outcome := z.Answer(q)
	if outcome == resolver.NotMine {
		if _, err := z.Resolve(context.Background(), q); err != resolver.ErrNotMine {
			t.Errorf("%s %s: Resolve says %v after NotMine", name, typ, err)
		}
		return "not mine"
	}
	m := new(dns.Msg)
	if err := m.Unpack(r.Answer.Append(nil, q, wire.Render{})); err != nil {
		t.Fatal(err)
	}
	out := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		out = append(out, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	for _, rr := range m.Ns {
		soa := rr.(*dns.SOA)
		out = append(out, fmt.Sprintf("soa %s %d %d", soa.Hdr.Name, soa.Hdr.Ttl, soa.Minttl))
	}
	return strings.Join(out, "; ")
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func hostsOf(t testing.TB, c local.HostsConfig, text string) *local.Hosts {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hosts")
	writeFile(t, path, text)
	c.Files = []string{path}
	h, err := local.NewHosts(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHosts_AnswersWhatTheFileSays(t *testing.T) {
	h := hostsOf(t, local.HostsConfig{}, sample)
	for _, tc := range []struct{ name, typ, want string }{
		{"db.example.com.", "A", "NOERROR; db.example.com. 10 IN A 192.0.2.1; db.example.com. 10 IN A 192.0.2.2"},
		{"DB.Example.com.", "AAAA", "NOERROR; DB.Example.com. 10 IN AAAA 2001:db8::1"},
		{"db.", "A", "NOERROR; db. 10 IN A 192.0.2.1"},
		{"six.", "AAAA", "NOERROR; six. 10 IN AAAA 2001:db8::1"},
		{"link.", "AAAA", "NOERROR; link. 10 IN AAAA fe80::1"},
		{"mapped.", "A", "NOERROR; mapped. 10 IN A 192.0.2.9"},
		{"ads.example.com.", "A", "NOERROR; ads.example.com. 10 IN A 0.0.0.0"},
		{"db.example.com.", "ANY", "NOERROR; db.example.com. 10 IN A 192.0.2.1; db.example.com. 10 IN A 192.0.2.2; db.example.com. 10 IN AAAA 2001:db8::1"},
		// The name without the type: NODATA with an SOA (RFC 2308), never NXDOMAIN.
		{"ads.example.com.", "AAAA", "NOERROR; soa ads.example.com. 10 10"},
		{"db.example.com.", "MX", "NOERROR; soa db.example.com. 10 10"},
		// PTR: the first name of an address, in the file's letter case.
		{"1.1.0.127.in-addr.arpa.", "PTR", "NOERROR; 1.1.0.127.in-addr.arpa. 10 IN PTR Host.example.com."},
		{"1.2.0.192.in-addr.arpa.", "PTR", "NOERROR; 1.2.0.192.in-addr.arpa. 10 IN PTR db.example.com."},
		{"1.2.0.192.in-addr.arpa.", "A", "NOERROR; soa 1.2.0.192.in-addr.arpa. 10 10"},
		{"0.0.0.0.in-addr.arpa.", "PTR", "not mine"},
		{"7.2.0.192.in-addr.arpa.", "PTR", "not mine"},
		{"example.com.", "A", "not mine"},
		{"www.db.example.com.", "A", "not mine"},
		{".", "NS", "not mine"},
	} {
		if got := ask(t, h, tc.name, tc.typ); got != tc.want {
			t.Errorf("%s %s\n got %s\nwant %s", tc.name, tc.typ, got, tc.want)
		}
	}
}

func TestHosts_StaticRecordsStandBesideTheFiles(t *testing.T) {
	h := hostsOf(t, local.HostsConfig{Records: []string{
		"db.example.com A 192.0.2.3", "Mail.example.com 300 MX 10 mx.example.com.", `mail.example.com TXT "v=spf1 -all"`, `price.example.com TXT "cost $5" $6`,
		`price.example.com NAPTR 10 20 "u" "E2U+sip" "!^(.*)$!sip:\\1@example.com!" .`,
	}}, sample)
	for _, tc := range []struct{ name, typ, want string }{
		{"db.example.com.", "A", "NOERROR; db.example.com. 10 IN A 192.0.2.3; db.example.com. 10 IN A 192.0.2.1; db.example.com. 10 IN A 192.0.2.2"},
		{"mail.example.com.", "MX", "NOERROR; mail.example.com. 300 IN MX 10 mx.example.com."},
		{"mail.example.com.", "TXT", `NOERROR; mail.example.com. 10 IN TXT "v=spf1 -all"`},
		{"mail.example.com.", "A", "NOERROR; soa mail.example.com. 10 10"},
		{"price.example.com.", "TXT", `NOERROR; price.example.com. 10 IN TXT "cost $5" "$6"`},
		{"price.example.com.", "NAPTR", `NOERROR; price.example.com. 10 IN NAPTR 10 20 "u" "E2U+sip" "!^(.*)$!sip:\\1@example.com!" .`},
	} {
		if got := ask(t, h, tc.name, tc.typ); got != tc.want {
			t.Errorf("%s %s\n got %s\nwant %s", tc.name, tc.typ, got, tc.want)
		}
	}
	for _, bad := range []string{"", "db.example.com", "db A", "db A 192.0.2", "db WHAT 1", "$INCLUDE /etc/passwd", " $ORIGIN example.com", "$TTL 5", "$x.example.com A 192.0.2.1", "a A 192.0.2.1\nb A 192.0.2.2",
		"*.dev.corp 300 A 10.7.0.1", "* A 10.7.0.1", "a.*.corp A 10.7.0.1", "dev.corp DNAME other.corp.", "dev.corp NS ns.corp.", "dev.corp NSEC x.corp. A", "dev.corp DS 1 8 2 AA", "192.0.2.7 PTR nas.home.", "2001:db8::7 PTR nas.home.", "@ A 192.0.2.7", ". TXT x", "db CH TXT x",
		"b\u00fccher.corp A 10.7.0.1", "http://nas.corp A 10.7.0.1", "nas.corp:80 A 10.7.0.1", "nas.corp,db.corp A 10.7.0.1", "/nas.corp/ A 10.7.0.1", "na*.corp A 10.7.0.1", "db\\032x A 10.7.0.1"} {
		_, err := local.NewHosts(local.HostsConfig{Files: []string{}, Records: []string{bad}})
		if err == nil || !strings.Contains(err.Error(), "hosts.records") {
			t.Errorf("record %q: error %v, want one that names hosts.records", bad, err)
		}
	}
}

// logLines keeps what is logged.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

func TestHosts_SaysOnceWhatIsWrongWithWhichLine(t *testing.T) {
	log := new(logLines)
	h := hostsOf(t, local.HostsConfig{Logger: slog.New(slog.NewTextHandler(log, nil))},
		"192.0.2.1 good\n\n300.1.1.1 bad\n192.0.2.2\n192.0.2.3 ok a..b\n192.0.2.4 "+strings.Repeat("x", 64)+"\n192.0.2.5 back\\slash\n")
	for range 3 {
		if err := h.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	said := strings.Join(log.lines, "")
	for _, want := range []string{`hosts:3: \"300.1.1.1\" is no IP address`, "hosts:4: address 192.0.2.2 has no name", `hosts:5: \"a..b\" is no domain name`, "hosts:6: ", "hosts:7: "} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q is logged: %s", want, said)
		}
	}
	if len(log.lines) != 5 {
		t.Errorf("%d lines are logged of 5 bad ones", len(log.lines))
	}
	if h.Len() != 2 { // good, ok
		t.Errorf("%d names, want 2: bad lines take nothing else along", h.Len())
	}
}

func TestHosts_ABadNameTakesNoOtherAlong(t *testing.T) {
	log := new(logLines)
	h := hostsOf(t, local.HostsConfig{Logger: slog.New(slog.NewTextHandler(log, nil))},
		"192.0.2.1 one bad..name two *.wild three\n"+strings.Repeat("nonsense\n", 30)+"192.0.2.2 a..b four")
	for _, name := range []string{"one.", "two.", "three.", "four."} {
		if got := ask(t, h, name, "A"); !strings.Contains(got, "192.0.2.") {
			t.Errorf("%s: %s", name, got)
		}
	}
	if h.Len() != 4 {
		t.Errorf("%d names, want 4", h.Len())
	}
	said := strings.Join(log.lines, "")
	for _, want := range []string{`hosts:1: \"bad..name\" is no domain name, nor can 1 more of the line be taken`, "hosts:20: ", "hosts: 12 more bad lines"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q is logged: %s", want, said)
		}
	}
	if len(log.lines) != 21 {
		t.Errorf("%d lines are logged", len(log.lines))
	}
}

func TestHosts_ChangedNamesAreToldAndTheCounterMoves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	writeFile(t, path, "192.0.2.1 same\n192.0.2.2 moves\n192.0.2.3 goes\n")
	var told []string
	h, err := local.NewHosts(local.HostsConfig{Files: []string{path}, Changed: func(names []wire.Name) {
		told = nil
		for _, n := range names {
			told = append(told, n.String())
		}
		slices.Sort(told)
	}})
	if err != nil {
		t.Fatal(err)
	}
	q := wire.NewQuery("\x04same\x00", wire.TypeA)
	r, _ := h.Answer(q)
	writeFile(t, path, "192.0.2.1 same\n192.0.2.9 moves\n192.0.2.4 comes\n")
	if err := h.Reload(); err != nil {
		t.Fatal(err)
	}
	if !r.Deps[0].Moved() {
		t.Error("an answer from before the change still counts")
	}
	want := []string{"2.2.0.192.in-addr.arpa.", "3.2.0.192.in-addr.arpa.", "4.2.0.192.in-addr.arpa.", "9.2.0.192.in-addr.arpa.",
		"comes.", "goes.", "moves."}
	if !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

func TestHosts_AMissingFileIsEmptyAndAnUnreadableOneKeepsTheOld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hosts")
	h, err := local.NewHosts(local.HostsConfig{Files: []string{path}})
	if err != nil || h.Len() != 0 {
		t.Fatalf("%d names, error %v; want none", h.Len(), err)
	}
	writeFile(t, path, "192.0.2.1 one\n")
	if err := h.Reload(); err != nil || h.Len() != 1 {
		t.Fatalf("%d names, error %v; want 1", h.Len(), err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o644); err != nil { // to open it would be to wait for a writer
		t.Fatal(err)
	}
	if err := h.Reload(); err == nil || h.Len() != 1 {
		t.Errorf("%d names, error %v; want an error and the old contents", h.Len(), err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := h.Reload(); err != nil || h.Len() != 0 {
		t.Errorf("%d names, error %v; want none", h.Len(), err)
	}
}

func TestHosts_SetConfigTellsWhichNamesChangedAndNoOthers(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a"), "192.0.2.1 same\n192.0.2.2 goes\n")
	writeFile(t, filepath.Join(dir, "b"), "192.0.2.1 same\n192.0.2.3 comes\n")
	var told []string
	h, err := local.NewHosts(local.HostsConfig{
		Files:   []string{filepath.Join(dir, "a")},
		Records: []string{"kept.home A 192.0.2.7", "moved.home A 192.0.2.7", "gone.home TXT x"},
		Changed: func(names []wire.Name) {
			told = nil
			for _, n := range names {
				told = append(told, n.String())
			}
			slices.Sort(told)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.SetConfig(local.HostsConfig{Files: []string{}, Records: []string{"no record"}}); err == nil {
		t.Error("a record that is none was taken")
	}
	if got := ask(t, h, "goes.", "A"); got != "NOERROR; goes. 10 IN A 192.0.2.2" {
		t.Errorf("a refused configuration changed the answer to %s", got)
	}
	err = h.SetConfig(local.HostsConfig{
		Files:   []string{filepath.Join(dir, "b")},
		Records: []string{"kept.home A 192.0.2.7", "moved.home A 192.0.2.8", "new.home TXT x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"2.2.0.192.in-addr.arpa.", "3.2.0.192.in-addr.arpa.", "comes.", "goes.", "gone.home.", "moved.home.", "new.home."}
	if !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
	if got := ask(t, h, "moved.home.", "A"); got != "NOERROR; moved.home. 10 IN A 192.0.2.8" {
		t.Errorf("the new record is not answered: %s", got)
	}
}

func TestHosts_RunSeesEachWayAFileChanges(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real", "hosts"), filepath.Join(dir, "hosts")
	for _, d := range []string{"real", "other"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, real, "192.0.2.1 n1\n")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	changed := make(chan struct{}, 16)
	h, err := local.NewHosts(local.HostsConfig{Files: []string{link}, Changed: func([]wire.Name) { changed <- struct{}{} }})
	if err != nil {
		t.Fatal(err)
	}
	<-changed // the first reading
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()

	other := filepath.Join(dir, "other", "hosts")
	for i, change := range []struct {
		name string
		do   func(text string)
	}{
		{"written in place behind the link", func(text string) { writeFile(t, real, text) }},
		{"renamed over behind the link", func(text string) {
			writeFile(t, real+".tmp", text)
			if err := os.Rename(real+".tmp", real); err != nil {
				t.Fatal(err)
			}
		}},
		{"the link replaced", func(text string) {
			writeFile(t, other, text)
			if err := os.Symlink(other, link+".tmp"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(link+".tmp", link); err != nil {
				t.Fatal(err)
			}
		}},
		{"written in place in the new directory", func(text string) { writeFile(t, other, text) }},
		{"removed", func(string) {
			if err := os.Remove(other); err != nil {
				t.Fatal(err)
			}
		}},
		{"made anew", func(text string) { writeFile(t, other, text) }},
	} {
		name := fmt.Sprintf("n%d", i+2)
		change.do(fmt.Sprintf("192.0.2.%d %s\n", i+2, name))
		select {
		case <-changed:
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: not seen", change.name)
		}
		if change.name == "removed" {
			if h.Len() != 0 {
				t.Errorf("%s: %d names are left", change.name, h.Len())
			}
			continue
		}
		if got := ask(t, h, name+".", "A"); !strings.HasPrefix(got, "NOERROR; "+name) {
			t.Errorf("%s: %s", change.name, got)
		}
	}
}

// manyHosts is a block list of a million lines.
func manyHosts(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "0.0.0.0 ads%d.tracker%d.example.com\n", i, i%1000)
	}
	return b.String()
}

func TestHosts_AMillionLines(t *testing.T) {
	if testing.Short() {
		t.Skip("a million lines are left out of -short")
	}
	path := filepath.Join(t.TempDir(), "hosts")
	writeFile(t, path, manyHosts(1_000_000))
	start := time.Now()
	h, err := local.NewHosts(local.HostsConfig{Files: []string{path}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("loaded in %v", time.Since(start)) // the bar of 1 s is the benchmark's
	if h.Len() != 1_000_000 {
		t.Errorf("%d names, want a million", h.Len())
	}
	if got := ask(t, h, "ads999999.tracker999.example.com.", "A"); got != "NOERROR; ads999999.tracker999.example.com. 10 IN A 0.0.0.0" {
		t.Error(got)
	}
}

func BenchmarkHostsLoad(b *testing.B) {
	path := filepath.Join(b.TempDir(), "hosts")
	writeFile(b, path, manyHosts(1_000_000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := local.NewHosts(local.HostsConfig{Files: []string{path}}); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzHosts(f *testing.F) {
	f.Add(sample)
	f.Add("::1 localhost ip6-localhost\r\n\t\n#\n 192.0.2.1\n192.0.2.1 .\n192.0.2.1 a. a A\n1.2.3 x\n1.2.3.4 \x00\xff\n\ufeff127.0.0.1 bom\n")
	f.Add("192.0.2.1 " + strings.Repeat("a.", 126) + "b\n192.0.2.1 " + strings.Repeat("x", 64))
	f.Fuzz(func(t *testing.T, text string) {
		h := hostsOf(t, local.HostsConfig{}, text)
		for line := range strings.Lines(text) {
			line, _, _ = strings.Cut(line, "#")
			fields := strings.Fields(line)
			if len(fields) < 2 {
				continue
			}
			n, err := wire.ParseName(fields[1])
			if err != nil {
				continue
			}
			// Whatever the file says, an answer can be packed and unpacked.
			for _, typ := range []wire.Type{wire.TypeA, wire.TypeANY} {
				q := wire.NewQuery(n, typ)
				q.TCP = true
				if r, outcome := h.Answer(q); outcome == resolver.Answered {
					if err := new(dns.Msg).Unpack(r.Answer.Append(nil, q, wire.Render{})); err != nil {
						t.Fatalf("%s: %v", n, err)
					}
				}
			}
		}
	})
}
