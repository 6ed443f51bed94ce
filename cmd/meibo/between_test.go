package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"meibo/resolver/resolvertest"
)

// TestCatalogChanges_AreNeverAFailure: names that come and go in other ways than by a service of this host are there or
// denied at every moment, too.
func TestCatalogChanges_AreNeverAFailure(t *testing.T) {
	for _, view := range []string{"", "view { whole_below = 0 }"} {
		u := resolvertest.NewUpstream(t) // private, so it is asked for the address when the catalog has it no more
		s := newSite(t, view)
		writeFile(t, s.dir, "conf/upstream.hcl", fmt.Sprintf("recursors = [%q]", u.Addr()))
		p := s.start(t)
		s.led(t)
		eventually(t, "the catalog is known", func() error {
			reply, err := ask(s.dns, "udp", "unknown.service.consul", dns.TypeA)
			if err == nil && reply.Rcode != dns.RcodeNameError {
				err = fmt.Errorf("got %s", dns.RcodeToString[reply.Rcode])
			}
			return err
		})
		var (
			stop  atomic.Bool
			asked atomic.Int64
			wg    sync.WaitGroup
		)
		for name, qtype := range map[string]uint16{
			"ext.service.consul": dns.TypeSRV, "ext.node.consul": dns.TypeA, "red.ext.service.consul": dns.TypeA,
			"9.7.0.10.in-addr.arpa": dns.TypePTR, "old.service.consul": dns.TypeA, "new.service.consul": dns.TypeA,
		} {
			wg.Go(func() {
				for !stop.Load() {
					reply, err := ask(s.dns, "udp", name, qtype)
					asked.Add(1)
					if err != nil || reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
						t.Errorf("%s: %v %v", name, reply, err)
						return
					}
				}
			})
		}
		const node = `"Node":"ext","Address":"10.0.7.9"`
		for range 40 {
			for _, c := range [][2]string{
				{"/v1/catalog/register", `{` + node + `,"Service":{"ID":"ext","Service":"ext","Port":1,"Tags":["red"]}}`},
				{"/v1/catalog/register", `{` + node + `,"Service":{"ID":"ext","Service":"ext","Port":1}}`}, // the tag goes
				{"/v1/catalog/deregister", `{"Node":"ext","ServiceID":"ext"}`},
				{"/v1/catalog/register", `{` + node + `,"Service":{"ID":"ext","Service":"ext","Port":1}}`},
				{"/v1/catalog/deregister", `{"Node":"ext"}`},                       // with its last service
				{"/v1/agent/service/register", `{"ID":"o","Name":"old","Port":1}`}, // and renamed
				{"/v1/agent/service/register", `{"ID":"o","Name":"new","Port":1}`},
				{"/v1/agent/service/deregister/o", ""},
			} {
				s.mustCall(t, "PUT", c[0], c[1])
			}
		}
		stop.Store(true)
		wg.Wait()
		t.Logf("%q: %d questions", view, asked.Load())
		p.Stop(t)
	}
}
