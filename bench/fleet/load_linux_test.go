package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"meibo/bench/netswitch"

	"github.com/miekg/dns"
)

// A load asks every host's own resolver for every service, all the time, and keeps each answer with its time. When the
// test has ended, it is compared with what was true: an instance that was there for long enough must be in the answer,
// one that was gone for long enough must not.

const (
	askEvery   = 15 * time.Millisecond
	askTimeout = 2 * time.Second // as stub resolvers have it in these hosts' resolv.conf
)

// lookup is one question and what came of it.
type lookup struct {
	at      time.Time // when the answer was there
	took    time.Duration
	viewer  *fleetHost
	service string
	addrs   []netip.Addr
	err     error
}

// truth is whether a service is on a host.
type truth uint8

const (
	absent truth = iota
	present
	either // the host is starting, or what is right depends on who is asked
)

type instanceKey struct{ service, host string }

type turn struct {
	at time.Time
	is truth
}

type pairKey struct{ viewer, host string }

type load struct {
	fleet *fleet
	// falling and rising are how long after a change an answer may still be, or not yet be, what it was before.
	falling, rising time.Duration

	mu     sync.Mutex // guards following
	turns  map[instanceKey][]turn
	unsure map[pairKey][]turn // either from then on, or absent: back to what turns say
	down   map[string][]turn  // absent: down, either: starting, present: answers
	all    []lookup
	exacts []time.Time // when all hosts answered what was true

	stop context.CancelFunc
	wg   sync.WaitGroup
}

func newLoad(f *fleet) *load {
	l := &load{
		fleet: f, falling: 5 * time.Second, rising: 12 * time.Second,
		turns: map[instanceKey][]turn{}, unsure: map[pairKey][]turn{}, down: map[string][]turn{},
	}
	if raceEnabled {
		l.falling, l.rising = 20*time.Second, 40*time.Second
	}
	return l
}

// becomes says that after the call the service is on the host, or isn't. While the call is under way hosts may answer
// both: its first viewers see the change before the caller hears that it is done.
func (l *load) becomes(service string, h *fleetHost, is truth, call func() error) {
	l.fleet.t.Helper()
	l.turn(service, h, either)
	must(l.fleet.t, call())
	l.turn(service, h, is)
}

func (l *load) turn(service string, h *fleetHost, is truth) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := instanceKey{service, h.name}
	l.turns[key] = append(l.turns[key], turn{time.Now(), is})
}

// fallsAll says that the host's services are gone for everybody but itself from now on, risesAll that they are back.
func (l *load) fallsAll(h *fleetHost) { l.turnAll(h, absent) }
func (l *load) risesAll(h *fleetHost) { l.turnAll(h, present) }

// fogAll says that from now on nobody can say whether the host's services are there; risesAll ends it.
func (l *load) fogAll(h *fleetHost) { l.turnAll(h, either) }

func (l *load) turnAll(h *fleetHost, is truth) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key := range l.turns {
		if key.host == h.name {
			l.turns[key] = append(l.turns[key], turn{time.Now(), is})
		}
	}
}

// apart says that what these viewers answer of those hosts is not judged from now on, together that it is again.
func (l *load) apart(viewers, hosts []*fleetHost)    { l.pair(viewers, hosts, either) }
func (l *load) together(viewers, hosts []*fleetHost) { l.pair(viewers, hosts, absent) }

func (l *load) pair(viewers, hosts []*fleetHost, is truth) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range viewers {
		for _, h := range hosts {
			if v != h {
				key := pairKey{v.name, h.name}
				l.unsure[key] = append(l.unsure[key], turn{time.Now(), is})
			}
		}
	}
}

// began says that the host's daemon starts, ended that it is no more.
func (l *load) began(h *fleetHost) {
	l.state(h, either)
	l.risesAll(h)
}

func (l *load) ended(h *fleetHost) {
	l.state(h, absent)
	l.fallsAll(h)
}

func (l *load) state(h *fleetHost, is truth) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down[h.name] = append(l.down[h.name], turn{time.Now(), is})
}

// run begins to ask.
func (l *load) run() {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	for _, h := range l.fleet.hosts {
		l.wg.Go(func() { l.askOn(ctx, h) })
	}
	l.fleet.t.Cleanup(func() { cancel(); l.wg.Wait() })
}

// services are the names that are asked for.
func (l *load) services() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[string]bool{}
	for key := range l.turns {
		seen[key.service] = true
	}
	var names []string
	for name := range seen {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
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
		got := h.lookup(names[i%len(names)])
		l.mu.Lock()
		if turns := l.down[h.name]; got.err == nil && len(turns) > 0 && turns[len(turns)-1].is == either {
			l.down[h.name] = append(turns, turn{got.at.Add(-got.took), present})
		}
		l.all = append(l.all, got)
		l.mu.Unlock()
	}
}

// lookup asks the host's resolver for the addresses of a service, once.
func (h *fleetHost) lookup(service string) lookup {
	got := lookup{viewer: h, service: service}
	begin := time.Now()
	got.addrs, got.err = h.resolve(service + ".service.consul.")
	got.at = time.Now()
	got.took = got.at.Sub(begin)
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
	took := eventually(l.fleet.t, "all hosts answer what is true", func() error {
		for _, h := range l.fleet.hosts {
			for _, service := range l.services() {
				if h.proc == nil {
					continue
				}
				if err := l.exact(h.lookup(service)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.exacts = append(l.exacts, time.Now())
	return took
}

// graceFrom is since when something must have been so for an answer to be wrong: for as long as the grace, or since all
// hosts knew.
func (l *load) graceFrom(at time.Time, grace time.Duration) time.Time {
	from := at.Add(-grace)
	for _, exact := range l.exacts {
		if exact.After(from) && exact.Before(at) {
			from = exact
		}
	}
	return from
}

// exactOn is exact for every service on one host.
func (l *load) exactOn(h *fleetHost) error {
	for _, service := range l.services() {
		if err := l.exact(h.lookup(service)); err != nil {
			return err
		}
	}
	return nil
}

// answersOn reports the first service that the host has no answer for.
func (l *load) answersOn(h *fleetHost) error {
	for _, service := range l.services() {
		if got := h.lookup(service); got.err != nil || len(got.addrs) == 0 {
			return fmt.Errorf("%s on %s: %v %w", service, h.name, got.addrs, got.err)
		}
	}
	return nil
}

// settledOn is settled on some hosts only: the others have reasons to answer something else.
func (l *load) settledOn(hosts []*fleetHost) time.Duration {
	l.fleet.t.Helper()
	return eventually(l.fleet.t, "hosts answer what is true", func() error {
		for _, h := range hosts {
			if err := l.exactOn(h); err != nil {
				return err
			}
		}
		return nil
	})
}

// turnovers is how often a host went from a viewer's answers, or came back to them, since then: of its services, the
// one that did so most often.
func (l *load) turnovers(viewer, h *fleetHost, since time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	most, count, last := 0, map[string]int{}, map[string]bool{}
	for _, got := range l.all {
		if got.viewer != viewer || got.err != nil || len(l.turns[instanceKey{got.service, h.name}]) == 0 {
			continue
		}
		has := slices.Contains(got.addrs, netswitch.HostAddr(h.n))
		if was, seen := last[got.service]; seen && was != has && got.at.After(since) {
			count[got.service]++
			most = max(most, count[got.service])
		}
		last[got.service] = has
	}
	return most
}

// soak lets the load go on for so long: the one wait here that is for time itself.
func (l *load) soak(d time.Duration) {
	<-time.After(d)
}

// exact compares an answer with what is true at this moment.
func (l *load) exact(got lookup) error {
	if got.err != nil {
		return fmt.Errorf("%s on %s: %w", got.service, got.viewer.name, got.err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var want []netip.Addr
	for _, h := range l.fleet.hosts {
		turns := l.turns[instanceKey{got.service, h.name}]
		if len(turns) > 0 && turns[len(turns)-1].is == present {
			want = append(want, netswitch.HostAddr(h.n))
		}
	}
	slices.SortFunc(got.addrs, netip.Addr.Compare)
	if !slices.Equal(want, got.addrs) {
		return fmt.Errorf("%s on %s: %v, want %v", got.service, got.viewer.name, got.addrs, want)
	}
	return nil
}

// check ends the load and fails the test for each failed or wrong lookup; the figures are printed.
func (l *load) check() {
	t := l.fleet.t
	t.Helper()
	l.stop()
	l.wg.Wait()
	var failed, wrong []string
	var took []time.Duration
	judged := 0
	for _, got := range l.all {
		if !l.serving(got.viewer.name, got.at.Add(-got.took), got.at) {
			// Before its first answer a host may fail, and may not deny.
			if got.err != nil && strings.HasPrefix(got.err.Error(), dns.RcodeToString[dns.RcodeNameError]) && l.wrong(got) != "" {
				wrong = append(wrong, l.describe(got, got.err.Error()))
			}
			continue
		}
		judged++
		took = append(took, got.took)
		if got.err != nil {
			failed = append(failed, l.describe(got, got.err.Error()))
		} else if why := l.wrong(got); why != "" {
			wrong = append(wrong, l.describe(got, why))
		}
	}
	slices.Sort(took)
	if judged == 0 {
		t.Fatal("no lookup was judged")
	}
	t.Logf("%d lookups judged, %d failed, %d wrong; p50 %v, p99 %v, max %v", judged, len(failed), len(wrong),
		took[judged/2].Round(time.Microsecond), took[judged*99/100].Round(time.Microsecond), took[judged-1].Round(time.Microsecond))
	for what, list := range map[string][]string{"failed": failed, "wrong": wrong} {
		if len(list) > 0 {
			t.Errorf("%d %s, the first:\n%s", len(list), what, strings.Join(list[:min(len(list), 12)], "\n"))
		}
	}
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

func (l *load) describe(got lookup, why string) string {
	return fmt.Sprintf("%s %s asked on %s: %s", got.at.Format("15:04:05.000"), got.service, got.viewer.name, why)
}

// serving reports whether the viewer's daemon was up and had answered this question or one before, and was still up after it.
func (l *load) serving(viewer string, from, to time.Time) bool {
	for i, turn := range l.down[viewer] {
		next := to.Add(time.Hour)
		if i+1 < len(l.down[viewer]) {
			next = l.down[viewer][i+1].at
		}
		if turn.is == present && !from.Before(turn.at) && to.Before(next) {
			return true
		}
	}
	return false
}

// wrong says what is wrong with an answer, "" if nothing is.
func (l *load) wrong(got lookup) string {
	any := false // an instance is surely there
	var missing, extra []string
	asked := got.at.Add(-got.took)
	rising, falling := l.graceFrom(asked, l.rising), l.graceFrom(asked, l.falling)
	for _, h := range l.fleet.hosts {
		key := instanceKey{got.service, h.name}
		if len(l.turns[key]) == 0 {
			continue
		}
		has := slices.Contains(got.addrs, netswitch.HostAddr(h.n))
		unsure := l.was(l.unsure[pairKey{got.viewer.name, h.name}], either, rising, got.at)
		surely := l.stayed(l.turns[key], present, rising, got.at)
		if surely && !unsure {
			any = true
			if !has {
				missing = append(missing, h.name)
			}
		}
		if has && !unsure && h != got.viewer && l.stayed(l.turns[key], absent, falling, got.at) {
			extra = append(extra, h.name)
		}
	}
	switch {
	case len(missing) > 0:
		return fmt.Sprintf("%v lacks %v", got.addrs, missing)
	case len(extra) > 0 && any: // the last of a service is answered even when dead
		return fmt.Sprintf("%v has %v, gone longer than %v", got.addrs, extra, l.falling)
	}
	return ""
}

// stayed reports whether it was so from one time to the other without a break.
func (l *load) stayed(turns []turn, is truth, from, to time.Time) bool {
	i, _ := slices.BinarySearchFunc(turns, to, func(t turn, at time.Time) int { return t.at.Compare(at) })
	return i > 0 && turns[i-1].is == is && !turns[i-1].at.After(from)
}

// was reports whether it was so at any time between the two.
func (l *load) was(turns []turn, is truth, from, to time.Time) bool {
	for i, t := range turns {
		end := to
		if i+1 < len(turns) {
			end = turns[i+1].at
		}
		if t.is == is && t.at.Before(to) && !end.Before(from) {
			return true
		}
	}
	return false
}
