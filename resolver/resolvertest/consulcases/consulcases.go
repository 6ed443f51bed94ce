// Package consulcases holds what Consul's own DNS tests ask for, as a table
// that can be put to any server: one in the test's process, or a built binary
// over sockets. Rows whose answer differs from Consul's on purpose say why.
//
// It is used by tests alone.
package consulcases

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// Case is one row: a configuration, a catalog, and questions with the answers
// they must get.
type Case struct {
	// Name says the rule; Of names Consul's tests that it comes from.
	Name string
	Of   string
	// Config is JSON with Consul's keys; "" is the defaults. Node name
	// "server1" and datacenter "dc1" are set where it doesn't.
	Config string
	// Register are bodies of PUT /v1/catalog/register, in order.
	Register []string
	// Upstream are records that the only recursor has; nil means that there is
	// no recursor.
	Upstream []string
	Asks     []Ask
	// Difference says why the answer isn't Consul's, where it is not.
	Difference string
}

// Ask is one question and its answer.
type Ask struct {
	Name string
	Type string // "A"
	// UDPSize is the EDNS size; 0 means no EDNS.
	UDPSize uint16
	TCP     bool
	// Want is the answer as Text writes it; not looked at when Check is set.
	Want string
	// Check looks at the answer and the octets it took. It returns what is
	// wrong, "" when nothing is.
	Check func(m *dns.Msg, size int) string
	// Times is how often the question is put to Check; 0 means once.
	Times int
}

// Server is what is tested.
type Server interface {
	// Register puts a body to the catalog; when it returns the registration
	// shows in answers, or will within Patience.
	Register(body string) error
	// Exchange sends a packed query ("udp" or "tcp") and returns the reply.
	Exchange(network string, query []byte) ([]byte, error)
	// Patience is how long an answer may take to be the right one.
	Patience() time.Duration
}

// Start starts a server with a configuration (JSON) and a recursor that has the
// records; upstream is nil where there is to be no recursor. The server is
// stopped by t.Cleanup.
type Start func(t testing.TB, config string, upstream []string) Server

// Run puts every case to a server of its own.
func Run(t *testing.T, start Start) {
	for _, c := range All() {
		t.Run(c.Name, func(t *testing.T) {
			s := start(t, c.Config, c.Upstream)
			for _, body := range c.Register {
				if err := s.Register(body); err != nil {
					t.Fatalf("register %s: %v", body, err)
				}
			}
			for _, a := range c.Asks {
				a.put(t, s)
			}
		})
	}
}

// put asks until the answer is right or patience ends.
func (a Ask) put(t *testing.T, s Server) {
	t.Helper()
	for range max(a.Times, 1) {
		fault := a.try(s)
		for end := time.Now().Add(s.Patience()); fault != "" && time.Now().Before(end); fault = a.try(s) {
			time.Sleep(5 * time.Millisecond) // a server in another process tells of no event
		}
		if fault != "" {
			t.Errorf("%s %s: %s", a.Name, a.Type, fault)
			return
		}
	}
}

func (a Ask) try(s Server) (fault string) {
	m, size, err := a.exchange(s)
	if err != nil {
		return err.Error()
	}
	if fault := a.checkForm(m); fault != "" {
		return fault
	}
	if a.Check != nil {
		return a.Check(m, size)
	}
	if diff := cmp.Diff(normal(a.Want), Text(m)); diff != "" {
		return "answer (-want +got):\n" + diff
	}
	return ""
}

func (a Ask) exchange(s Server) (*dns.Msg, int, error) {
	q := new(dns.Msg)
	q.SetQuestion(a.Name, dns.StringToType[a.Type])
	if a.UDPSize > 0 {
		q.SetEdns0(a.UDPSize, false)
	}
	query, err := q.Pack()
	if err != nil {
		return nil, 0, err
	}
	network := "udp"
	if a.TCP {
		network = "tcp"
	}
	reply, err := s.Exchange(network, query)
	if err != nil {
		return nil, 0, err
	}
	m := new(dns.Msg)
	if err := m.Unpack(reply); err != nil {
		return nil, 0, fmt.Errorf("unpack the reply: %w", err)
	}
	if m.Id != q.Id {
		return nil, 0, errors.New("the reply has another ID")
	}
	return m, len(reply), nil
}

// checkForm checks what holds for every answer: QR, RA and RD, the question
// byte for byte, an OPT where one was sent, the client's size.
func (a Ask) checkForm(m *dns.Msg) string {
	switch {
	case !m.Response || !m.RecursionAvailable || !m.RecursionDesired:
		return fmt.Sprintf("flags are wrong: %v", m.MsgHdr)
	case len(m.Question) != 1 || m.Question[0].Name != a.Name || m.Question[0].Qtype != dns.StringToType[a.Type]:
		return fmt.Sprintf("the question came back as %v", m.Question)
	case (m.IsEdns0() != nil) != (a.UDPSize > 0):
		return "an OPT record must be there exactly when one was sent"
	}
	return ""
}

// Text writes an answer as lines: the rcode with "aa" and "tc", then each
// record after its section ("an", "ns", "ar"), sorted within sections. The SOA
// serial is written as 1, OPT left out.
func Text(m *dns.Msg) string {
	head := dns.RcodeToString[m.Rcode]
	if m.Authoritative {
		head += " aa"
	}
	if m.Truncated {
		head += " tc"
	}
	lines := []string{head}
	for _, s := range []struct {
		name string
		rrs  []dns.RR
	}{{"an", m.Answer}, {"ns", m.Ns}, {"ar", m.Extra}} {
		var section []string
		for _, rr := range s.rrs {
			if rr.Header().Rrtype != dns.TypeOPT {
				section = append(section, s.name+" "+record(rr))
			}
		}
		slices.Sort(section)
		lines = append(lines, section...)
	}
	return strings.Join(lines, "\n")
}

// record writes a record without its class.
func record(rr dns.RR) string {
	if soa, ok := rr.(*dns.SOA); ok {
		c := *soa
		c.Serial = 1
		rr = &c
	}
	return strings.Replace(strings.ReplaceAll(rr.String(), "\t", " "), " IN ", " ", 1)
}

// normal takes the indentation off a text written in a table.
func normal(text string) string {
	var lines []string
	for _, l := range strings.Split(strings.TrimSpace(text), "\n") {
		lines = append(lines, strings.TrimSpace(l))
	}
	return strings.Join(lines, "\n")
}

// Dial sends queries to a DNS server at an address, for servers in another
// process.
func Dial(addr, network string, query []byte) ([]byte, error) {
	conn, err := net.DialTimeout(network, addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	if network == "udp" {
		if _, err := conn.Write(query); err != nil {
			return nil, err
		}
		buf := make([]byte, 65535)
		n, err := conn.Read(buf)
		return buf[:n], err
	}
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err = io.ReadFull(conn, buf)
	return buf, err
}

// Upstream answers a query from records, as a recursive server would: chains
// are followed, a name that isn't there is denied with the SOA of "test-upstream.".
func Upstream(records []string, q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	name, known := q.Question[0].Name, false
	for range 8 {
		next := ""
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil {
				panic(err)
			}
			if !strings.EqualFold(rr.Header().Name, name) {
				continue
			}
			known = true
			if c, ok := rr.(*dns.CNAME); ok {
				next = c.Target
			}
			if t := rr.Header().Rrtype; t == q.Question[0].Qtype || t == dns.TypeCNAME {
				m.Answer = append(m.Answer, rr)
			}
		}
		if next == "" {
			break
		}
		name, known = next, false
	}
	if !known {
		m.Rcode = dns.RcodeNameError
	}
	if n := len(m.Answer); n == 0 || m.Answer[n-1].Header().Rrtype != q.Question[0].Qtype {
		soa, _ := dns.NewRR(". 60 IN SOA ns.test-upstream. root.test-upstream. 1 2 3 4 60")
		m.Ns = append(m.Ns, soa)
	}
	return m
}

// ServeUpstream serves records over UDP and TCP on a free loopback port, until
// the test ends.
func ServeUpstream(t testing.TB, records []string) (addr string) {
	t.Helper()
	var packets net.PacketConn
	var conns net.Listener
	for range 20 { // one port for both; the other half may be taken
		var err error
		if packets, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if conns, err = net.Listen("tcp", packets.LocalAddr().String()); err == nil {
			break
		}
		packets.Close()
	}
	if conns == nil {
		t.Fatal("no port that is free for both UDP and TCP")
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(Upstream(records, q)) })
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: conns, Handler: handler}} {
		started, ended := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(ended)
			_ = s.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-ended })
	}
	return packets.LocalAddr().String()
}
