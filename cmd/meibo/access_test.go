package main

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"meibo/resolver/resolvertest"
)

// askFrom asks as a client at an address.
func askFrom(client, addr, network, name string, qtype uint16) (string, error) {
	var from net.Addr = &net.UDPAddr{IP: net.ParseIP(client)}
	if network == "tcp" {
		from = &net.TCPAddr{IP: net.ParseIP(client)}
	}
	c := dns.Client{Net: network, Timeout: 3 * time.Second, Dialer: &net.Dialer{LocalAddr: from, Timeout: 3 * time.Second}}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	reply, _, err := c.Exchange(m.SetEdns0(1232, false), addr)
	if err != nil {
		return "", err
	}
	said := dns.RcodeToString[reply.Rcode]
	if code, _, ok := resolvertest.EDE(reply); ok && reply.Rcode == dns.RcodeRefused {
		said += fmt.Sprintf(" %d", code)
	}
	return said, nil
}

func setIP(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v %s", args, err, out)
	}
}

// TestOpenListener_ResolvesForAttachedNetworksAlone: who listens everywhere is no open resolver (RFC 5358).
func TestOpenListener_ResolvesForAttachedNetworksAlone(t *testing.T) {
	inHost(t, func(t *testing.T) {
		setIP(t, "addr", "add", "10.9.0.1/24", "dev", "lo")
		// These reach this host, which has no address of theirs: outsiders.
		setIP(t, "route", "add", "local", "203.0.113.0/24", "dev", "lo")
		u := resolvertest.NewUpstream(t)
		u.Answer("www.example.net.", dns.TypeA, "www.example.net. 3600 IN A 198.51.100.1")
		dir := t.TempDir()
		round := 0
		conf := func(more string) {
			writeFile(t, dir, "agent.hcl", fmt.Sprintf(`
				node_name = "h1"
				bind_addr = "127.0.0.1"
				listen    = ["0.0.0.0:53"]
				recursors = [%q]
				%s
				service { name = "web%d" address = "192.0.2.10" port = 80 }`, u.Addr(), more, round))
		}
		conf("")
		p := startMeibo(t, "-config-dir", dir, "-data-dir", filepath.Join(dir, "data"))
		settled := func() {
			eventually(t, "the configuration is taken", func() error {
				return wantAnswer("127.0.0.1:53", fmt.Sprintf("web%d.service.consul", round), dns.TypeA, "A 192.0.2.10")
			})
		}
		settled()
		p.Said(t, "dns is served beyond this host", "10.9.0.0/24", "allow_recursion")
		// A reload takes services before it takes clients.
		soon := func(client, want string) {
			t.Helper()
			eventually(t, "clients are those of the configuration", func() error {
				if got, err := askFrom(client, "10.9.0.1:53", "udp", "www.example.net", dns.TypeA); got != want {
					return fmt.Errorf("%s: %s %v", client, got, err)
				}
				return nil
			})
		}
		want := func(client, name, want string) {
			t.Helper()
			for _, network := range []string{"udp", "tcp"} {
				if got, err := askFrom(client, "10.9.0.1:53", network, name, dns.TypeA); err != nil || got != want {
					t.Errorf("%s asks for %s over %s: %s %v, want %s", client, name, network, got, err, want)
				}
			}
		}
		want("203.0.113.9", "www.example.net", "REFUSED 18")
		wantAsked(t, u, "www.example.net.", 0)
		want("10.9.0.77", "www.example.net", "NOERROR")
		want("203.0.113.9", "www.example.net", "REFUSED 18") // in the cache by now
		want("203.0.113.9", "web0.service.consul", "NOERROR")
		eventually(t, "what does not exist is denied", func() error { // VIEWS.md 12: not before the catalog is known
			if got, err := askFrom("203.0.113.9", "10.9.0.1:53", "udp", "none.service.consul", dns.TypeA); got != "NXDOMAIN" {
				return fmt.Errorf("%s %v", got, err)
			}
			return nil
		})
		want("203.0.113.9", "localhost", "NOERROR")

		round++
		conf(`allow_recursion = ["203.0.113.0/24"]`)
		must(t, p.Process.Signal(syscall.SIGHUP))
		settled()
		soon("203.0.113.9", "NOERROR")
		want("203.0.113.9", "www.example.net", "NOERROR")
		want("10.9.0.77", "www.example.net", "REFUSED 18")
		want("10.9.0.1", "www.example.net", "NOERROR") // this host

		round++
		conf("")
		must(t, p.Process.Signal(syscall.SIGHUP))
		settled()
		soon("203.0.113.9", "REFUSED 18")
		want("203.0.113.9", "www.example.net", "REFUSED 18")
		setIP(t, "addr", "add", "203.0.113.1/24", "dev", "lo")
		soon("203.0.113.9", "NOERROR") // a new network of this host is known
		p.Stop(t)
	})
}
