package packaging

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// built are the packages of one version for this machine.
type built struct{ deb, rpm string }

var (
	builtMu  sync.Mutex // guards buildErr and builds
	buildAll = map[string]built{}
)

// packages builds a version.
func packages(t *testing.T, version string) built {
	t.Helper()
	builtMu.Lock()
	defer builtMu.Unlock()
	if b, ok := buildAll[version]; ok {
		return b
	}
	b := build(t, version)
	buildAll[version] = b
	return b
}

func build(t *testing.T, version string) built {
	t.Helper()
	out, err := os.MkdirTemp("", "meibo-packages-") // of the whole run
	must(t, err)
	arch, err := exec.Command("go", "env", "GOARCH").Output()
	must(t, err)
	cmd := exec.Command("./build.sh", strings.TrimSpace(string(arch)))
	cmd.Env = append(os.Environ(), "VERSION="+version, "OUT="+out, "GOFLAGS=")
	began := time.Now()
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", version, err, text)
	}
	t.Logf("packages of %s were built in %v", version, time.Since(began))
	one := func(pattern string) string {
		found, _ := filepath.Glob(filepath.Join(out, pattern))
		if len(found) != 1 {
			t.Fatalf("found %v as %s", found, pattern)
		}
		return found[0]
	}
	return built{one("*.deb"), one("*.rpm")}
}

// The same commit gives the same bytes, whenever and wherever it is built.
func TestPackages_AreReproducible(t *testing.T) {
	first := packages(t, "0.0.1")
	second := build(t, "0.0.1")
	for a, b := range map[string]string{first.deb: second.deb, first.rpm: second.rpm} {
		x, err := os.ReadFile(a)
		must(t, err)
		y, err := os.ReadFile(b)
		must(t, err)
		if sha256.Sum256(x) != sha256.Sum256(y) {
			t.Errorf("%s: two builds differ", filepath.Base(a))
		}
	}
}

// web is a service in a file of its own, as whoever installs the package would add it.
const web = `service { name = "web" address = "192.0.2.10" port = 8080 }
recursors = ["127.0.0.9"]
`

// TestDeb_OnABootedHost: install, resolve, upgrade and downgrade under load, kill, remove and purge, on a Debian host.
func TestDeb_OnABootedHost(t *testing.T) {
	for _, suite := range suites() {
		t.Run(suite, func(t *testing.T) {
			old, next := packages(t, "0.0.1"), packages(t, "0.0.2")
			h := newHost(t, "deb-"+suite, base(t, suite, bootedPackages))
			h.copy(old.deb, "root/old.deb")
			h.copy(next.deb, "root/new.deb")
			h.up()
			before := h.files("/var/log", "/run", "/tmp", "/var/tmp", "/proc", "/sys", "/dev", "/root", "/var/lib/dpkg", "/var/cache", "/var/lib/systemd")
			resolvers := h.run("cat", "/etc/resolv.conf", "/etc/nsswitch.conf")

			said := h.run("dpkg", "-i", "/root/old.deb")
			if !strings.Contains(said, "How this host resolves names is as it was") {
				t.Errorf("the installation says nothing of what it leaves alone:\n%s", said)
			}
			for _, unit := range []string{"meibo.service", "meibo.socket"} {
				if got := strings.Fields(h.run("systemctl", "show", "-p", "ActiveState,UnitFileState", "--value", unit)); !slices.Equal(got, []string{"active", "enabled"}) {
					t.Errorf("%s is %v", unit, got)
				}
			}
			if got := h.run("cat", "/etc/resolv.conf", "/etc/nsswitch.conf"); got != resolvers {
				t.Errorf("name resolution was changed: %s", got)
			}
			if n := strings.Count(h.run("ss", "-Hlun", "src", "127.0.0.1:53"), "\n"); n != 4 {
				t.Errorf("%d UDP sockets on port 53, want the unit's 4", n)
			}

			h.write("etc/meibo.d/web.hcl", web)
			h.run("systemctl", "reload", "meibo")
			h.eventually("the service is answered", func() error { return h.answers("dig", "+short", "web.service.consul", "192.0.2.10") })
			if got := h.run("getent", "hosts", "web.service.consul"); !strings.HasPrefix(got, "192.0.2.10 ") {
				t.Errorf("getent: %s", got)
			}
			if got := h.run("dig", "+short", "web.service.consul", "SRV"); !strings.HasPrefix(got, "1 1 8080 ") {
				t.Errorf("SRV: %s", got)
			}
			h.journal()

			for _, way := range []struct{ what, file string }{{"upgrade", "new"}, {"downgrade", "old"}} {
				r := h.load("web.service.consul.", func() { h.run("dpkg", "--force-downgrade", "-i", "/root/"+way.file+".deb") })
				h.judge(way.what, r, 0)
				if v := h.run("meibo", "version"); !strings.Contains(v, map[string]string{"new": "0.0.2", "old": "0.0.1"}[way.file]) {
					t.Errorf("after the %s: %s", way.what, v)
				}
			}
			h.kill()
			h.hang()
			h.run("systemd-analyze", "security", "--threshold=20", "meibo.service") // exposure 2.0, in tenths
			h.scripts()
			h.leave()

			if said := h.run("dpkg", "-r", "meibo"); !strings.Contains(said, "This host has no DNS from now on") {
				t.Errorf("the removal does not say that resolv.conf names meibo alone:\n%s", said)
			}
			if state, err := h.try("systemctl", "is-active", "meibo.socket"); err == nil {
				t.Errorf("the socket is still %s", state)
			}
			if _, err := os.Stat(filepath.Join(h.dir, "var/lib/meibo")); err != nil {
				t.Errorf("a removal that is no purge took the data: %v", err)
			}
			for _, f := range []string{"etc/meibo.d/web.hcl", "etc/systemd/system/meibo.service.d", "etc/polkit-1/rules.d/50-meibo-reload-nginx.rules", "etc/systemd/system/nginx.service"} {
				must(t, os.RemoveAll(filepath.Join(h.dir, f)))
			}
			h.run("dpkg", "-P", "meibo")
			after := h.files("/var/log", "/run", "/tmp", "/var/tmp", "/proc", "/sys", "/dev", "/root", "/var/lib/dpkg", "/var/cache", "/var/lib/systemd")
			for path := range after {
				if !before[path] && !slices.Contains(remains, path) {
					t.Errorf("a purge leaves %s", path)
				}
			}
			if got := h.run("cat", "/etc/resolv.conf", "/etc/nsswitch.conf"); got != resolvers {
				t.Errorf("name resolution was changed: %s", got)
			}
		})
	}
}

// remains are there after a purge as after any package that had a user: the lists before the change.
var remains = []string{"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/.pwd.lock"}

// suites are those to be tried: one in CI, the others where there is time.
func suites() []string {
	if os.Getenv("MEIBO_VERIFY") != "" {
		return []string{"trixie", "bookworm"}
	}
	return []string{"trixie"}
}

// answers asks dig, whose last argument here is what it should say.
func (h *host) answers(args ...string) error {
	got, err := h.try(args[:len(args)-1]...)
	if want := args[len(args)-1]; strings.TrimSpace(got) != want {
		return fmt.Errorf("%s: got %q (%v), want %q", strings.Join(args[:len(args)-1], " "), got, err, want)
	}
	return nil
}

// judge reports how a load went.
func (h *host) judge(what string, r loadResult, lost int) {
	h.t.Helper()
	h.t.Logf("%s under load: %d queries, lost %d, refused %d, wrong %d, slowest %v", what, r.Sent, r.Lost, r.Refused, r.Wrong, r.Slowest)
	if r.Lost > lost || r.Refused > 0 || r.Wrong > 0 || r.Sent < loadRate {
		h.t.Errorf("%s: %+v; want all of many answered, up to %d", what, r, lost)
	}
}

// journal looks whether the journal has lines as they read, with fields.
func (h *host) journal() {
	h.t.Helper()
	if got := h.run("journalctl", "-q", "-o", "cat", "-u", "meibo", "MEIBO_DATACENTER=dc1"); !strings.Contains(got, "meibo started version=") {
		h.t.Errorf("the journal has no line with the field MEIBO_DATACENTER: %s", h.run("journalctl", "-u", "meibo"))
	}
	if got := h.run("journalctl", "-q", "-o", "cat", "-u", "meibo", "-p", "err"); got != "" {
		h.t.Errorf("errors in the journal: %s", got)
	}
}

// leave has the host leave: nothing starts the daemon again, but whoever says so.
func (h *host) leave() {
	h.t.Helper()
	if said := h.run("meibo", "leave"); !strings.Contains(said, "meibo.socket and meibo.service are stopped") {
		h.t.Errorf("leave: %s", said)
	}
	if _, err := h.try("dig", "+time=1", "+tries=1", "web.service.consul"); err == nil {
		h.t.Error("somebody answers after a leave")
	}
	for _, unit := range []string{"meibo.service", "meibo.socket"} {
		if state, err := h.try("systemctl", "is-active", unit); err == nil {
			h.t.Errorf("after a leave %s is %s", unit, state)
		}
	}
	h.run("systemctl", "start", "meibo")
	h.eventually("it answers once it is started", func() error { return h.answers("dig", "+short", "web.service.consul", "192.0.2.10") })
}

// kill kills the daemon under load: it is back within a second, and what is lost is what it had in its hands.
func (h *host) kill() {
	h.t.Helper()
	restarts := func() string {
		return strings.TrimSpace(h.run("systemctl", "show", "-p", "NRestarts", "--value", "meibo"))
	}
	before := restarts()
	var took time.Duration
	r := h.load("web.service.consul.", func() {
		h.run("systemctl", "kill", "-s", "KILL", "meibo")
		took = h.eventually("it was started again", func() error {
			if now := restarts(); now == before {
				return errors.New("not yet")
			}
			_, err := h.try("systemctl", "is-active", "meibo")
			return err
		})
	})
	h.t.Logf("killed: back after %v", took)
	const inHand = 64 // read in one batch by each of a few loops, and not answered yet
	h.judge("kill -9", r, inHand)
	if took > time.Second {
		h.t.Errorf("after kill -9 it took %v to be back, want a second at most", took)
	}
}

// hang stops the daemon without ending it: the watchdog has it started again.
func (h *host) hang() {
	h.t.Helper()
	if os.Getenv("MEIBO_VERIFY") == "" {
		return // the watchdog's time is 20 s
	}
	h.run("systemctl", "kill", "-s", "STOP", "meibo")
	took := h.eventually("a daemon that hangs is started again", func() error {
		return h.answers("dig", "+short", "+time=1", "+tries=1", "web.service.consul", "192.0.2.10")
	})
	h.t.Logf("hung: answers again after %v", took)
}

// scripts lets a check of the unprivileged daemon reload one unit by the examples, and no other.
func (h *host) scripts() {
	h.t.Helper()
	h.write("etc/systemd/system/nginx.service", `[Service]
ExecStart=/bin/sleep infinity
ExecReload=/bin/sh -c 'echo reloaded >> /run/nginx-reloads'
`)
	examples := filepath.Join(h.dir, "usr/share/doc/meibo/examples")
	h.copy(filepath.Join(examples, "script-checks.conf"), "etc/systemd/system/meibo.service.d/script-checks.conf")
	h.copy(filepath.Join(examples, "reload-nginx.rules"), "etc/polkit-1/rules.d/50-meibo-reload-nginx.rules")
	h.write("etc/meibo.d/web.hcl", web+`enable_local_script_checks = true
check { id = "reload" name = "reload" interval = "1s" timeout = "10s" args = ["systemctl", "reload", "nginx.service"] }
check { id = "restart" name = "restart" interval = "1s" timeout = "10s" args = ["systemctl", "restart", "nginx.service"] }
`)
	h.run("systemctl", "daemon-reload")
	h.run("systemctl", "start", "nginx")
	h.run("systemctl", "restart", "polkit", "meibo")
	h.eventually("nginx is reloaded by a check", func() error {
		_, err := os.Stat(fmt.Sprintf("/proc/%d/root/run/nginx-reloads", h.leader))
		return err
	})
	h.eventually("the checks say what they may", func() error {
		var checks map[string]struct{ Status, Output string }
		if err := json.Unmarshal([]byte(h.run("curl", "-s", "http://127.0.0.1:8500/v1/agent/checks")), &checks); err != nil {
			return err
		}
		if may, not := checks["reload"], checks["restart"]; may.Status != "passing" || not.Status != "warning" || !strings.Contains(not.Output, "authentication required") {
			return fmt.Errorf("reload: %+v; restart: %+v", may, not)
		}
		return nil
	})
}
