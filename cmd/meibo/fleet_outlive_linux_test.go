package main

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// TestFleet_AnswersWithoutServers kills every server, restarts agents meanwhile and starts one that knows nothing; then
// the servers come back with nothing at all, and the agents fill the catalog by themselves.
func TestFleet_AnswersWithoutServers(t *testing.T) {
	inHost(t, func(t *testing.T) {
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
		must(t, f.agents()[0].call("PUT", "/v1/catalog/register", `{"Node":"printer","Address":"192.0.2.9","Service":{"Service":"print","Port":631}}`, nil))
		f.client.settled()
		eventually(t, "an external service on every host", func() error { return f.external("192.0.2.9") })
		f.client.run()

		for _, s := range f.servers() {
			s.kill()
		}
		for _, h := range f.agents()[:2] {
			h.down()
			h.up()
		}
		late.up()
		eventually(t, "a host without a view answers from its neighbours'", func() error {
			return f.client.exactOn(late)
		})
		f.client.soak(time.Duration(times(6)) * 10 * time.Second)
		t.Logf("no server for %v: every host answers", time.Duration(times(6))*10*time.Second)

		// The disks of the servers are gone with all that was on them.
		for _, s := range f.servers() {
			must(t, os.RemoveAll(s.dir))
			must(t, os.MkdirAll(s.dir, 0o755))
			s.up()
		}
		begin := time.Now()
		f.whole()
		gone := f.agents()[3]
		gone.deregister("web")
		eventually(t, "the catalog is complete again", func() error { return f.complete(map[string]int{"web": 3, "api": 2}) })
		t.Logf("the catalog is complete again %v after the servers came back with nothing", time.Since(begin).Round(time.Millisecond))
		f.client.settled()
		if err := f.external("192.0.2.9"); err != nil {
			t.Errorf("what no agent answers for stays until somebody takes it out: %v", err)
		}
		f.client.check()
	})
}

// external reports which host doesn't answer for the external service.
func (f *fleet) external(addr string) error {
	for _, h := range f.agents() {
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
