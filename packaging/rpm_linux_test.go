package packaging

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRpm_OnARoot: rpm itself, with no distribution below it: what its scriptlets do, and what becomes of the settings.
// dnf, SELinux and presets are what an rpm distribution would add; the units are those of the deb.
func TestRpm_OnARoot(t *testing.T) {
	old, next := packages(t, "0.0.1"), packages(t, "0.0.2")
	h := newHost(t, "rpm", base(t, "trixie", bootedPackages))
	h.copy(old.rpm, "root/old.rpm")
	h.copy(next.rpm, "root/new.rpm")
	h.up()
	rpm := func(args ...string) string {
		t.Helper()
		return h.run(append([]string{"rpm", "--nodeps"}, args...)...)
	}
	unit := func(want string) {
		t.Helper()
		got := strings.Join(strings.Fields(h.run("systemctl", "show", "-p", "NRestarts,ActiveState,UnitFileState", "--value", "meibo.service")), " ")
		if got != want {
			t.Errorf("meibo.service is %q, want %q", got, want)
		}
	}
	h.run("rpm", "--initdb")
	said := rpm("-ivh", "/root/old.rpm")
	if !strings.Contains(said, "Name resolution of this host is as it was") {
		t.Errorf("the installation says nothing of what it leaves alone:\n%s", said)
	}
	unit("0 active enabled") // Debian's presets enable all there is
	h.write("etc/meibo.d/web.hcl", web)
	h.run("systemctl", "reload", "meibo")
	h.eventually("the service is answered", func() error { return h.answers("dig", "+short", "web.service.consul", "192.0.2.10") })

	// An edited file of the package stays as it is, and nothing asks.
	h.write("etc/meibo.d/00-meibo.hcl", "data_dir = \"/var/lib/meibo\"\n# mine\n")
	h.judge("upgrade of the rpm", h.load("web.service.consul.", func() { rpm("-Uvh", "/root/new.rpm") }), 0)
	if v := h.run("meibo", "version"); !strings.Contains(v, "0.0.2") {
		t.Errorf("after the upgrade: %s", v)
	}
	h.judge("downgrade of the rpm", h.load("web.service.consul.", func() { rpm("-Uvh", "--oldpackage", "/root/old.rpm") }), 0)
	if text, err := os.ReadFile(filepath.Join(h.dir, "etc/meibo.d/00-meibo.hcl")); err != nil || !strings.Contains(string(text), "# mine") {
		t.Errorf("what was edited is gone: %v %s", err, text)
	}
	unit("0 active enabled")

	// Taken over, and given back while the daemon still answers.
	resolvers := h.run("cat", "/etc/resolv.conf")
	h.run("meibo", "resolv", "install", "-check", "web.service.consul")
	if now := h.run("cat", "/etc/resolv.conf"); now == resolvers {
		t.Error("nothing was taken over")
	}
	rpm("-e", "meibo")
	if now := h.run("cat", "/etc/resolv.conf"); now != resolvers {
		t.Errorf("erasing does not give resolv.conf back: %s", now)
	}
	if state, err := h.try("systemctl", "is-active", "meibo.service"); err == nil {
		t.Errorf("the service is still %s", state)
	}
	for _, left := range []string{"usr/bin/meibo", "usr/lib/systemd/system/meibo.service", "etc/systemd/system/multi-user.target.wants/meibo.service", "etc/meibo.d/00-meibo.hcl"} {
		if _, err := os.Lstat(filepath.Join(h.dir, left)); err == nil {
			t.Errorf("erasing leaves /%s", left)
		}
	}
	for _, kept := range []string{"etc/meibo.d/web.hcl", "etc/meibo.d/00-meibo.hcl.rpmsave", "var/lib/meibo"} {
		if _, err := os.Stat(filepath.Join(h.dir, kept)); err != nil {
			t.Errorf("erasing takes what somebody made: %v", err)
		}
	}
}

// TestLint: lintian and rpmlint find nothing but what is answered beside the packages.
func TestLint(t *testing.T) {
	if os.Getenv("MEIBO_VERIFY") == "" {
		t.Skip("a root with lintian takes a minute to make: make verify PART=packages")
	}
	p := packages(t, "0.0.1")
	h := newHost(t, "lint", base(t, "trixie", "lintian,rpm,rpmlint"))
	h.copy(p.deb, "root/"+filepath.Base(p.deb))
	h.copy(p.rpm, "root/"+filepath.Base(p.rpm))
	h.copy("rpm/rpmlintrc.toml", "root/rpmlintrc.toml")
	if said := h.chroot("sh", "-c", "lintian --allow-root --fail-on error,warning /root/*.deb"); said != "" {
		t.Errorf("lintian: %s", said)
	}
	if said := h.chroot("sh", "-c", "rpmlint -c /root/rpmlintrc.toml /root/*.rpm || true"); !strings.Contains(said, "0 errors, 0 warnings") {
		t.Errorf("rpmlint: %s", said)
	}
}

// The manual is whole: a page for each command that the help names, and one for the keys.
func TestDeb_HasAPageForEachCommand(t *testing.T) {
	p := packages(t, "0.0.1")
	list := command(t, "dpkg-deb", "-c", p.deb)
	for _, page := range []string{"man8/meibo.8.gz", "man8/meibo-agent.8.gz", "man8/meibo-operator-raft-list-peers.8.gz", "man5/meibo.d.5.gz"} {
		if !strings.Contains(list, "/usr/share/man/"+page) {
			t.Errorf("%s is missing", page)
		}
	}
	if n := strings.Count(list, "/usr/share/man/man8/meibo-"); n < 30 {
		t.Errorf("%d pages of commands", n)
	}
}
