package packaging

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestMigrate_FromDnsmasq takes a host from dnsmasq to meibo and back under load, with a Consul agent that stays; and ends
// half-way for every reason there is, after which all is as it was.
func TestMigrate_FromDnsmasq(t *testing.T) {
	for _, suite := range suites() {
		for _, way := range []struct{ name, lines string }{
			{"one address", "listen-address=127.0.0.1\nbind-interfaces\n"},
			{"all addresses", ""}, // what Debian's package does by itself
		} {
			if way.lines == "" && os.Getenv("MEIBO_VERIFY") == "" {
				continue // a minute
			}
			t.Run(suite+"/"+way.name, func(t *testing.T) { migrate(t, suite, way.lines) })
		}
	}
}

func migrate(t *testing.T, suite, lines string) {
	h := newHost(t, "migrate-"+suite, base(t, suite, bootedPackages+",dnsmasq"))
	h.write("etc/dnsmasq.d/host", lines+"no-resolv\nserver=127.0.0.9#5399\nserver=/consul/127.0.0.1#8600\nhost-record=box.lan,192.0.2.7\naddress=/app.test/192.0.2.10\naddress=/blocked.test/\n")
	h.write("etc/consul.d/agent.hcl", "datacenter = \"dc1\"\nretry_join = [\"10.0.0.11\"]\nencrypt = \"b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2w=\"\n")
	h.copy(packages(t, "0.0.1").deb, "root/meibo.deb")
	h.up()
	defer h.other("MEIBO_PACKAGING_UPSTREAM=127.0.0.9:5399")()
	defer h.other("MEIBO_PACKAGING_UPSTREAM=127.0.0.1:8600")() // in the agent's place
	h.run("systemctl", "restart", "dnsmasq")
	h.eventually("dnsmasq answers", func() error { return h.answers("dig", "+short", "www.example", upstreamAddress) })
	if said := h.run("dpkg", "-i", "/root/meibo.deb"); !strings.Contains(said, "dnsmasq (pid ") {
		t.Errorf("the installation doesn't name who has the port:\n%s", said)
	}
	before := h.state()
	const name = "www.example."
	apply := []string{"meibo", "migrate", "-apply", "-name", name}
	scenarios := 0

	// Only looked at.
	said := h.run("meibo", "migrate")
	if !strings.Contains(said, "+++ /etc/meibo.d/60-consul.hcl") || strings.Contains(said, "b2xk") {
		t.Errorf("the plan: %s", said)
	}
	h.same("looked at", before)

	// A fault in the files that are there: found before anything is touched.
	h.write("etc/meibo.d/wrong.hcl", "recursors = [\"nowhere at all\"]\n")
	if said, err := h.try(apply...); err == nil || !strings.Contains(said, "/etc/meibo.d/wrong.hcl:1") {
		t.Errorf("a fault in the files: %v\n%s", err, said)
	}
	must(t, os.Remove(filepath.Join(h.dir, "etc/meibo.d/wrong.hcl")))
	h.same("a fault in the files", before)
	if said, err := h.try("meibo", "migrate", "-apply", "-name", "nobody.blocked.test."); err == nil || !strings.Contains(said, "which -name says must be answered") {
		t.Errorf("a name that nobody answers: %v\n%s", err, said)
	}
	h.same("a name that nobody answers", before)
	scenarios += 3

	// Half-way, under load: what is answered is answered all the time.
	const gone = "a name is not answered any more"
	const unit = "etc/systemd/system/meibo.service.d/test.conf"
	for _, tc := range []struct{ what, path, text, why string }{
		{"meibo is killed as it starts", unit, "[Service]\nExecStart=\nExecStart=/bin/sh -c 'kill -KILL $$$$'\nNoExecPaths=\nExecPaths=\n", "systemctl start meibo.service"},
		{"meibo can't be run", unit, "[Service]\nExecStart=\nExecStart=/nowhere/meibo\n", "systemctl start meibo.service"},
		{gone, "etc/meibo.d/99-wrong.hcl", "forward \"example\" { local = true }\n", "www.example. A is answered with NXDOMAIN; before: " + upstreamAddress},
		{"another answer", "etc/meibo.d/99-wrong.hcl", "forward \"app.test\" { addresses = [\"192.0.2.11\"] }\n", "app.test. A is answered with "},
	} {
		h.write(tc.path, tc.text)
		h.run("systemctl", "daemon-reload")
		as := h.state()
		var err error
		r := h.load(name, func() { said, err = h.try(apply...) })
		if err == nil || !strings.Contains(said, tc.why) || !strings.Contains(said, "everything is as it was before") {
			t.Errorf("%s: %v\n%s", tc.what, err, said)
		}
		if tc.what == gone { // it is, until that has been found
			r.Answered, r.Wrong = r.Answered+r.Wrong, 0
		}
		lost := 0
		if tc.path == unit { // what came between the unit's sockets and the hold on them
			lost = loadRate / 10
		}
		h.judge(tc.what, r, lost)
		h.same(tc.what, as)
		must(t, os.RemoveAll(filepath.Join(h.dir, tc.path)))
		if tc.path == unit {
			must(t, os.Remove(filepath.Dir(filepath.Join(h.dir, tc.path))))
		}
		h.run("systemctl", "daemon-reload")
		scenarios++
	}

	// Interrupted, it goes back by itself; killed, when it is told to.
	for _, when := range []string{"0.3", "0.8", "1.2"} {
		if said, err := h.try(append([]string{"timeout", "-s", "INT", when}, apply...)...); err == nil {
			t.Logf("it took less than %s s:\n%s", when, said)
			h.run("meibo", "migrate", "-undo")
		}
		h.same("interrupted after "+when, before)
		if _, err := h.try(append([]string{"timeout", "-s", "KILL", when}, apply...)...); err == nil {
			t.Logf("it took less than %s s", when)
		}
		if said, err := h.try("meibo", "migrate", "-undo"); err != nil && !strings.Contains(said, "nothing to take back") {
			t.Errorf("killed after %s: %v\n%s", when, err, said)
		}
		h.same("killed after "+when, before)
		scenarios += 2
	}

	// There, and back, under load.
	h.judge("migration", h.load(name, func() { said = h.run(apply...) }), 0)
	t.Log(said)
	if got := strings.Fields(h.run("systemctl", "show", "-p", "ActiveState,UnitFileState", "--value", "dnsmasq.service", "meibo.service", "meibo.socket")); fmt.Sprint(got) != "[inactive disabled active enabled active enabled]" {
		t.Errorf("units: %v", got)
	}
	for _, q := range [][2]string{{"www.example", upstreamAddress}, {"web.service.consul", upstreamAddress}, {"box.lan", "192.0.2.7"}, {"a.app.test", "192.0.2.10"}} {
		if err := h.answers("dig", "+short", q[0], q[1]); err != nil {
			t.Error(err)
		}
	}
	if said, err := h.try(apply...); err == nil || !strings.Contains(said, "-undo") {
		t.Errorf("a second time: %v\n%s", err, said)
	}
	h.judge("the way back", h.load(name, func() { h.run("meibo", "migrate", "-undo") }), 0)
	h.same("there and back", before)
	if said, err := h.try("meibo", "migrate", "-undo"); err == nil || !strings.Contains(said, "nothing to take back") {
		t.Errorf("taken back twice: %v\n%s", err, said)
	}
	t.Logf("%d scenarios", scenarios+3)
}

// state is all of /etc, byte for byte, and what the units are.
func (h *host) state() map[string]string {
	h.t.Helper()
	out := map[string]string{}
	etc := filepath.Join(h.dir, "etc")
	must(h.t, filepath.WalkDir(etc, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode()&os.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " " + to
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += " " + string(data)
		}
		out[strings.TrimPrefix(path, h.dir)] = text
		return nil
	}))
	for _, unit := range []string{"dnsmasq.service", "meibo.service", "meibo.socket"} {
		enabled, _ := h.try("systemctl", "is-enabled", unit)
		active, _ := h.try("systemctl", "is-active", unit)
		if strings.TrimSpace(active) != "active" {
			active = "not active" // failed or not doesn't matter
		}
		out[unit] = strings.TrimSpace(enabled) + " " + strings.TrimSpace(active)
	}
	return out
}

// same looks whether the host is as it was.
func (h *host) same(what string, before map[string]string) {
	h.t.Helper()
	if diff := cmp.Diff(before, h.state()); diff != "" {
		h.t.Errorf("%s: -before +after:\n%s", what, diff)
	}
	if err := h.answers("dig", "+short", "box.lan", "192.0.2.7"); err != nil {
		h.t.Errorf("%s: %v", what, err)
	}
}

// TestMigrate_Standalone replaces a Consul agent too: its services are answered by meibo, which alone reads the files with
// secrets; the agent's unit is stopped, and comes back with the rest.
func TestMigrate_Standalone(t *testing.T) {
	h := newHost(t, "standalone", base(t, "trixie", bootedPackages+",dnsmasq"))
	h.write("etc/dnsmasq.d/host", "listen-address=127.0.0.1\nbind-interfaces\nno-resolv\nserver=/consul/127.0.0.1#8600\nhost-record=box.lan,192.0.2.7\n")
	const key = "b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2w="
	h.write("etc/consul.d/agent.hcl", "datacenter = \"dc1\"\ndata_dir = \"/opt/consul\"\nretry_join = [\"10.0.0.11\"]\nencrypt = \""+key+"\"\n")
	h.write("etc/consul.d/web.json", `{"service": {"name": "web", "address": "192.0.2.10", "port": 80, "token": "SECRET"}}`)
	h.write("etc/systemd/system/consul.service", "[Unit]\nDescription=stands for the agent\n[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n")
	h.copy(packages(t, "0.0.1").deb, "root/meibo.deb")
	h.up()
	h.run("systemctl", "enable", "--now", "consul.service")
	h.run("dpkg", "-i", "/root/meibo.deb")
	before := h.state()
	said := h.run("meibo", "migrate", "-apply", "-standalone")
	if strings.Contains(said, key) || strings.Contains(said, "SECRET") || !strings.Contains(said, "leaves its cluster") {
		t.Errorf("it says:\n%s", said)
	}
	if err := h.answers("dig", "+short", "web.service.consul", "192.0.2.10"); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]string{
		"/etc/meibo.d/60-consul-02-web.json": "640 root:meibo", "/var/backups/meibo-migrate.json": "600 root:root", "/etc/meibo.d/50-dnsmasq.hcl": "644 root:root",
	} {
		if got := strings.TrimSpace(h.run("stat", "-c", "%a %U:%G", path)); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	if got := strings.Fields(h.run("systemctl", "show", "-p", "ActiveState,UnitFileState", "--value", "dnsmasq.service", "consul.service")); fmt.Sprint(got) != "[inactive disabled inactive disabled]" {
		t.Errorf("units: %v", got)
	}
	h.run("meibo", "migrate", "-undo")
	h.same("taken back", before)
	if got := strings.TrimSpace(h.run("systemctl", "is-active", "consul.service")); got != "active" {
		t.Errorf("the agent is %s", got)
	}
}
