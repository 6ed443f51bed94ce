package packaging

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDeb_WhatIsInTheWay: a port that another program has fails no installation, and is named; a fault in the files fails a
// reload with its words, and the daemon goes on.
func TestDeb_WhatIsInTheWay(t *testing.T) {
	p, next := packages(t, "0.0.1"), packages(t, "0.0.2")
	h := newHost(t, "faults", base(t, "trixie", bootedPackages))
	h.copy(p.deb, "root/meibo.deb")
	h.copy(next.deb, "root/new.deb")
	h.up()
	free := h.holds("0.0.0.0:53")
	said := h.run("dpkg", "-i", "/root/meibo.deb")
	if strings.Contains(said, "answers DNS") || !strings.Contains(said, "could not be started") || !strings.Contains(said, "127.0.0.1:53 is taken by other-resolver (pid ") {
		t.Errorf("who has the port isn't named:\n%s", said)
	}
	free()
	h.run("systemctl", "start", "meibo")
	h.eventually("it answers", func() error { return h.answers("dig", "+short", "localhost", "127.0.0.1") })

	h.write("etc/meibo.d/web.hcl", web)
	h.write("etc/meibo.d/wrong.hcl", "recursors = [\"nowhere at all\"]\n")
	if said, err := h.try("systemctl", "reload", "meibo"); err == nil {
		t.Errorf("a reload of a fault succeeded: %s", said)
	}
	if said := h.run("journalctl", "-q", "-u", "meibo", "-o", "cat"); !strings.Contains(said, "wrong.hcl:1") {
		t.Errorf("the journal doesn't name the fault:\n%s", said)
	}
	h.eventually("it answers on", func() error { return h.answers("dig", "+short", "localhost", "127.0.0.1") })

	// Root's commands need no port of the API.
	h.write("etc/meibo.d/noapi.hcl", "ports { http = -1 }\n")
	must(t, os.Remove(filepath.Join(h.dir, "etc/meibo.d/wrong.hcl")))
	h.run("systemctl", "restart", "meibo")
	h.eventually("root's commands go over the control socket", func() error {
		_, err := h.try("meibo", "members")
		return err
	})
	must(t, os.Remove(filepath.Join(h.dir, "etc/meibo.d/noapi.hcl")))
	h.write("etc/meibo.d/wrong.hcl", "")

	// What the daemon's user can't have, root's look says.
	h.write("etc/meibo.d/secret.hcl", "datacenter = \"dc1\"\n")
	must(t, os.Chmod(filepath.Join(h.dir, "etc/meibo.d/secret.hcl"), 0o600))
	h.write("etc/meibo.d/more.hcl", "listen = [\"127.0.0.1:53\", \"[::1]:53\"]\n")
	must(t, os.Remove(filepath.Join(h.dir, "etc/meibo.d/wrong.hcl")))
	if said := h.run("meibo", "validate", "/etc/meibo.d"); !strings.Contains(said, "secret.hcl") || !strings.Contains(said, "can't read this file") || !strings.Contains(said, "[::1]:53 would not be listened on") {
		t.Errorf("validate: %s", said)
	}
	// An address that meibo.socket lacks takes no DNS away.
	must(t, os.Remove(filepath.Join(h.dir, "etc/meibo.d/secret.hcl")))
	h.run("systemctl", "restart", "meibo")
	h.eventually("it answers without the address that it can't have", func() error { return h.answers("dig", "+short", "localhost", "127.0.0.1") })
	must(t, os.Remove(filepath.Join(h.dir, "etc/meibo.d/more.hcl")))
	h.write("etc/meibo.d/wrong.hcl", "recursors = [\"nowhere at all\"]\n")

	// An upgrade over a configuration with a fault: the package is installed, and the old state is not silently gone.
	said, err := h.try("dpkg", "-i", "/root/new.deb")
	if err != nil || !strings.Contains(said, "goes on as the version before") || !strings.Contains(said, "wrong.hcl:1") {
		t.Errorf("an upgrade over a fault in the files: %v\n%s", err, said)
	}
	if err := h.answers("dig", "+short", "localhost", "127.0.0.1"); err != nil {
		t.Errorf("it took DNS away: %v", err)
	}
	must(t, os.Remove(filepath.Join(h.dir, "etc/meibo.d/wrong.hcl")))
	h.run("systemctl", "restart", "meibo")
	h.eventually("the service is answered", func() error { return h.answers("dig", "+short", "web.service.consul", "192.0.2.10") })

	// A file of the package that somebody edited: an upgrade without a terminal, as unattended ones are.
	h.write("etc/meibo.d/host.hcl", "datacenter = \"east\"\n")
	h.run("dpkg", "-i", "--force-confdef", "--force-confold", "/root/meibo.deb")
	h.eventually("settings of one's own survive", func() error { return h.answers("dig", "+short", "web.service.east.consul", "192.0.2.10") })
}

// link joins hosts that are down to a network of their own, which lasts as long as the test: each is 10.99.0.1, 2, ….
func link(t *testing.T, hosts ...*host) {
	t.Helper()
	bridge := fmt.Sprintf("mb%d", os.Getpid()%100000)
	command(t, "ip", "netns", "add", bridge)
	t.Cleanup(func() { command(t, "ip", "netns", "del", bridge) })
	command(t, "ip", "-n", bridge, "link", "add", "br0", "type", "bridge")
	command(t, "ip", "-n", bridge, "link", "set", "br0", "up")
	for i, h := range hosts {
		ns := fmt.Sprintf("%sh%d", bridge, i+1)
		command(t, "ip", "netns", "add", ns)
		t.Cleanup(func() {
			h.down()
			command(t, "ip", "netns", "del", ns)
		})
		h.net = "/run/netns/" + ns
		port := fmt.Sprintf("p%d", i+1)
		command(t, "ip", "-n", bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns)
		command(t, "ip", "-n", bridge, "link", "set", port, "master", "br0", "up")
		command(t, "ip", "-n", ns, "link", "set", "lo", "up")
		command(t, "ip", "-n", ns, "link", "set", "eth0", "up")
		command(t, "ip", "-n", ns, "addr", "add", fmt.Sprintf("10.99.0.%d/24", i+1), "dev", "eth0")
	}
}

const clusterKey = `encrypt = "b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2w="
recursors = ["127.0.0.9"]
`

// TestDeb_RebootsWithoutServers: a host that boots while all servers are unreachable answers from disk; one that boots
// before its network is there joins once it is.
func TestDeb_RebootsWithoutServers(t *testing.T) {
	p := packages(t, "0.0.1")
	root := base(t, "trixie", bootedPackages)
	server, agent := newHost(t, "server", root), newHost(t, "agent", root)
	link(t, server, agent)
	server.write("etc/meibo.d/cluster.hcl", clusterKey+`server = true
bootstrap_expect = 1
service { name = "web" port = 8080 }
`)
	agent.write("etc/meibo.d/cluster.hcl", clusterKey+"retry_join = [\"10.99.0.1\"]\n")
	for _, h := range []*host{server, agent} {
		h.copy(p.deb, "root/meibo.deb")
		h.up()
		h.run("dpkg", "-i", "/root/meibo.deb")
	}
	known := func() error { return agent.answers("dig", "+short", "web.service.consul", "10.99.0.1") }
	agent.eventually("the agent knows the server's service", known)
	server.down()
	agent.down()

	agent.up()
	took := agent.eventually("the service is answered without any server", known)
	t.Logf("first answer %v after the boot, with the servers gone", took)
	agent.down()

	// The network comes later than the daemon, as with DHCP.
	ns := filepath.Base(agent.net)
	command(t, "ip", "-n", ns, "addr", "flush", "dev", "eth0")
	server.up()
	agent.up()
	agent.eventually("it answers without a network", known)
	command(t, "ip", "-n", ns, "addr", "add", "10.99.0.2/24", "dev", "eth0")
	agent.write("etc/meibo.d/db.hcl", "service { name = \"db\" port = 5432 }\n")
	agent.run("systemctl", "reload", "meibo")
	took = server.eventually("what the agent has is answered elsewhere, with its address", func() error {
		return server.answers("dig", "+short", "db.service.consul", "10.99.0.2")
	})
	t.Logf("known to the server %v after its network came", took)
}
