package clustertest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Truth is whether a service is on a host.
type Truth uint8

const (
	Absent Truth = iota
	Present
	// Either: the host is starting, or what is right depends on who is asked.
	Either
)

// Lookup is one question to a host's own resolver and what came of it.
type Lookup struct {
	Asked, At       time.Time // when it was asked, and when the answer was there
	Viewer, Service string    // who was asked, for what
	Addrs           []netip.Addr
	// Err is why there is no answer. That of a name that is denied begins with
	// "NXDOMAIN".
	Err error
}

// Judge knows what is true, and says which answers were wrong: those that lack an
// instance that was there for long enough, or have one that was gone for long
// enough. It can be used in fake time and in real time, by several goroutines.
type Judge struct {
	// Falling and Rising are how long after a change an answer may still be, or not
	// yet be, what it was before.
	Falling, Rising time.Duration

	mu       sync.Mutex // guards following
	hosts    []string
	addrs    map[string]netip.Addr
	services []string
	offered  map[instanceKey]turn // by the host, if it is there
	turns    map[instanceKey][]turn
	unsure   map[pairKey][]turn // Either from then on, or Absent: back to what turns say
	states   map[string][]turn  // Absent: down, Either: starting, Present: answers
	exact    time.Time          // when all hosts last answered what was true
	known    map[string]bool    // services that all hosts knew then, and that were there ever since
	flips    map[flipKey][]time.Time
	last     map[flipKey]bool

	judged        int
	failed, wrong []string
	took          []time.Duration
}

type instanceKey struct{ service, host string }

type pairKey struct{ viewer, host string }

type flipKey struct{ viewer, host, service string }

type turn struct {
	at time.Time
	is Truth
}

// NewJudge makes one that gives 5 s to what falls and 12 s to what rises: a death has
// to be noticed, and who is back is held down.
func NewJudge() *Judge {
	return &Judge{
		Falling: 5 * time.Second, Rising: 12 * time.Second,
		addrs: map[string]netip.Addr{}, offered: map[instanceKey]turn{}, turns: map[instanceKey][]turn{}, unsure: map[pairKey][]turn{}, states: map[string][]turn{},
		known: map[string]bool{}, flips: map[flipKey][]time.Time{}, last: map[flipKey]bool{},
	}
}

// AddHost makes a host known.
func (j *Judge) AddHost(name string, addr netip.Addr) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.hosts = append(j.hosts, name)
	j.addrs[name] = addr
}

// Becomes says that after the call the service is on the host, or isn't. While the
// call is under way hosts may answer both: its first viewers see the change before
// the caller hears that it is done.
func (j *Judge) Becomes(service, host string, is Truth, call func() error) error {
	j.turn(service, host, Either)
	if err := call(); err != nil {
		return err
	}
	j.turn(service, host, is)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.offered[instanceKey{service, host}] = turn{time.Now(), is}
	j.forgetUnoffered()
	return nil
}

// forgetUnoffered forgets what was known of services that nobody offers any more.
func (j *Judge) forgetUnoffered() {
	for service := range j.known {
		j.known[service] = j.known[service] && j.anybodyOffers(service)
	}
}

func (j *Judge) anybodyOffers(service string) bool {
	for key, t := range j.offered {
		if key.service == service && t.is == Present {
			return true
		}
	}
	return false
}

func (j *Judge) turn(service, host string, is Truth) {
	j.mu.Lock()
	defer j.mu.Unlock()
	key := instanceKey{service, host}
	j.turns[key] = append(j.turns[key], turn{time.Now(), is})
	if i, found := slices.BinarySearch(j.services, service); !found {
		j.services = slices.Insert(slices.Clone(j.services), i, service)
	}
}

// TurnAll says that from now on all services that the host offers are there, or gone
// for everybody but itself, or that nobody can say.
func (j *Judge) TurnAll(host string, is Truth) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for key, turns := range j.turns {
		if key.host == host {
			t := turn{time.Now(), is}
			if is == Present {
				t.is = j.offered[key].is
			}
			j.turns[key] = append(turns, t)
		}
	}
}

// Forgets says that the host, which is down, lost what it offers with its disk.
func (j *Judge) Forgets(host string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for key := range j.offered {
		if key.host == host {
			delete(j.offered, key)
		}
	}
	j.forgetUnoffered()
}

// Apart says that what these viewers answer of those hosts is not judged from now on,
// Together that it is again.
func (j *Judge) Apart(viewers, hosts []string)    { j.pair(viewers, hosts, Either) }
func (j *Judge) Together(viewers, hosts []string) { j.pair(viewers, hosts, Absent) }

func (j *Judge) pair(viewers, hosts []string, is Truth) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, v := range viewers {
		for _, h := range hosts {
			if v != h {
				key := pairKey{v, h}
				j.unsure[key] = append(j.unsure[key], turn{time.Now(), is})
			}
		}
	}
}

// Began says that the host's daemon starts, Ended that it is no more.
func (j *Judge) Began(host string) {
	j.State(host, Either)
	j.TurnAll(host, Present)
}

func (j *Judge) Ended(host string) {
	j.State(host, Absent)
	j.TurnAll(host, Absent)
}

// State says that the host's daemon is down (Absent), or starts (Either); from its
// first answer on it is judged. Nothing is said of its services.
func (j *Judge) State(host string, is Truth) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.states[host] = append(j.states[host], turn{time.Now(), is})
}

// Services are the names that are asked for. They are shared.
func (j *Judge) Services() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.services
}

// AllExact says that all hosts answer exactly what is true: no change of before
// excuses an answer from now on.
func (j *Judge) AllExact() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.exact = time.Now()
	for _, service := range j.services {
		j.known[service] = j.anybodyOffers(service)
	}
}

// Exact compares an answer with what is true at this moment.
func (j *Judge) Exact(got Lookup) error {
	if got.Err != nil && !got.denies() {
		return fmt.Errorf("%s on %s: %w", got.Service, got.Viewer, got.Err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	var want []netip.Addr
	for _, h := range j.hosts {
		turns := j.turns[instanceKey{got.Service, h}]
		if len(turns) > 0 && turns[len(turns)-1].is == Present {
			want = append(want, j.addrs[h])
		}
	}
	if got.Err != nil && len(want) > 0 {
		return fmt.Errorf("%s on %s: %w", got.Service, got.Viewer, got.Err)
	}
	has := slices.SortedFunc(slices.Values(got.Addrs), netip.Addr.Compare)
	if slices.SortFunc(want, netip.Addr.Compare); !slices.Equal(want, has) {
		return fmt.Errorf("%s on %s: %v, want %v", got.Service, got.Viewer, j.names(has), j.names(want))
	}
	return nil
}

// names are the hosts at the addresses.
func (j *Judge) names(addrs []netip.Addr) []string {
	list := []string{}
	for _, a := range addrs {
		list = append(list, j.at(a))
	}
	return list
}

func (j *Judge) at(addr netip.Addr) string {
	for name, a := range j.addrs {
		if a == addr {
			return name
		}
	}
	return addr.String()
}

// Judge judges an answer that has just come. Answers of one host come in order.
func (j *Judge) Judge(got Lookup) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if turns := j.states[got.Viewer]; got.Err == nil && len(turns) > 0 && turns[len(turns)-1].is == Either {
		j.states[got.Viewer] = append(turns, turn{got.Asked, Present})
	}
	j.noteFlips(got)
	if !j.serving(got) {
		// Before its first answer a host may fail, and may not deny.
		if got.denies() && (j.known[got.Service] || j.fault(got) != "") {
			j.wrong = append(j.wrong, describe(got, got.Err.Error()))
		}
		return
	}
	j.judged++
	j.took = append(j.took, got.At.Sub(got.Asked))
	if got.Err != nil && j.isOffered(got) {
		j.failed = append(j.failed, describe(got, got.Err.Error()))
	} else if why := j.fault(got); why != "" {
		j.wrong = append(j.wrong, describe(got, why))
	}
}

// denies reports whether the answer says that there is no such name.
func (got Lookup) denies() bool {
	return got.Err != nil && strings.HasPrefix(got.Err.Error(), "NXDOMAIN")
}

// isOffered reports whether what was asked for is there, and the viewer can know it:
// all knew it and somebody offers it still, though it be dead (the last of a service
// is answered); or somebody has offered it for long enough. No answer for a name that
// nobody offers is none that anybody misses.
func (j *Judge) isOffered(got Lookup) bool {
	if j.known[got.Service] {
		return true
	}
	from := j.graceFrom(got.Asked, j.Rising)
	for key, t := range j.offered {
		if key.service == got.Service && t.is == Present && t.at.Before(from) && j.wasTold(got, t.at, from) &&
			!was(j.unsure[pairKey{got.Viewer, key.host}], Either, t.at, got.At) {
			return true
		}
	}
	return false
}

// toldWithin is how soon who runs is told of what is new.
const toldWithin = 2 * time.Second

// wasTold reports whether the viewer's daemon ran when something came to be, or has
// run for long since.
func (j *Judge) wasTold(got Lookup, at, from time.Time) bool {
	turns := j.states[got.Viewer]
	for i, t := range turns {
		if t.is == Absent && t.at.After(at.Add(-toldWithin)) && (i+1 == len(turns) || turns[i+1].at.After(from)) {
			return false
		}
	}
	return true
}

func describe(got Lookup, why string) string {
	return fmt.Sprintf("%s %s asked on %s: %s", got.At.Format("15:04:05.000"), got.Service, got.Viewer, why)
}

// Note notes an answer that isn't judged, so that [Judge.Turnovers] counts from it.
// Answers of one host come in order.
func (j *Judge) Note(got Lookup) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.noteFlips(got)
}

// noteFlips notes which hosts went from a viewer's answers, or came back to them.
func (j *Judge) noteFlips(got Lookup) {
	if got.Err != nil {
		return
	}
	for _, h := range j.hosts {
		if len(j.turns[instanceKey{got.Service, h}]) == 0 {
			continue
		}
		key, has := flipKey{got.Viewer, h, got.Service}, slices.Contains(got.Addrs, j.addrs[h])
		if was, seen := j.last[key]; seen && was != has {
			j.flips[key] = append(j.flips[key], got.At)
		}
		j.last[key] = has
	}
}

// Turnovers is how often a host went from a viewer's answers, or came back to them,
// since then: of its services, the one that did so most often.
func (j *Judge) Turnovers(viewer, host string, since time.Time) (most int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, service := range j.services {
		count := 0
		for _, at := range j.flips[flipKey{viewer, host, service}] {
			if at.After(since) {
				count++
			}
		}
		most = max(most, count)
	}
	return most
}

// IsServing reports whether the host's daemon starts, or answers.
func (j *Judge) IsServing(host string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	turns := j.states[host]
	return len(turns) > 0 && turns[len(turns)-1].is != Absent
}

// serving reports whether the viewer's daemon was up and had answered this question
// or one before, and was still up after it.
func (j *Judge) serving(got Lookup) bool {
	turns := j.states[got.Viewer]
	for i, t := range turns {
		next := got.At.Add(time.Hour)
		if i+1 < len(turns) {
			next = turns[i+1].at
		}
		if t.is == Present && !got.Asked.Before(t.at) && got.At.Before(next) {
			return true
		}
	}
	return false
}

// graceFrom is since when something must have been so for an answer to be wrong: for
// as long as the grace, or since all hosts knew.
func (j *Judge) graceFrom(at time.Time, grace time.Duration) time.Time {
	from := at.Add(-grace)
	if j.exact.After(from) && j.exact.Before(at) {
		from = j.exact.Add(-1) // what changed at that instant changed after it
	}
	return from
}

// fault says what is wrong with an answer, "" if nothing is.
func (j *Judge) fault(got Lookup) string {
	any := false // an instance is surely there
	var missing, extra []string
	rising, falling := j.graceFrom(got.Asked, j.Rising), j.graceFrom(got.Asked, j.Falling)
	for _, h := range j.hosts {
		turns := j.turns[instanceKey{got.Service, h}]
		if len(turns) == 0 {
			continue
		}
		has := slices.Contains(got.Addrs, j.addrs[h])
		unsure := was(j.unsure[pairKey{got.Viewer, h}], Either, rising, got.At)
		if !unsure && stayed(turns, Present, rising, got.At) {
			any = true
			if !has {
				missing = append(missing, h)
			}
		}
		if has && !unsure && h != got.Viewer && stayed(turns, Absent, falling, got.At) {
			extra = append(extra, h)
		}
	}
	switch {
	case len(missing) > 0:
		return fmt.Sprintf("%v lacks %v", j.names(got.Addrs), missing)
	case len(extra) > 0 && any: // the last of a service is answered even when dead
		return fmt.Sprintf("%v has %v, gone longer than %v", j.names(got.Addrs), extra, j.Falling)
	}
	return ""
}

// stayed reports whether it was so from one time to the other without a break.
func stayed(turns []turn, is Truth, from, to time.Time) bool {
	i, _ := slices.BinarySearchFunc(turns, to, func(t turn, at time.Time) int { return t.at.Compare(at) })
	return i > 0 && turns[i-1].is == is && !turns[i-1].at.After(from)
}

// was reports whether it was so at any time between the two.
func was(turns []turn, is Truth, from, to time.Time) bool {
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

// Report logs how many lookups were judged and fails the test for each that failed
// or was wrong.
func (j *Judge) Report(t testing.TB) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.judged == 0 {
		t.Fatal("no lookup was judged")
	}
	slices.Sort(j.took)
	t.Logf("%d lookups judged, %d failed, %d wrong; p50 %v, p99 %v, max %v", j.judged, len(j.failed), len(j.wrong),
		j.took[j.judged/2].Round(time.Microsecond), j.took[j.judged*99/100].Round(time.Microsecond), j.took[j.judged-1].Round(time.Microsecond))
	for what, list := range map[string][]string{"failed": j.failed, "wrong": j.wrong} {
		if len(list) > 0 {
			t.Errorf("%d %s, the first:\n%s", len(list), what, strings.Join(list[:min(len(list), 12)], "\n"))
		}
	}
}
