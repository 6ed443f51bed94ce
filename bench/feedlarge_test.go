package bench

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"meibo/bench/report"
	"meibo/bench/servers"

	"github.com/miekg/dns"
)

const (
	largeInstances = 5000
	largeRounds    = 4               // of each phase, taken in turns: the machine has other things to do
	largeFor       = 5 * time.Second // each phase
	largeAsked     = 500             // questions for other names each second
	largeLate      = time.Second     // after which an answer must not show an instance that turned critical
)

// measureLarge has one service of 5,000 instances change ten times a second, and asks one host for it and for others.
func measureLarge(t *testing.T) (r report.Table) {
	t.Helper()
	c := newRealCluster(t, "")
	defer c.stop()
	agent := c.agent(9)
	c.fill(append(feedCatalog(), largeCatalog()...))
	waitAnswered(t, agent, "large", largeInstances/10)
	waitAnswered(t, agent, "svc-00", 1)

	l := &large{since: make(map[string]time.Time)}
	var idle, busy []time.Duration
	for range largeRounds {
		idle = append(idle, l.phase(t, agent, nil)...)
		busy = append(busy, l.phase(t, agent, c.leader())...)
	}
	slices.Sort(idle)
	slices.Sort(busy)
	noise := percentile(busy, 99) - percentile(idle, 99)
	r.Row("one service of 5,000 instances, one host", "nothing changes", "10 changes a second")
	r.Row("lookups of other names, p50", ms(idle, 50), ms(busy, 50))
	r.Row("p99", ms(idle, 99), ms(busy, 99))
	r.Row("answers for the service itself", "", fmt.Sprintf("%d, %d wrong", l.answers, l.wrong))
	if noise > maxNoise {
		missed(t, "changes of the large service add %v to the p99 of other names, want %v at most", noise, maxNoise)
	}
	if l.wrong > 0 || l.answers == 0 {
		t.Errorf("%d of %d answers for the large service show an instance that was critical for %v", l.wrong, l.answers, largeLate)
	}
	return r
}

func largeAddress(i int) string { return fmt.Sprintf("10.9.%d.%d", i/250, i%250+1) }

func largeBody(i int, status string) string {
	return fmt.Sprintf(`{"Node":"large-%04d","Address":%q,"Service":{"Service":"large","Port":80},"Check":{"CheckID":"up","ServiceID":"large","Status":%q}}`, i, largeAddress(i), status)
}

func largeCatalog() (bodies []string) {
	for i := range largeInstances {
		bodies = append(bodies, largeBody(i, "passing"))
	}
	return bodies
}

// ask returns the addresses of a service, by TCP so that none is cut off.
func askTCP(client *dns.Client, h *servers.Server, name string) (map[string]bool, error) {
	m := new(dns.Msg)
	m.SetQuestion(name+".service.consul.", dns.TypeA)
	reply, _, err := client.Exchange(m, h.Addr+":8600")
	if err != nil {
		return nil, err
	}
	addrs := make(map[string]bool, len(reply.Answer))
	for _, rr := range reply.Answer {
		if a, ok := rr.(*dns.A); ok {
			addrs[a.A.String()] = true
		}
	}
	return addrs, nil
}

func waitAnswered(t *testing.T, h *servers.Server, name string, least int) {
	t.Helper()
	client := &dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	var addrs map[string]bool
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if addrs, err = askTCP(client, h, name); err == nil && len(addrs) >= least {
			return
		}
	}
	t.Fatalf("%s has %d addresses, want %d (%v)", name, len(addrs), least, err)
}

// askOthers asks for other services at an even rate and returns how long the answers took.
func askOthers(t *testing.T, h *servers.Server) (took []time.Duration) {
	t.Helper()
	conn, err := net.Dial("udp", h.Addr+":8600")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 4096)
	tick := time.NewTicker(time.Second / largeAsked)
	defer tick.Stop()
	for i := range int(largeFor.Seconds()) * largeAsked {
		m := new(dns.Msg)
		m.SetQuestion(fmt.Sprintf("svc-%02d.service.consul.", i%feedServices), dns.TypeA)
		m.SetEdns0(1232, false)
		packed, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		<-tick.C
		sent := time.Now()
		conn.SetDeadline(sent.Add(2 * time.Second))
		if _, err := conn.Write(packed); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("no answer for svc-%02d: %v", i%feedServices, err)
		}
		took = append(took, time.Since(sent))
		if reply := new(dns.Msg); reply.Unpack(buf[:n]) != nil || len(reply.Answer) == 0 {
			t.Fatalf("svc-%02d: %v", i%feedServices, reply)
		}
	}
	return took
}

// large is the service whose instances turn critical.
type large struct {
	mu             sync.Mutex           // guards following
	since          map[string]time.Time // since when an address is critical for sure
	answers, wrong int

	next int // instance to turn critical, flap's
}

// phase asks for other names, and for the service itself, while the leader, if not nil, is told changes of it.
func (l *large) phase(t *testing.T, h, leader *servers.Server) (took []time.Duration) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { l.judge(t, h, stop) })
	if leader != nil {
		wg.Go(func() { l.flap(t, leader, stop) })
	}
	took = askOthers(t, h)
	close(stop)
	wg.Wait()
	return took
}

// flap turns an instance critical ten times a second.
func (l *large) flap(t *testing.T, leader *servers.Server, stop <-chan struct{}) {
	tick := time.NewTicker(time.Second / 10)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		n := l.next * 37 % largeInstances
		l.next++
		if err := leader.Register(largeBody(n, "critical")); err != nil {
			t.Error(err)
			return
		}
		l.mu.Lock()
		l.since[largeAddress(n)] = time.Now()
		l.mu.Unlock()
	}
}

// judge asks for the service and compares.
func (l *large) judge(t *testing.T, h *servers.Server, stop <-chan struct{}) {
	client := &dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	tick := time.NewTicker(time.Second / 5)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		asked := time.Now()
		addrs, err := askTCP(client, h, "large")
		if err != nil {
			t.Error(err)
			return
		}
		l.count(addrs, asked)
	}
}

func (l *large) count(addrs map[string]bool, asked time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers++
	wrong := len(addrs) < 1000
	for addr, since := range l.since {
		wrong = wrong || (addrs[addr] && asked.Sub(since) > largeLate)
	}
	if wrong {
		l.wrong++
	}
}
