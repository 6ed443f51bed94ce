package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"meibo/bench/hosttest"
	"meibo/bench/netswitch"
	"meibo/cluster/clustertest"

	"github.com/miekg/dns"
)

// A load asks every host's own resolver for every service, all the time, and has each answer judged.

const (
	askEvery   = 15 * time.Millisecond
	askTimeout = 2 * time.Second // as stub resolvers have it in these hosts' resolv.conf
)

const (
	absent  = clustertest.Absent
	present = clustertest.Present
	either  = clustertest.Either // the host is starting, or what is right depends on who is asked
)

type load struct {
	fleet *fleet
	judge *clustertest.Judge
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

func newLoad(f *fleet) *load {
	l := &load{fleet: f, judge: clustertest.NewJudge()}
	for _, h := range f.hosts {
		l.judge.AddHost(h.name, netswitch.HostAddr(h.n))
	}
	if raceEnabled {
		l.judge.Falling, l.judge.Rising = 20*time.Second, 40*time.Second
	}
	return l
}

// becomes says that after the call the service is on the host, or isn't.
func (l *load) becomes(service string, h *fleetHost, is clustertest.Truth, call func() error) {
	l.fleet.t.Helper()
	hosttest.Must(l.fleet.t, l.judge.Becomes(service, h.name, is, call))
}

// fallsAll says that the host's services are gone for everybody but itself from now on, risesAll that they are back.
func (l *load) risesAll(h *fleetHost) { l.judge.TurnAll(h.name, present) }

// fogAll says that from now on nobody can say whether the host's services are there; risesAll ends it.
func (l *load) fogAll(h *fleetHost) { l.judge.TurnAll(h.name, either) }

// apart says that what these viewers answer of those hosts is not judged from now on, together that it is again.
func (l *load) apart(viewers, hosts []*fleetHost)    { l.judge.Apart(names(viewers), names(hosts)) }
func (l *load) together(viewers, hosts []*fleetHost) { l.judge.Together(names(viewers), names(hosts)) }

func names(hosts []*fleetHost) []string {
	var list []string
	for _, h := range hosts {
		list = append(list, h.name)
	}
	return list
}

// began says that the host's daemon starts, ended that it is no more.
func (l *load) began(h *fleetHost) { l.judge.Began(h.name) }
func (l *load) ended(h *fleetHost) { l.judge.Ended(h.name) }

// state says that of the daemon alone; nothing is said of its services.
func (l *load) state(h *fleetHost, is clustertest.Truth) { l.judge.State(h.name, is) }

// services are the names that are asked for.
func (l *load) services() []string { return l.judge.Services() }

// run begins to ask.
func (l *load) run() {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	for _, h := range l.fleet.hosts {
		l.wg.Go(func() { l.askOn(ctx, h) })
	}
	l.fleet.t.Cleanup(func() { cancel(); l.wg.Wait() })
}

func (l *load) askOn(ctx context.Context, h *fleetHost) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		names := l.services()
		if len(names) == 0 {
			continue
		}
		l.judge.Judge(h.lookup(names[i%len(names)]))
	}
}

// lookup asks the host's resolver for the addresses of a service, once.
func (h *fleetHost) lookup(service string) clustertest.Lookup {
	got := clustertest.Lookup{Viewer: h.name, Service: service, Asked: time.Now()}
	got.Addrs, got.Err = h.resolve(service + ".service.consul.")
	got.At = time.Now()
	return got
}

func (h *fleetHost) resolve(name string) ([]netip.Addr, error) {
	var conn net.Conn
	var err error
	h.inside(func() { conn, err = net.Dial("udp", "127.0.0.1:53") })
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.SetEdns0(1232, false)
	client := dns.Client{Timeout: askTimeout}
	reply, _, err := client.ExchangeWithConn(m, &dns.Conn{Conn: conn})
	if err != nil {
		return nil, err
	}
	if reply.Rcode != dns.RcodeSuccess {
		return nil, errors.New(dns.RcodeToString[reply.Rcode] + edeOf(reply))
	}
	var addrs []netip.Addr
	for _, rr := range reply.Answer {
		if a, ok := rr.(*dns.A); ok {
			addr, _ := netip.AddrFromSlice(a.A.To4())
			addrs = append(addrs, addr)
		}
	}
	return addrs, nil
}

func edeOf(m *dns.Msg) string {
	opt := m.IsEdns0()
	if opt == nil {
		return ""
	}
	for _, o := range opt.Option {
		if e, ok := o.(*dns.EDNS0_EDE); ok {
			return fmt.Sprintf(" (EDE %d %s)", e.InfoCode, e.ExtraText)
		}
	}
	return ""
}

// settled waits until every running host answers exactly what is true now, and says how long it took.
func (l *load) settled() time.Duration {
	l.fleet.t.Helper()
	took := hosttest.Eventually(l.fleet.t, "all hosts answer what is true", func() error {
		for _, h := range l.fleet.hosts {
			for _, service := range l.services() {
				if h.proc == nil {
					continue
				}
				if err := l.judge.Exact(h.lookup(service)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	l.judge.AllExact()
	return took
}

// exactOn compares all that one host answers with what is true at this moment.
func (l *load) exactOn(h *fleetHost) error {
	for _, service := range l.services() {
		if err := l.judge.Exact(h.lookup(service)); err != nil {
			return err
		}
	}
	return nil
}

// answersOn reports the first service that the host has no answer for.
func (l *load) answersOn(h *fleetHost) error {
	for _, service := range l.services() {
		if got := h.lookup(service); got.Err != nil || len(got.Addrs) == 0 {
			return fmt.Errorf("%s on %s: %v %w", service, h.name, got.Addrs, got.Err)
		}
	}
	return nil
}

// soak lets the load go on for so long: the one wait here that is for time itself.
func (l *load) soak(d time.Duration) {
	<-time.After(d)
}

// check ends the load and fails the test for each failed or wrong lookup; the figures are printed.
func (l *load) check() {
	t := l.fleet.t
	t.Helper()
	l.stop()
	l.wg.Wait()
	l.judge.Report(t)
	for _, h := range l.fleet.hosts {
		if log := h.log(); strings.Contains(log, "WARNING: DATA RACE") || strings.Contains(log, "\npanic:") || strings.Contains(log, "goroutine 1 [") {
			t.Errorf("%s: its daemon raced or panicked:\n%s", h.name, excerpt(log))
		}
	}
}

// excerpt is the log from its first race or panic on.
func excerpt(log string) string {
	for _, mark := range []string{"WARNING: DATA RACE", "\npanic:", "goroutine 1 ["} {
		if i := strings.Index(log, mark); i >= 0 {
			return log[i:min(len(log), i+4000)]
		}
	}
	return ""
}
