package resolvertest

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Asked is one question that an Upstream received.
type Asked struct {
	Name  string
	Type  uint16
	ID    uint16
	Port  uint16 // of the client
	TCP   bool
	EDNS  bool
	DO    bool
	CD    bool
	AD    bool
	Size  uint16 // of the OPT
	Class uint16
}

// Upstream is a name server on loopback, UDP and TCP on one port, that does what
// its rules say. It answers what it has no rule for with NXDOMAIN, and the root's
// NS, which probes ask for, with a record.
type Upstream struct {
	t    testing.TB
	udp  *net.UDPConn
	tcp  *net.TCPListener
	addr netip.AddrPort
	wg   sync.WaitGroup
	done chan struct{}

	mu    sync.Mutex // guards following
	rules map[string]*Rule
	down  bool
	plain bool // loses all questions with an OPT
	rcode int  // answers them so, and without an OPT; 0: not
	asked []Asked
	conns map[net.Conn]struct{}
}

// NewUpstream starts an Upstream; it ends with the test.
func NewUpstream(t testing.TB) *Upstream {
	t.Helper()
	u := &Upstream{t: t, done: make(chan struct{}), rules: map[string]*Rule{}, conns: map[net.Conn]struct{}{}}
	u.Set(".", dns.TypeNS, Rule{Records: []string{". 3600 IN NS ns.test."}})
	u.bind()
	u.wg.Go(u.serveUDP)
	u.wg.Go(u.serveTCP)
	t.Cleanup(u.stop)
	return u
}

// bind takes a port that is free for both protocols.
func (u *Upstream) bind() {
	u.t.Helper()
	for range 20 {
		tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			u.t.Fatalf("listen: %v", err)
		}
		port := tcp.Addr().(*net.TCPAddr).Port
		udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err == nil {
			u.tcp, u.udp = tcp, udp
			u.addr = tcp.Addr().(*net.TCPAddr).AddrPort()
			return
		}
		tcp.Close()
	}
	u.t.Fatal("no port is free for UDP and TCP")
}

func (u *Upstream) stop() {
	close(u.done)
	u.udp.Close()
	u.tcp.Close()
	u.mu.Lock()
	for c := range u.conns {
		c.Close()
	}
	u.mu.Unlock()
	u.wg.Wait()
}

// Addr is where it listens.
func (u *Upstream) Addr() netip.AddrPort { return u.addr }

// Set gives the rule for a question, or replaces it.
func (u *Upstream) Set(name string, typ uint16, r Rule) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rules[key(name, typ)] = &r
}

// Answer is Set with records only.
func (u *Upstream) Answer(name string, typ uint16, records ...string) {
	u.Set(name, typ, Rule{Records: records})
}

// SetDown makes it silent, or speak again.
func (u *Upstream) SetDown(down bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.down = down
}

// SetPlain makes it lose all questions with an OPT.
func (u *Upstream) SetPlain(plain bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.plain = plain
}

// SetRefusing makes it answer all questions with an OPT by a response code, without
// one; 0 ends that.
func (u *Upstream) SetRefusing(rcode int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rcode = rcode
}

// Asked lists the questions received for a name, in any letter case; all names
// for "".
func (u *Upstream) Asked(name string) []Asked {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []Asked
	for _, a := range u.asked {
		if name == "" || strings.EqualFold(a.Name, dns.Fqdn(name)) {
			out = append(out, a)
		}
	}
	return out
}

// hear notes a question and returns the rule for it; false: stay silent.
func (u *Upstream) hear(req *dns.Msg, from netip.AddrPort, tcp bool) (Rule, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	q := req.Question[0]
	a := Asked{Name: q.Name, Type: q.Qtype, Class: q.Qclass, ID: req.Id, Port: from.Port(), TCP: tcp, CD: req.CheckingDisabled, AD: req.AuthenticatedData}
	if o := req.IsEdns0(); o != nil {
		a.EDNS, a.DO, a.Size = true, o.Do(), o.UDPSize()
	}
	u.asked = append(u.asked, a)
	r := u.rules[key(q.Name, q.Qtype)]
	if u.plain && a.EDNS {
		return Rule{}, false
	}
	if u.rcode != 0 && a.EDNS {
		return Rule{RefuseEDNS: true, RefuseWith: u.rcode}, true
	}
	if r == nil {
		return NXDomain("test.", 60), !u.down
	}
	speak := !u.down && !r.Drop && r.DropFirst == 0 && !(r.DropEDNS && a.EDNS)
	if r.DropFirst > 0 {
		r.DropFirst--
	}
	return *r, speak
}

func (u *Upstream) serveUDP() {
	buf := make([]byte, 65535)
	for {
		n, from, err := u.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		req := new(dns.Msg)
		if req.Unpack(buf[:n]) != nil || len(req.Question) != 1 {
			continue
		}
		r, speak := u.hear(req, from, false)
		if !speak {
			continue
		}
		u.wg.Go(func() {
			if u.sleep(r.Delay) {
				u.sendUDP(req, r, from)
			}
		})
	}
}

// sleep waits; false: the test is over.
func (u *Upstream) sleep(d time.Duration) bool {
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-u.done:
		return false
	}
}

func (u *Upstream) sendUDP(req *dns.Msg, r Rule, to netip.AddrPort) {
	send := func(b []byte) { u.udp.WriteToUDPAddrPort(b, to) }
	if req.IsEdns0() != nil && (r.RefuseEDNS || r.BareFormErr) {
		rcode := dns.RcodeFormatError
		if r.RefuseWith != 0 {
			rcode = r.RefuseWith
		}
		m := new(dns.Msg).SetRcode(req, rcode)
		if r.BareFormErr {
			m.Question = nil
		}
		if r.RefuseWithOPT {
			m.SetEdns0(1232, false)
		}
		send(u.pack(m))
		return
	}
	genuine := u.pack(u.build(req, r, false))
	if r.Mangle != nil {
		genuine = r.Mangle(genuine)
	}
	for range r.Garbage {
		send([]byte("\x00\x01garbage that is no message at all"))
	}
	for range r.WrongID {
		forged := append([]byte(nil), genuine...)
		binary.BigEndian.PutUint16(forged, req.Id+1)
		send(forged)
	}
	for range r.WrongQuestion {
		m := u.build(req, r, false)
		m.Question[0].Name = "forged." + m.Question[0].Name
		send(u.pack(m))
	}
	if r.NoAnswer {
		return
	}
	send(genuine)
	if r.Twice {
		send(genuine)
	}
}

func (u *Upstream) build(req *dns.Msg, r Rule, tcp bool) *dns.Msg {
	m, err := r.message(req)
	if err != nil {
		u.t.Errorf("resolvertest: %v", err)
		return new(dns.Msg).SetRcode(req, dns.RcodeServerFailure)
	}
	if r.Truncate && !tcp {
		m.Truncated = true
		if !r.Partial {
			m.Answer, m.Ns = nil, nil
		}
	}
	if r.LowerCase {
		m.Question[0].Name = strings.ToLower(m.Question[0].Name)
	}
	return m
}

func (u *Upstream) pack(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		u.t.Errorf("resolvertest: pack: %v", err)
	}
	return b
}

func (u *Upstream) serveTCP() {
	for {
		c, err := u.tcp.Accept()
		if err != nil {
			return
		}
		u.mu.Lock()
		u.conns[c] = struct{}{}
		u.mu.Unlock()
		u.wg.Go(func() {
			u.serveConn(c)
			c.Close()
			u.mu.Lock()
			delete(u.conns, c)
			u.mu.Unlock()
		})
	}
}

func (u *Upstream) serveConn(c net.Conn) {
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		b := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		req := new(dns.Msg)
		if req.Unpack(b) != nil || len(req.Question) != 1 {
			return
		}
		r, speak := u.hear(req, c.RemoteAddr().(*net.TCPAddr).AddrPort(), true)
		if !speak || r.NoTCP || !u.sleep(r.Delay) {
			return
		}
		out := u.pack(u.build(req, r, true))
		if r.MangleTCP != nil {
			out = r.MangleTCP(out)
		}
		c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
	}
}
