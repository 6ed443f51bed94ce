package fleet

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"meibo/bench/hosttest"
)

// TestFleet_AnswersWithoutServers kills every server, restarts agents meanwhile and starts one that knows nothing; then
// the servers come back with nothing at all, and the agents fill the catalog by themselves.
func TestFleet_AnswersWithoutServers(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 5)
		late := f.agents()[4]
		for _, h := range f.hosts {
			if h != late {
				h.up()
			}
		}
		f.whole()
		for _, h := range f.agents()[:4] {
			h.register("web", 80)
		}
		f.agents()[0].register("api", 8080)
		f.agents()[1].register("api", 8080)
		hosttest.Must(t, f.agents()[0].call("PUT", "/v1/catalog/register", `{"Node":"printer","Address":"192.0.2.9","Service":{"Service":"print","Port":631}}`, nil))
		f.client.settled()
		hosttest.Eventually(t, "an external service on every host", func() error { return f.external("192.0.2.9") })
		f.client.run()

		for _, s := range f.servers() {
			s.kill()
		}
		for _, h := range f.agents()[:2] {
			h.down()
			h.up()
		}
		late.up()
		hosttest.Eventually(t, "a host without a view answers from its neighbours'", func() error {
			return f.client.exactOn(late)
		})
		f.readWithoutServers(late)
		f.client.soak(time.Duration(times(6)) * 10 * time.Second)
		t.Logf("no server for %v: every host answers", time.Duration(times(6))*10*time.Second)

		// The disks of the servers are gone with all that was on them.
		for _, s := range f.servers() {
			hosttest.Must(t, os.RemoveAll(s.dir))
			hosttest.Must(t, os.MkdirAll(s.dir, 0o755))
			s.up()
		}
		begin := time.Now()
		f.whole()
		gone := f.agents()[3]
		gone.deregister("web")
		hosttest.Eventually(t, "the catalog is complete again", func() error { return f.complete(map[string]int{"web": 3, "api": 2}) })
		t.Logf("the catalog is complete again %v after the servers came back with nothing", time.Since(begin).Round(time.Millisecond))
		f.client.settled()
		if err := f.external("192.0.2.9"); err != nil {
			t.Errorf("what no agent answers for stays until somebody takes it out: %v", err)
		}
		f.unconfirmed("printer")
		hosttest.Must(t, f.agents()[0].call("PUT", "/v1/catalog/register", `{"Node":"printer","Address":"192.0.2.9","Service":{"Service":"print","Port":631}}`, nil))
		hosttest.Eventually(t, "what was registered again is confirmed", func() error {
			for _, h := range f.hosts {
				if out, err := h.meibo("nodes", "-unconfirmed"); err != nil || strings.Contains(out, "printer") {
					return fmt.Errorf("%s: %w\n%s", h.name, err, out)
				}
			}
			return nil
		})
		f.client.check()
	})
}

// readWithoutServers reads the catalog from agents while no server lives: what asks for old data or for a copy has it from
// the host, with its age; what asks for neither fails as Consul's does.
func (f *fleet) readWithoutServers(late *fleetHost) {
	t := f.t
	t.Helper()
	for _, h := range f.agents() {
		for _, how := range []string{"stale", "cached"} {
			var web []struct{ Node struct{ Node string } }
			begin := time.Now()
			header, err := h.headed("GET", "/v1/health/service/web?"+how, "", &web)
			if err != nil || len(web) != 4 {
				t.Errorf("web?%s on %s: %d instances, %v; want 4", how, h.name, len(web), err)
				continue
			}
			if took := time.Since(begin); took > 3*time.Second {
				t.Errorf("web?%s on %s took %v", how, h.name, took)
			}
			if age, _ := strconv.Atoi(header.Get("X-Consul-LastContact")); age < 1 {
				t.Errorf("web?%s on %s: last contact %q ms ago, leader known: %s", how, h.name, header.Get("X-Consul-LastContact"), header.Get("X-Consul-KnownLeader"))
			}
		}
	}
	// Its file is gone or never was: it has the names from its neighbours, and contents are asked of them.
	for _, args := range [][]string{{"services"}, {"nodes"}} {
		if out, err := late.meibo(args...); err != nil || !strings.Contains(out, "no server with a leader answers") ||
			!strings.Contains(out, map[string]string{"services": "print", "nodes": "printer"}[args[0]]) {
			t.Errorf("meibo %s: %v\n%s", args[0], err, out)
		}
	}
	if err := late.get("/v1/health/service/web", nil); err == nil || !strings.Contains(err.Error(), ": 500 ") {
		t.Errorf("a read that asks for a leader: %v", err)
	}
}

// unconfirmed sees to it that every host says alike that no server confirms the node.
func (f *fleet) unconfirmed(node string) {
	t := f.t
	t.Helper()
	for _, h := range f.hosts {
		if out, err := h.meibo("nodes", "-unconfirmed"); err != nil || !strings.Contains(out, node) {
			t.Errorf("%s lists as unconfirmed: %v\n%s", h.name, err, out)
		}
		out, err := h.meibo("lookup", "print.service.consul")
		if err != nil || !strings.Contains(out, "extended error  3 Stale Answer") || !strings.Contains(out, "no server confirms it") {
			t.Errorf("%s: lookup says %v\n%s", h.name, err, out)
		}
	}
}

// external reports which host doesn't answer for the external service.
func (f *fleet) external(addr string) error {
	for _, h := range f.hosts {
		if h.proc == nil {
			continue
		}
		addrs, err := h.resolve("print.service.consul.")
		if err != nil || len(addrs) != 1 || addrs[0].String() != addr {
			return fmt.Errorf("%s: %v %v", h.name, addrs, err)
		}
	}
	return nil
}

// complete compares the servers' own catalog with how many instances each service has.
func (f *fleet) complete(want map[string]int) error {
	for _, s := range f.servers() {
		for service, n := range want {
			var instances []struct{ Node string }
			if err := s.get("/v1/catalog/service/"+service+"?consistent", &instances); err != nil {
				return err
			}
			var nodes []string
			for _, in := range instances {
				nodes = append(nodes, in.Node)
			}
			slices.Sort(nodes)
			if len(nodes) != n {
				return fmt.Errorf("%s on %s: %v, want %d", service, s.name, nodes, n)
			}
		}
	}
	return nil
}
