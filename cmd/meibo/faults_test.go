package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"meibo/cmd/meibo/config"
)

// site is one meibo under test: its files and its addresses.
type site struct {
	dir, dns, http string
	dnsPort        int
	httpPort       int
}

// newSite writes a configuration of one service, web, on ports that are free now. More goes into the same file.
func newSite(t *testing.T, more string) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), dnsPort: freePort(t), httpPort: freePort(t)}
	s.dns, s.http = fmt.Sprintf("127.0.0.1:%d", s.dnsPort), fmt.Sprintf("127.0.0.1:%d", s.httpPort)
	writeFile(t, s.dir, "conf/agent.hcl", fmt.Sprintf(`
		node_name = "h1"
		bind_addr = "127.0.0.1"
		recursors = ["127.0.0.1:9"]
		ports { dns = %d  http = %d  server = %d  serf_lan = %d }
		service { name = "web" address = "192.0.2.10" port = 80 }
		%s`, s.dnsPort, s.httpPort, freePort(t), freePort(t), more))
	return s
}

func (s *site) data() string { return filepath.Join(s.dir, "data") }

func (s *site) start(t *testing.T, args ...string) *process {
	t.Helper()
	return startMeibo(t, append([]string{"-config-dir", filepath.Join(s.dir, "conf"), "-data-dir", s.data()}, args...)...)
}

// up waits until the configured service is answered.
func (s *site) up(t *testing.T) {
	t.Helper()
	took := eventually(t, "web.service.consul is answered", func() error {
		return wantAnswer(s.dns, "web.service.consul", dns.TypeA, "A 192.0.2.10")
	})
	t.Logf("first answer after %v", took)
}

// led waits until Raft has a leader, so that the catalog takes writes.
func (s *site) led(t *testing.T) {
	t.Helper()
	took := eventually(t, "a leader", func() error {
		_, body, err := s.call("GET", "/v1/status/leader", "")
		if err == nil && strings.Trim(body, "\"\n") == "" {
			err = fmt.Errorf("no leader yet")
		}
		return err
	})
	t.Logf("leader after %v", took)
}

// call asks the HTTP API and returns status and body.
func (s *site) call(method, path, body string) (int, string, error) {
	req, err := http.NewRequest(method, "http://"+s.http+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(out), err
}

func (s *site) mustCall(t *testing.T, method, path, body string) string {
	t.Helper()
	code, out, err := s.call(method, path, body)
	if err != nil || code != http.StatusOK {
		t.Fatalf("%s %s: %d %s %v", method, path, code, out, err)
	}
	return out
}

// TestDataDirOfAnotherUser: root keeps off it, before anything is read or written there.
func TestDataDirOfAnotherUser_IsLeftAlone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can run as another user's better")
	}
	s := newSite(t, "")
	must(t, os.MkdirAll(s.data(), 0o700))
	must(t, os.Chown(s.data(), 61001, 61001))
	p := s.start(t)
	if code := p.Exit(t); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	p.Said(t, s.data(), "belongs to user 61001", "runuser -u 61001")
	if left, err := os.ReadDir(s.data()); err != nil || len(left) > 0 {
		t.Errorf("it wrote %v, %v", left, err)
	}
}

func TestControlSocket_DeletedIsMadeAgain(t *testing.T) {
	s := newSite(t, `encrypt = "b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2w="`)
	p := s.start(t)
	s.up(t)
	resp, err := http.Get("http://" + s.http + "/v1/agent/self")
	must(t, err)
	must(t, resp.Body.Close())
	path := resp.Header.Get("X-Meibo-Control")
	must(t, os.Remove(path))
	p.Said(t, "no control socket", path, "was deleted")
	eventually(t, "another one", func() error {
		_, err := os.Stat(path)
		return err
	})
	p.Stop(t)
}

// TestDataDirTaken: a second daemon on one data_dir touches nothing there, whatever its configuration.
func TestDataDirTaken_ExitsAndNamesTheHolder(t *testing.T) {
	s := newSite(t, `encrypt = "b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2w="`)
	p := s.start(t)
	s.up(t)
	ring := filepath.Join(s.data(), "serf/local.keyring")
	before, err := os.ReadFile(ring)
	must(t, err)
	other := newSite(t, `encrypt = "bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmU="`)
	second := startMeibo(t, "-config-dir", filepath.Join(other.dir, "conf"), "-data-dir", s.data())
	if code := second.Exit(t); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	second.Said(t, "is another meibo's", fmt.Sprintf("pid %d", p.Process.Pid), "data_dir of its own")
	if after, err := os.ReadFile(ring); err != nil || string(after) != string(before) {
		t.Errorf("the keyring was changed: %v", err)
	}
	s.up(t)
	must(t, p.Process.Kill())
	<-p.Done
	s.start(t) // what a killed one held is free
	s.up(t)
}

func TestDNSPortTaken_ExitsAndNamesTheHolder(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			s := newSite(t, "")
			if network == "tcp" {
				l, err := net.Listen("tcp", s.dns)
				must(t, err)
				defer l.Close()
			} else {
				c, err := net.ListenPacket("udp", s.dns)
				must(t, err)
				defer c.Close()
			}
			p := s.start(t)
			if code := p.Exit(t); code == 0 {
				t.Error("exit code 0 though the port was taken")
			}
			for _, want := range []string{s.dns, fmt.Sprintf("pid %d", os.Getpid())} {
				if !strings.Contains(p.Output.String(), want) {
					t.Errorf("the reason does not name %q:\n%s", want, p.Output)
				}
			}
		})
	}
}

func TestSecondDaemonOnTheSamePort_Exits(t *testing.T) {
	s := newSite(t, "")
	first := s.start(t)
	s.up(t)
	bin, err := meiboBinary()
	must(t, err)
	cmd := exec.Command(bin, "agent", "-config-dir", filepath.Join(s.dir, "conf"), "-data-dir", t.TempDir())
	second := start(t, cmd)
	if code := second.Exit(t); code == 0 {
		t.Error("a second daemon shared the port")
	}
	if want := fmt.Sprintf("pid %d", first.Process.Pid); !strings.Contains(second.Output.String(), want) {
		t.Errorf("the second daemon does not name the first (%s):\n%s", want, second.Output)
	}
}

func TestHTTPPortTaken_DNSGoesOnAndTheAPIComesBack(t *testing.T) {
	s := newSite(t, "")
	l, err := net.Listen("tcp", s.http)
	must(t, err)
	p := s.start(t)
	s.up(t)
	p.Said(t, s.http, fmt.Sprintf("pid %d", os.Getpid()))
	must(t, l.Close())
	took := eventually(t, "the API is back once its port is free", func() error {
		_, _, err := s.call("GET", "/v1/status/leader", "")
		return err
	})
	t.Logf("API back after %v", took)
	p.Stop(t)
}

// TestPortsBetweenHostsTaken_AreNamedWithWhoHasThem: in the log, in the words of lookup, and of validate before.
func TestPortsBetweenHostsTaken_AreNamedWithWhoHasThem(t *testing.T) {
	bin, err := meiboBinary()
	must(t, err)
	for key, network := range map[string]string{"ports.server": "tcp", "ports.serf_lan": "udp"} {
		t.Run(key, func(t *testing.T) {
			s := newSite(t, `server = true`)
			cfg, _, err := config.Load(config.Sources{Paths: []string{filepath.Join(s.dir, "conf")}, Partial: true})
			must(t, err)
			at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(cfg.Cluster.ServerPort))
			if network == "udp" {
				at = cfg.Cluster.SerfLAN
				c, err := net.ListenPacket(network, at.String())
				must(t, err)
				defer c.Close()
			} else {
				l, err := net.Listen(network, at.String())
				must(t, err)
				defer l.Close()
			}
			who := fmt.Sprintf("pid %d", os.Getpid())
			out, err := run(t, exec.Command(bin, "validate", filepath.Join(s.dir, "conf")))
			if want := fmt.Sprintf("key %q: %s is taken by ", key, at); err != nil || !strings.Contains(out, want) || !strings.Contains(out, who) {
				t.Errorf("validate: want %q and %q, got %v\n%s", want, who, err, out)
			}
			p := s.start(t)
			s.up(t)
			p.Said(t, "cannot speak to others", at.String(), who)
			eventually(t, "lookup names the holder", func() error {
				out, _ := run(t, exec.Command(bin, "lookup", "-http-addr", s.http, "web.service.consul"))
				if !strings.Contains(out, "trouble") || !strings.Contains(out, who) {
					return errors.New(out)
				}
				return nil
			})
		})
	}
}

// TestLookup_NamesWhoHasThePortOfTheAPI, be it what it will.
func TestLookup_NamesWhoHasThePortOfTheAPI(t *testing.T) {
	bin, err := meiboBinary()
	must(t, err)
	port := startBackend(t, "127.0.0.1:0", "a web server")
	out, err := run(t, exec.Command(bin, "lookup", "-http-addr", fmt.Sprintf("127.0.0.1:%d", port), "web.service.consul"))
	if want := fmt.Sprintf("(pid %d), which does not answer as meibo does", os.Getpid()); err == nil || !strings.Contains(out, want) {
		t.Errorf("want %q, got %v\n%s", want, err, out)
	}
}

func TestUnwritableDataDir_DNSGoesOnAndRecovers(t *testing.T) {
	inHost(t, func(t *testing.T) {
		s := newSite(t, "")
		mountTmpfs(t, s.data(), "size=8m")
		must(t, unix.Mount("", s.data(), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		p := s.start(t)
		s.up(t)
		p.Said(t, s.data(), "read-only file system")
		must(t, unix.Mount("", s.data(), "", unix.MS_REMOUNT, ""))
		s.led(t)
		s.up(t)
		p.Stop(t)
	})
}

func mountTmpfs(t *testing.T, dir, options string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, options))
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

func TestRaftFileCutShort_DNSUpAndRetried(t *testing.T) {
	s := newSite(t, "")
	p := s.start(t)
	s.up(t)
	s.led(t)
	s.mustCall(t, "PUT", "/v1/catalog/register", `{"Node":"ext1","Address":"198.51.100.1","Service":{"Service":"ext","Port":1}}`)
	p.Stop(t)
	var cut []string
	must(t, filepath.WalkDir(s.data(), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".db") {
			cut = append(cut, path)
			return os.Truncate(path, 3*4096) // both meta pages stay, what they point at does not
		}
		return err
	}))
	if len(cut) == 0 {
		t.Fatal("no Raft file found")
	}
	p = s.start(t)
	s.up(t)
	p.Said(t, cut[0])
	s.led(t)
	if err := wantAnswer(s.dns, "web.service.consul", dns.TypeA, "A 192.0.2.10"); err != nil {
		t.Error(err)
	}
	p.Stop(t)
}

func TestDiskFull_DNSGoesOnWritesAreRefusedClearly(t *testing.T) {
	inHost(t, func(t *testing.T) {
		s := newSite(t, "")
		mountTmpfs(t, s.data(), "size=2m")
		p := s.start(t)
		s.up(t)
		s.led(t)
		ballast := filepath.Join(s.data(), "ballast")
		f, err := os.Create(ballast)
		must(t, err)
		for {
			if _, err := f.Write(make([]byte, 4096)); err != nil {
				break
			}
		}
		must(t, f.Close())
		code, body, err := s.call("PUT", "/v1/agent/service/register", `{"Name":"toolate","Address":"192.0.2.99","Port":1}`)
		if err != nil || code == http.StatusOK || !strings.Contains(body, "no space left") {
			t.Errorf("registration on a full disk: %d %q %v, want a refusal that says so", code, body, err)
		}
		if err := wantAnswer(s.dns, "web.service.consul", dns.TypeA, "A 192.0.2.10"); err != nil {
			t.Error(err)
		}
		must(t, os.Remove(ballast))
		took := eventually(t, "registrations are taken again", func() error {
			code, body, err := s.call("PUT", "/v1/agent/service/register", `{"Name":"intime","Address":"192.0.2.98","Port":1}`)
			if err != nil || code != http.StatusOK {
				return fmt.Errorf("%d %s %v", code, body, err)
			}
			return wantAnswer(s.dns, "intime.service.consul", dns.TypeA, "A 192.0.2.98")
		})
		t.Logf("space freed, registered after %v", took)
		took = eventually(t, "the catalog has it", func() error {
			_, body, err := s.call("GET", "/v1/catalog/service/intime", "")
			if err == nil && !strings.Contains(body, "192.0.2.98") {
				err = fmt.Errorf("got %s", body)
			}
			return err
		})
		t.Logf("in the catalog after %v", took)
		p.Stop(t)
	})
}

func TestKilledDaemon_KeepsEveryAcknowledgedRegistration(t *testing.T) {
	s := newSite(t, "")
	acknowledged := 0
	for round := range 5 {
		p := s.start(t)
		s.up(t)
		for i := range acknowledged {
			if err := wantAnswer(s.dns, fmt.Sprintf("r%d.service.consul", i), dns.TypeA, fmt.Sprintf("A 10.0.0.%d", i+1)); err != nil {
				t.Fatalf("round %d, lost after kill -9: %v", round, err)
			}
		}
		for range 5 {
			s.mustCall(t, "PUT", "/v1/agent/service/register", fmt.Sprintf(`{"Name":"r%d","Address":"10.0.0.%d","Port":80}`, acknowledged, acknowledged+1))
			// Answered 200, so it is in this host's view already (VIEWS.md 9): no waiting here.
			if err := wantAnswer(s.dns, fmt.Sprintf("r%d.service.consul", acknowledged), dns.TypeA, fmt.Sprintf("A 10.0.0.%d", acknowledged+1)); err != nil {
				t.Errorf("right after the 200: %v", err)
			}
			acknowledged++
		}
		must(t, p.Process.Signal(syscall.SIGKILL))
		<-p.Done
	}
	t.Logf("%d registrations over 5 kills, none lost", acknowledged)
}

func TestReload_BadFileKeepsTheOldState(t *testing.T) {
	s := newSite(t, "")
	p := s.start(t)
	s.up(t)
	extra := writeFile(t, s.dir, "conf/extra.hcl", "service { name = \"late\" adress = \"192.0.2.20\" port = 1 }\n")
	must(t, p.Process.Signal(syscall.SIGHUP))
	p.Said(t, extra, "adress", "address")
	if err := wantAnswer(s.dns, "web.service.consul", dns.TypeA, "A 192.0.2.10"); err != nil {
		t.Error(err)
	}
	writeFile(t, s.dir, "conf/extra.hcl", "service { name = \"late\" address = \"192.0.2.20\" port = 1 }\n")
	must(t, p.Process.Signal(syscall.SIGHUP))
	eventually(t, "the new service is answered", func() error {
		return wantAnswer(s.dns, "late.service.consul", dns.TypeA, "A 192.0.2.20")
	})
	must(t, os.Remove(extra))
	must(t, p.Process.Signal(syscall.SIGHUP))
	eventually(t, "a service whose file is gone is gone", func() error {
		reply, err := ask(s.dns, "udp", "late.service.consul", dns.TypeA)
		if err == nil && reply.Rcode != dns.RcodeNameError {
			err = fmt.Errorf("still %v", reply)
		}
		return err
	})
	p.Stop(t)
}

func TestMalformedPackets_AreJudgedAndSurvived(t *testing.T) {
	s := newSite(t, "")
	p := s.start(t)
	s.up(t)
	conn, err := net.Dial("udp", s.dns)
	must(t, err)
	defer conn.Close()
	good := new(dns.Msg)
	good.SetQuestion("web.service.consul.", dns.TypeA)
	packed, err := good.Pack()
	must(t, err)
	for name, tc := range map[string]struct {
		edit  func([]byte) []byte
		rcode int // -1: no answer at all
	}{
		"QR set":                   {func(m []byte) []byte { m[2] |= 0x80; return m }, -1},
		"11 bytes":                 {func(m []byte) []byte { return m[:11] }, -1},
		"no question":              {func(m []byte) []byte { m[5] = 0; return m[:12] }, dns.RcodeFormatError},
		"two questions":            {func(m []byte) []byte { m[5] = 2; return append(m, m[12:]...) }, dns.RcodeFormatError},
		"cut in the name":          {func(m []byte) []byte { return m[:20] }, dns.RcodeFormatError},
		"pointer to itself":        {func(m []byte) []byte { return append(m[:12], 0xc0, 12, 0, 1, 0, 1) }, dns.RcodeFormatError},
		"opcode STATUS":            {func(m []byte) []byte { m[2] |= 2 << 3; return m }, dns.RcodeNotImplemented},
		"opcode UPDATE":            {func(m []byte) []byte { m[2] |= 5 << 3; return m }, dns.RcodeNotImplemented},
		"octets after the message": {func(m []byte) []byte { return append(m, 1, 2, 3) }, dns.RcodeSuccess},
		"class CHAOS, A":           {func(m []byte) []byte { m[len(m)-1] = 3; return m }, dns.RcodeRefused},
		"EDNS version 1":           {func(m []byte) []byte { m[11] = 1; return append(m, 0, 0, 41, 4, 0xd0, 0, 1, 0, 0, 0, 0) }, dns.RcodeBadVers},
		"two OPT records": {func(m []byte) []byte {
			m[11] = 2
			opt := []byte{0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0}
			return append(append(m, opt...), opt...)
		}, dns.RcodeFormatError},
		"65,000 bytes of it": {func(m []byte) []byte { return append(m, make([]byte, 65000-len(m))...) }, dns.RcodeFormatError},
	} {
		t.Run(name, func(t *testing.T) {
			id := uint16(rand.Uint32())
			msg := tc.edit(bytes.Clone(packed))
			binary.BigEndian.PutUint16(msg, id)
			_, err := conn.Write(msg)
			must(t, err)
			// A good question behind it: its answer shows that the daemon lives, and that nothing came for the bad one.
			binary.BigEndian.PutUint16(packed, id+1)
			_, err = conn.Write(packed)
			must(t, err)
			got := -1
			for {
				reply := make([]byte, 4096)
				must(t, conn.SetReadDeadline(time.Now().Add(patience)))
				n, err := conn.Read(reply)
				must(t, err)
				if binary.BigEndian.Uint16(reply) == id+1 {
					break
				}
				m := new(dns.Msg)
				must(t, m.Unpack(reply[:n]))
				if m.Id == id {
					got = m.Rcode
				}
			}
			if got != tc.rcode {
				t.Errorf("rcode %d, want %d (-1: silence)", got, tc.rcode)
			}
		})
	}
	p.Stop(t)
}

func TestHTTPBodyWithUnknownField_NamesIt(t *testing.T) {
	s := newSite(t, "")
	s.start(t)
	s.up(t)
	eventually(t, "the API answers", func() error { _, _, err := s.call("GET", "/v1/agent/self", ""); return err })
	code, body, err := s.call("PUT", "/v1/agent/service/register", `{"Name":"x","Prot":80}`)
	if err != nil || code != http.StatusBadRequest || !strings.Contains(body, "Prot") {
		t.Errorf("got %d %q %v, want 400 that names Prot", code, body, err)
	}
	if code, body, _ = s.call("PUT", "/v1/agent/service/register", strings.Repeat(" ", 512<<10)+"1"); code != http.StatusRequestEntityTooLarge {
		t.Errorf("one byte beyond 512 KiB of body: got %d %.80q, want 413", code, body)
	}
}
