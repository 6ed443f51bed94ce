package packaging

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The world outside of a host: one name server, and what it knows.
const (
	outsideServer = "192.0.2.53"
	outside       = "deb.example"
	outsideAddr   = "198.51.100.7"
)

// webAlone is a service; the host's own name servers are meibo's upstreams.
const webAlone = `service { name = "web" address = "192.0.2.10" port = 8080 }
`

// world gives a host that is up a link, and the name server behind it until end is called.
func (h *host) world() (end func()) {
	h.t.Helper()
	h.run("ip", "link", "add", "u0", "type", "veth", "peer", "name", "u1")
	h.run("ip", "link", "set", "u0", "up")
	h.run("ip", "link", "set", "u1", "up")
	h.run("ip", "address", "add", outsideServer+"/24", "dev", "u0")
	self, err := os.Executable()
	must(h.t, err)
	h.copy(self, "usr/local/bin/world")
	must(h.t, os.Chmod(filepath.Join(h.dir, "usr/local/bin/world"), 0o755))
	cmd := h.command(h.t.Context(), "MEIBO_PACKAGING_SERVE="+outsideServer+":53", "/usr/local/bin/world")
	stdin, err := cmd.StdinPipe()
	must(h.t, err)
	stdout, err := cmd.StdoutPipe()
	must(h.t, err)
	must(h.t, cmd.Start())
	end = sync.OnceFunc(func() { _ = stdin.Close(); _ = cmd.Wait() })
	h.t.Cleanup(end)
	if _, err := io.ReadAtLeast(stdout, make([]byte, 6), 6); err != nil {
		h.t.Fatalf("the world does not answer: %v", err)
	}
	return end
}

// aside installs packages that lie in the root.
func (h *host) aside(names ...string) {
	h.t.Helper()
	for i, name := range names {
		names[i] = asideFolder + "/" + name + "_*.deb"
	}
	h.run("sh", "-c", "dpkg -i "+strings.Join(names, " "))
}

// gets looks a name up as programs do, by libc.
func (h *host) gets(name, addr string) error {
	got, err := h.try("getent", "ahostsv4", name)
	if addr == "" && err != nil {
		return nil
	}
	if addr == "" || !strings.HasPrefix(got, addr+" ") {
		return fmt.Errorf("getent %s: %q, %v; want %q", name, got, err, addr)
	}
	return nil
}

func (h *host) resolvesBoth() {
	h.t.Helper()
	h.eventually("a name outside resolves", func() error { return h.gets(outside, outsideAddr) })
	h.eventually("a service resolves", func() error { return h.gets("web.service.consul", "192.0.2.10") })
}

// resolvState is what `meibo resolv status` says.
func (h *host) resolvState(want string) {
	h.t.Helper()
	text, _ := h.try("meibo", "resolv", "status", "-json")
	var s struct{ State string }
	if err := json.Unmarshal([]byte(text), &s); err != nil || s.State != want {
		h.t.Errorf("status: %v, want %s:\n%s", err, want, text)
	}
}

// resolvFiles are all that a takeover may touch, with times where they are kept.
func (h *host) resolvFiles() string {
	h.t.Helper()
	return h.run("sh", "-c", `ls -ld --time-style=full-iso /etc/resolv.conf; cat /etc/resolv.conf; readlink -f /etc/resolv.conf
		find /etc/systemd/resolved.conf* /etc/resolvconf* /etc/NetworkManager /etc/dhcp /var/lib/meibo-resolv /run/resolvconf -type f 2>/dev/null |
			grep -v -e /run/resolvconf/lock -e postponed | sort | xargs -r sha256sum
		find /etc -maxdepth 1 -name '.*meibo*'`)
}

// unchanged holds the host to what it was.
func (h *host) unchanged(what, before string) {
	h.t.Helper()
	if after := h.resolvFiles(); after != before {
		h.t.Errorf("%s: it is not as it was:\n%s\nbefore:\n%s", what, after, before)
	}
}

// kills kills `meibo resolv install` after ever longer times, and takes back what it left.
func (h *host) kills(same func(what, before string), before string) {
	h.t.Helper()
	n := 12
	if os.Getenv("MEIBO_VERIFY") != "" {
		n = 100
	}
	finished := 0
	for i := range n {
		cmd := h.command(h.t.Context(), "meibo", "resolv", "install")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		must(h.t, cmd.Start())
		// When it is killed is what differs from one time to the next.
		time.Sleep(time.Duration(i) * 150 * time.Millisecond / time.Duration(n))
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if cmd.Wait() == nil {
			finished++
		}
		h.eventually("a name outside resolves after a kill", func() error { return h.gets(outside, outsideAddr) })
		h.run("meibo", "resolv", "restore")
		same(fmt.Sprintf("kill %d", i), before)
	}
	h.t.Logf("%d installations killed after up to 150 ms, %d of them had finished", n, finished)
}

// TestResolv_Resolved: a host of systemd-resolved is taken over, whole and for .consul alone, and given back.
func TestResolv_Resolved(t *testing.T) {
	for _, suite := range suites() {
		t.Run(suite, func(t *testing.T) {
			h := newHost(t, "resolved-"+suite, base(t, suite, bootedPackages))
			h.copy(packages(t, "0.0.1").deb, "root/meibo.deb")
			h.up()
			h.world()
			h.aside("systemd-resolved", "libnss-resolve")
			h.run("systemctl", "reload", "dbus") // which does not see new policies on an overlay
			h.run("systemctl", "restart", "systemd-resolved")
			h.run("resolvectl", "dns", "u0", outsideServer)
			h.run("resolvectl", "domain", "u0", "lan")
			h.eventually("a name outside resolves", func() error { return h.gets(outside, outsideAddr) })
			if got := h.run("readlink", "/etc/resolv.conf"); !strings.Contains(got, "systemd/resolve/") {
				t.Fatalf("resolv.conf is no link of systemd-resolved: %s", got)
			}
			before := h.resolvFiles()
			h.run("dpkg", "-i", "/root/meibo.deb")
			h.write("etc/meibo.d/web.hcl", webAlone)
			h.run("systemctl", "reload", "meibo")
			h.eventually("the daemon answers", func() error { return h.answers("dig", "+short", "@127.0.0.1", "web.service.consul", "192.0.2.10") })
			h.unchanged("the package", before)

			t.Log(h.run("meibo", "resolv", "install"))
			h.resolvesBoth()
			if err := h.answers("dig", "+short", "web.service.consul", "192.0.2.10"); err != nil { // by resolv.conf
				t.Error(err)
			}
			h.resolvState("installed")
			if got := h.run("cat", "/run/meibo/resolv.conf"); !strings.Contains(got, "nameserver "+outsideServer+"\n") || strings.Contains(got, "127.") {
				t.Errorf("what kubelet reads: %s", got)
			}
			h.run("sh", "-c", "echo nameserver "+outsideServer+" >/etc/resolv.conf")
			h.eventually("what others wrote is made good", func() error { return h.gets("web.service.consul", "192.0.2.10") })
			h.eventually("it is ours again", func() error {
				if got := h.run("cat", "/etc/resolv.conf"); !strings.Contains(got, "nameserver 127.0.0.1\n") {
					return errors.New(got)
				}
				return nil
			})
			h.run("systemctl", "restart", "systemd-resolved")
			h.resolvesBoth()
			h.run("meibo", "resolv", "restore")
			h.eventually("a name outside resolves", func() error { return h.gets(outside, outsideAddr) })
			h.unchanged("restored", before)
			h.resolvState("off")
			h.kills(h.unchanged, before)

			h.run("meibo", "resolv", "install", "-only", "consul")
			h.resolvesBoth()
			h.run("meibo", "resolv", "restore")
			h.unchanged("restored from -only", before)

			// The removal gives the host back.
			h.run("meibo", "resolv", "install")
			h.resolvesBoth()
			h.run("dpkg", "-r", "meibo")
			h.eventually("a name outside resolves", func() error { return h.gets(outside, outsideAddr) })
			h.unchanged("removed", before)
		})
	}
}

// TestResolv_Resolvconf: a host of Debian's resolvconf, by an answer of debconf.
func TestResolv_Resolvconf(t *testing.T) {
	h := newHost(t, "resolvconf", base(t, "trixie", bootedPackages))
	h.copy(packages(t, "0.0.1").deb, "root/meibo.deb")
	h.write("etc/meibo.d/web.hcl", webAlone)
	h.up()
	end := h.world()
	h.write("etc/resolv.conf", "nameserver "+outsideServer+"\n") // it takes over what it finds
	h.aside("resolvconf")
	h.run("systemctl", "restart", "resolvconf") // as a boot does
	if got := h.run("readlink", "/etc/resolv.conf"); !strings.Contains(got, "resolvconf") {
		t.Fatalf("resolv.conf is no link of resolvconf: %s", got)
	}
	record := func() { h.run("sh", "-c", "echo nameserver "+outsideServer+" | resolvconf -a u0.dhclient") }
	record()
	h.eventually("a name outside resolves", func() error { return h.gets(outside, outsideAddr) })
	before := h.resolvFiles()
	h.run("sh", "-c", "echo 'meibo meibo/resolv boolean true' | debconf-set-selections")
	t.Log(h.run("dpkg", "-i", "/root/meibo.deb"))
	h.resolvesBoth()
	h.resolvState("installed")
	record() // a renewal
	if got := h.run("cat", "/etc/resolv.conf"); strings.Contains(got, outsideServer) || !strings.Contains(got, "nameserver 127.0.0.1\n") {
		t.Errorf("after a renewal: %s", got)
	}
	h.run("meibo", "resolv", "restore")
	h.unchangedButTimes("restored", before)
	if os.Getenv("MEIBO_VERIFY") == "" {
		return
	}
	h.run("meibo", "resolv", "install")

	// resolvconf forgets at each boot.
	end()
	h.down()
	h.up()
	h.eventually("it is ours after a boot", func() error {
		if got := h.run("cat", "/etc/resolv.conf"); !strings.Contains(got, "nameserver 127.0.0.1\n") {
			return errors.New(got)
		}
		return nil
	})
	h.run("systemctl", "restart", "meibo.socket", "meibo.service") // this host's loopback interface came after its boot
	h.world()
	record()
	h.resolvesBoth()
	h.run("dpkg", "-P", "meibo")
	h.eventually("a name outside resolves", func() error { return h.gets(outside, outsideAddr) })
	if got := h.run("cat", "/etc/resolv.conf"); strings.Contains(got, "127.0.0.1") {
		t.Errorf("after a purge resolv.conf names %s", got)
	}
}

// unchangedButTimes is unchanged for what an owner's program writes anew.
func (h *host) unchangedButTimes(what, before string) {
	h.t.Helper()
	_, before, _ = strings.Cut(before, "\n")
	if _, after, _ := strings.Cut(h.resolvFiles(), "\n"); after != before {
		h.t.Errorf("%s: it is not as it was:\n%s\nbefore:\n%s", what, after, before)
	}
}

const immutable = 0x10 // FS_IMMUTABLE_FL of linux/fs.h

// marked gives a file attributes, as chattr does.
func (h *host) marked(path string, attributes int) {
	h.t.Helper()
	f, err := os.Open(filepath.Join(h.dir, path))
	must(h.t, err)
	defer f.Close()
	must(h.t, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, attributes))
}

// TestResolv_Openresolv: a host of openresolv, by a variable of an unattended installation; a removal that could not give
// the host back is refused.
func TestResolv_Openresolv(t *testing.T) {
	h := newHost(t, "openresolv", base(t, "trixie", bootedPackages))
	h.copy(packages(t, "0.0.1").deb, "root/meibo.deb")
	h.write("etc/meibo.d/web.hcl", webAlone)
	h.up()
	h.world()
	h.aside("openresolv")
	record := func() { h.run("sh", "-c", "echo nameserver "+outsideServer+" | resolvconf -a u0.dhcp") }
	record()
	h.eventually("a name outside resolves", func() error { return h.gets(outside, outsideAddr) })
	before := h.resolvFiles()
	t.Log(h.run("env", "MEIBO_RESOLV=install", "dpkg", "-i", "/root/meibo.deb"))
	h.resolvesBoth()
	h.resolvState("installed")
	record() // a renewal
	h.resolvesBoth()
	h.run("meibo", "resolv", "restore")
	h.unchangedButTimes("restored", before)
	h.kills(h.unchangedButTimes, before)

	h.run("meibo", "resolv", "install")
	h.marked("etc/resolvconf.conf", immutable)
	if said, err := h.try("dpkg", "-r", "meibo"); err == nil || !strings.Contains(said, "meibo is not removed, as this host would have no DNS then") {
		t.Errorf("a removal that can't restore: %v\n%s", err, said)
	}
	h.resolvesBoth()
	h.marked("etc/resolvconf.conf", 0)
	h.run("dpkg", "-r", "meibo")
	h.unchangedButTimes("removed", before)
	h.eventually("a name outside resolves", func() error { return h.gets(outside, outsideAddr) })
}
