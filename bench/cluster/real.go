package main

import (
	"fmt"
	"time"

	"meibo/bench/servers"

	"github.com/miekg/dns"
)

// startReal adds a host that is a process of its own, whole as users have it, and asks it for each service that a host uses.
func (m *measurement) startReal() (err error) {
	if m.real, err = servers.New(m.o.bin, m.dir, len(m.servers)+1, m.debug()); err != nil {
		return err
	}
	if err := m.real.Start(); err != nil {
		return err
	}
	client := &dns.Client{Timeout: time.Second}
	deadline := time.Now().Add(time.Minute)
	for _, s := range m.f.uses(0, newZipf(m.f.Services)) {
		q := new(dns.Msg)
		q.SetQuestion(serviceName(s)+".service.consul.", dns.TypeA)
		q.SetEdns0(4096, false)
		for {
			in, _, err := client.Exchange(q, m.real.Addr+":8600")
			if err == nil && in.Rcode == dns.RcodeSuccess && len(in.Answer) > 0 {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("the real host has no answer for %s within a minute: %v %v", q.Question[0].Name, in, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

// readReal is what the real host holds in memory, in octets, and the processor time that it has used.
func (m *measurement) readReal() (resident int64, cpu time.Duration) {
	return m.real.Resident(), servers.Cluster{m.real}.CPU()
}
