package main

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/miekg/dns"

	"meibo/cmd/meibo/config"
)

// TestThreeDaemonsInOneProcess: the daemon is a value. Nothing of it is global, all of it ends with its context, and it
// can be started again from what it left on disk.
func TestThreeDaemonsInOneProcess(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	for round := range 2 {
		var stops []func()
		for i, dir := range dirs {
			s := &site{dir: dir, dnsPort: freePort(t), httpPort: freePort(t)}
			s.dns, s.http = fmt.Sprintf("127.0.0.1:%d", s.dnsPort), fmt.Sprintf("127.0.0.1:%d", s.httpPort)
			stops = append(stops, startInProcess(t, s, fmt.Sprintf("h%d", i)))
			own := fmt.Sprintf("A 192.0.2.%d", i+1)
			eventually(t, "each answers its own", func() error { return wantAnswer(s.dns, "web.service.consul", dns.TypeA, own) })
			s.led(t)
			kept := fmt.Sprintf("kept%d.service.consul", i)
			if round == 0 {
				s.mustCall(t, "PUT", "/v1/catalog/register", fmt.Sprintf(`{"Node":"ext","Address":"198.51.100.%d","Service":{"Service":"kept%d","Port":1}}`, i+1, i))
			}
			eventually(t, "and what it was given", func() error {
				return wantAnswer(s.dns, kept, dns.TypeA, fmt.Sprintf("A 198.51.100.%d", i+1))
			})
		}
		for _, stop := range stops {
			stop()
		}
	}
}

// startInProcess starts a daemon as a value and returns what stops it.
func startInProcess(t *testing.T, s *site, node string) (stop func()) {
	t.Helper()
	writeFile(t, s.dir, "conf/agent.hcl", fmt.Sprintf(`
		node_name = %q
		bind_addr = "127.0.0.1"
		data_dir  = %q
		recursors = ["127.0.0.1:9"]
		ports { dns = %d  http = %d }
		service { name = "web" address = "192.0.2.%c" port = 80 }`,
		node, s.data(), s.dnsPort, s.httpPort, '1'+node[1]-'0'))
	cfg, _, err := config.Load(config.Sources{Paths: []string{filepath.Join(s.dir, "conf")}})
	must(t, err)
	d, err := newDaemon(daemonConfig{Config: cfg})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("%s ended with %v", node, err)
		}
	}
}

func TestForwardConsul_TakesThePlaceOfTheOwnZone(t *testing.T) {
	agent := newSite(t, "") // stands for the Consul agent that stays on the host
	agent.start(t)
	agent.up(t)
	eventually(t, "the agent knows its catalog and denies a name", func() error {
		reply, err := ask(agent.dns, "udp", "hidden.service.consul", dns.TypeA)
		if err == nil && reply.Rcode != dns.RcodeNameError {
			err = fmt.Errorf("got %s, want NXDOMAIN", dns.RcodeToString[reply.Rcode])
		}
		return err
	})
	cache := newSite(t, fmt.Sprintf("service { name = \"hidden\" address = \"192.0.2.77\" port = 1 }\nforward \"consul\" { servers = [%q] }", agent.dns))
	cache.start(t)
	eventually(t, "the agent's answer comes through", func() error {
		return wantAnswer(cache.dns, "web.service.consul", dns.TypeA, "A 192.0.2.10")
	})
	reply, err := ask(cache.dns, "udp", "hidden.service.consul", dns.TypeA)
	must(t, err)
	if reply.Rcode != dns.RcodeNameError {
		t.Errorf("the own zone still answers: %v", reply)
	}
}

func TestUnusableSettings_AreNamedAtTheStart(t *testing.T) {
	for name, tc := range map[string]struct {
		more string
		want []string
	}{
		"other datacenters": {`retry_join_wan = ["192.0.2.1"]`, []string{"agent.hcl:7", "retry_join_wan", "other datacenters"}},
		"TLS for RPC":       {`verify_incoming = true`, []string{"agent.hcl:7", "verify_incoming"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, tc.more)
			p := s.start(t)
			s.up(t)
			p.Said(t, tc.want...)
		})
	}
}

func TestJoiningHost_DeniesNothingBeforeItHasMetAnybody(t *testing.T) {
	s := newSite(t, `retry_join = ["127.0.0.9:9"]`)
	s.start(t)
	s.up(t)
	reply, err := ask(s.dns, "udp", "unknown.service.consul", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false) })
	must(t, err)
	if reply.Rcode != dns.RcodeServerFailure {
		t.Errorf("VIEWS.md 12: a name that may exist elsewhere is denied: %v", reply)
	}
}
