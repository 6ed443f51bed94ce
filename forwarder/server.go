package forwarder

import (
	"cmp"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// minWait keeps a nearby server's jitter from doubling all questions.
	minWait = 30 * time.Millisecond
	// maxWait is the most that one dead server adds to one question, and the wait
	// for a server of unknown latency.
	maxWait = 400 * time.Millisecond
	// lossesToDie in a row make a server dead: one is chance, two are a burst.
	lossesToDie = 3
	// maxLinger bounds the sockets that listen for a server's late answers after
	// their question was answered by another one.
	maxLinger = 16
	// plainFor is how long a server that refused EDNS is asked without (RFC 6891
	// section 6.2.2 wants it to be tried again some day).
	plainFor = 15 * time.Minute
)

// server is what is known of one name server, whatever routes lead to it.
type server struct {
	addr   netip.AddrPort
	bare   netip.AddrPort // without the zone
	id     uint64         // of this process, for loop probes
	name   string         // for people: the address, and how it is asked
	source string         // the same of an answer; every answer kept shares it

	clear, secured streams // the latter without an address: there is none
	opportunistic  bool    // in the clear too

	lingering  atomic.Int32
	queries    atomic.Uint64
	replies    atomic.Uint64
	losses     atomic.Uint64
	netErrors  atomic.Uint64
	badRcodes  atomic.Uint64
	mismatches atomic.Uint64
	overTCP    atomic.Uint64
	faults     atomic.Uint64

	mu         sync.Mutex // guards following
	srtt       time.Duration
	rttvar     time.Duration
	heard      time.Time // when it last replied
	lost       int       // in a row
	dead       bool
	reported   bool      // the log has it that nothing comes of s
	looped     bool      // questions to it come back to us
	loopSeen   bool      // a loop probe came back since it was sent
	loopAt     time.Time // when the next loop probe is due
	probing    bool      // a probe is under way
	curious    bool      // a probe is wanted to measure its latency
	probeAt    time.Time // when the next probe of a dead server is due
	plainUntil time.Time
	ednsAt     time.Time            // when it last answered what had an OPT
	ednsDrops  int                  // in a row: it was silent with an OPT, and not without
	said       map[string]time.Time // when the log last had which fault of it
	clearUntil time.Time            // no TLS is tried before
}

var serverIDs atomic.Uint64

func newServer(f *Forwarder, a netip.AddrPort, t *TLS) *server {
	s := &server{addr: a, bare: netip.AddrPortFrom(a.Addr().WithZone(""), a.Port()), id: serverIDs.Add(1), name: a.String()}
	s.clear = streams{f: f, srv: s, addr: a}
	switch {
	case t == nil:
	case t.Opportunistic:
		s.name += " (opportunistic TLS)"
		s.opportunistic = true
		s.secured = streams{f: f, srv: s, addr: netip.AddrPortFrom(a.Addr(), cmp.Or(t.Port, portTLS)), tls: t.config()}
	default:
		s.name = "tls://" + s.name
		s.secured = streams{f: f, srv: s, addr: a, tls: t.config()}
	}
	s.source = "upstream " + s.name
	return s
}

// isSecure tells whether s is asked over TLS now.
func (s *server) isSecure(now time.Time) bool {
	if s.secured.tls == nil || !s.opportunistic {
		return s.secured.tls != nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !now.Before(s.clearUntil)
}

// spurns notes that TLS, which s needn't speak, was not to be had; true: that is news.
// What a network that is down says of it is soon forgotten.
func (s *server) spurns(why error, now time.Time) bool {
	pause := silentFor
	var broken *tlsError
	if errors.As(why, &broken) || errors.Is(why, syscall.ECONNREFUSED) {
		pause = clearFor
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	news := s.clearUntil.IsZero()
	s.clearUntil = now.Add(pause)
	return news
}

// secures notes that TLS was to be had; true: it was not before.
func (s *server) secures() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := !s.clearUntil.IsZero()
	s.clearUntil = time.Time{}
	return news
}

// usable tells whether questions should go to s: alive and no loop.
func (s *server) usable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.dead && !s.looped
}

func (s *server) isLooped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.looped
}

// probeSoon asks for a probe that measures s.
func (s *server) probeSoon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.curious = true
}

// latency is the smoothed round trip, maxWait when unknown.
func (s *server) latency() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srtt == 0 {
		return maxWait
	}
	return s.srtt
}

// wait is how long to wait for s before the next server is asked too.
func (s *server) wait() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.srtt == 0 {
		return maxWait
	}
	return min(max(s.srtt+4*s.rttvar, minWait), maxWait)
}

// maxPatience bounds how long a slow server is waited for before its silence counts.
const maxPatience = 2 * time.Second

// patience is how long s may be silent before that counts against it: a server that is
// always slow is not dead.
func (s *server) patience() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(max(s.srtt+4*s.rttvar, maxWait), maxPatience)
}

// answered notes a reply, which makes a dead server live; back: the log had it that it
// doesn't answer. rtt 0: not measured.
func (s *server) answered(rtt time.Duration, now time.Time) (back bool) {
	s.replies.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	back = s.reported
	s.heard, s.lost, s.dead, s.reported = now, 0, false, false
	switch {
	case rtt <= 0:
	case s.srtt == 0:
		s.srtt, s.rttvar = rtt, rtt/2
	default: // RFC 6298 section 2
		s.rttvar += ((s.srtt - rtt).Abs() - s.rttvar) / 4
		s.srtt += (rtt - s.srtt) / 8
	}
	return back
}

// lose notes that a question which was asked at that time came to nothing, and wants a
// probe: there are names of which a server that is well says nothing. If it replied to
// another question since, that is how it is.
func (s *server) lose(asked, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heard.After(asked) {
		return
	}
	s.lost++
	switch {
	case s.dead:
	case s.lost < lossesToDie:
		s.curious = true
	default:
		s.dead, s.probeAt = true, now
	}
}

// reports tells whether the log is to say that nothing comes of s: once until it answers.
func (s *server) reports() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := !s.reported
	s.reported = true
	return news
}

func (s *server) isDead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

// plain tells whether s is asked without EDNS.
func (s *server) plain(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.plainUntil)
}

// dropsToBePlain is how often a server that spoke EDNS lately must drop it to be
// asked without: losses alone must not cost DNSSEC.
const dropsToBePlain = 3

// speaksEDNS notes that s answered what had an OPT, with one.
func (s *server) speaksEDNS(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ednsAt, s.ednsDrops = now, 0
}

// spokeEDNS reports whether s answered what had an OPT lately.
func (s *server) spokeEDNS(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spokeLocked(now)
}

func (s *server) spokeLocked(now time.Time) bool {
	return !s.ednsAt.IsZero() && now.Sub(s.ednsAt) <= plainFor
}

// droppedEDNS notes that s was silent until it was asked without an OPT, and wants a
// probe, which tells whether that is so of all questions.
func (s *server) droppedEDNS(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ednsDrops++
	s.curious = true
	if !s.spokeLocked(now) || s.ednsDrops >= dropsToBePlain {
		s.plainUntil, s.ednsDrops = now.Add(plainFor), 0
	}
}

const (
	// faultsEvery is how often the log has one fault of one server.
	faultsEvery = time.Minute
	// maxFaults bounds the faults of a server that are told apart.
	maxFaults = 16
)

// shouldLog reports whether a fault of s is to be logged now.
func (s *server) shouldLog(why string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.said[why]
	switch {
	case known && now.Sub(last) < faultsEvery:
		return false
	case s.said == nil, !known && len(s.said) >= maxFaults:
		s.said = make(map[string]time.Time)
	}
	s.said[why] = now
	return true
}

// refusedEDNS notes that s answered a question without its OPT, having refused it with
// one. Of a server that spoke EDNS lately that says something of the question alone
// (RFC 6891 section 7): the next one, of another name, it takes with an OPT.
func (s *server) refusedEDNS(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.spokeLocked(now) {
		s.plainUntil = now.Add(plainFor)
	}
}
