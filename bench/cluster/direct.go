package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"

	"meibo/bench/servers"

	"github.com/miekg/dns"
)

const (
	directRate  = 10_000 // questions a second
	directAsk   = 16     // sockets, each with one question at a time
	directGrace = time.Second
)

// direct measures what a lookup costs a server that every host asks: meibo's, and Consul's where it is installed.
func (m *measurement) direct() error {
	micros, err := m.askServer(m.leader, m.leader.Addr+":8600")
	if err != nil {
		return err
	}
	m.result.DirectMicros, m.result.DirectOf = micros, "meibo, its cache off"
	bin, err := exec.LookPath("consul")
	if err != nil {
		return nil
	}
	const addr = "127.1.0.9"
	s, err := servers.Program(m.dir, addr, bin, "agent", "-dev", "-bind", addr, "-client", addr, "-log-level", "warn")
	if err == nil {
		err = s.Start()
	}
	if err != nil {
		return err
	}
	defer s.Kill()
	if _, err := (servers.Cluster{s}).Leader(); err != nil {
		return fmt.Errorf("consul: %w", err)
	}
	if err := s.Fill(m.f.Services*m.f.Each, m.f.passing, nil); err != nil {
		return fmt.Errorf("consul: %w", err)
	}
	if micros, err = m.askServer(s, addr+":8600"); err == nil {
		m.result.DirectMicros, m.result.DirectOf = micros, "Consul"
	}
	return err
}

// askServer asks at an even rate and returns the processor time of one question, in microseconds.
func (m *measurement) askServer(s *servers.Server, addr string) (float64, error) {
	z := newZipf(m.f.Services)
	var asked, failed atomic.Int64
	var wg sync.WaitGroup
	before := servers.Cluster{s}.CPU()
	end := time.Now().Add(m.o.Window / 2)
	for range directAsk {
		nc, err := net.Dial("udp", addr)
		if err != nil {
			return 0, err
		}
		wg.Go(func() {
			defer nc.Close()
			buf := make([]byte, 4096)
			for next := time.Now(); time.Now().Before(end); next = next.Add(time.Second * directAsk / directRate) {
				time.Sleep(time.Until(next))
				q := new(dns.Msg)
				q.SetQuestion(serviceName(z.draw(rand.Float64()))+".service.consul.", dns.TypeA)
				q.SetEdns0(1232, false)
				packed, _ := q.Pack()
				_, _ = nc.Write(packed)
				_ = nc.SetReadDeadline(time.Now().Add(directGrace))
				n, err := nc.Read(buf)
				asked.Add(1)
				if err != nil || n < 12 || buf[3]&15 != 0 {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := failed.Load(); n > asked.Load()/100 {
		return 0, fmt.Errorf("%d of %d questions to %s failed", n, asked.Load(), addr)
	}
	return float64((servers.Cluster{s}.CPU() - before).Microseconds()) / float64(asked.Load()), nil
}
