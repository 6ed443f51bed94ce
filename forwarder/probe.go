package forwarder

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"meibo/resolver"
	"meibo/resolver/wire"
)

const (
	// probeEvery is how often a dead server is probed: it is in use again within a
	// second of being back, however long it was away.
	probeEvery = time.Second
	// probeTimeout bounds one probe.
	probeTimeout = time.Second
	// loopRetest is how often a server that led back to us is tried again.
	loopRetest = 5 * time.Minute
)

// loopSuffix is where loop probes are asked. The .internal domain is for private
// use and is forwarded by resolvers, unlike .test and .invalid, which many answer
// themselves.
const loopSuffix = wire.Name("\x04loop\x05meibo\x08internal\x00")

// probeLoop starts probes as they fall due until ctx ends, and waits for them.
func (f *Forwarder) probeLoop(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		case <-timer.C:
		}
		timer.Reset(f.startDue(ctx, &wg))
	}
}

// startDue starts every probe that is due and returns when the next will be.
func (f *Forwarder) startDue(ctx context.Context, wg *sync.WaitGroup) time.Duration {
	next := time.Duration(loopRetest)
	for _, s := range f.snapshot() {
		q, in := s.due(time.Now(), f.uid)
		next = min(next, in)
		if q != nil {
			wg.Go(func() { f.probe(ctx, s, q) })
		}
	}
	return next
}

// due is the probe that s needs now, or nil, and when to look again.
func (s *server) due(now time.Time, uid string) (*wire.Query, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probing {
		return nil, loopRetest // the end of the probe wakes us
	}
	var q *wire.Query
	switch {
	case (s.loopAt.IsZero() || s.looped && !now.Before(s.loopAt)) && !s.dead:
		s.loopAt, s.loopSeen = now.Add(loopRetest), false
		q = wire.NewQuery(loopName(uid, s.id), wire.TypeTXT)
	case s.curious, s.dead && !now.Before(s.probeAt):
		s.probeAt = now.Add(probeEvery)
		q = wire.NewQuery(wire.Root, wire.TypeNS)
	case s.dead:
		return nil, s.probeAt.Sub(now)
	case s.looped:
		return nil, s.loopAt.Sub(now)
	default:
		return nil, loopRetest
	}
	s.probing, s.curious = true, false
	return q, loopRetest
}

// loopName is asked of server id; if it comes back, its questions do.
func loopName(uid string, id uint64) wire.Name {
	n := strconv.FormatUint(id, 10)
	return wire.Name(string(rune(len(n))) + n + string(rune(len(uid))) + uid + string(loopSuffix))
}

// probe asks s q and takes the consequences.
func (f *Forwarder) probe(ctx context.Context, s *server, q *wire.Query) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	a := f.newAttempt(s, q, false, nil)
	if err := f.tryOnce(ctx, a); err != nil {
		f.lost(s, a.sent, err)
		if s.isDead() && s.reports() {
			f.log.Warn("upstream does not answer, it is left out until it does", "upstream", s.name, "err", err)
		}
	}
	if s.probed(time.Now()) {
		f.log.Info("upstream does not lead back to this daemon any more, it is asked again", "upstream", s.name)
	}
	f.nudge()
}

// tryOnce sees an attempt through, until ctx ends. The error is that nothing was heard
// of the server; none when ctx was canceled.
func (f *Forwarder) tryOnce(ctx context.Context, a *attempt) error {
	heard := make(chan told, toldEach)
	a.told = heard
	again := time.NewTimer(probeTimeout / 2)
	defer again.Stop()
	stream := func() context.Context { return ctx }
	a.start(stream)
	for {
		f.sockets.flush()
		select {
		case t := <-heard:
			if rep, done := a.handle(stream, t); done {
				return unreached(ctx, rep.err)
			}
		case <-again.C:
			a.resend()
			a.resend() // the second time without an OPT, which it may drop
		case <-ctx.Done():
			if a.asked != nil {
				a.drop()
			}
			return unreached(ctx, errSilent)
		}
	}
}

// unreached is err, if it says that the server was not reached.
func unreached(ctx context.Context, err error) error {
	var fault *faultError
	if errors.As(err, &fault) || errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	return err
}

// probed ends a probe; true: it found the end of a loop.
func (s *server) probed(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.probing = false
	ended := s.looped && !s.loopSeen && !s.dead
	s.looped = s.loopSeen
	return ended
}

// loopZone hears our own loop probes come back.
type loopZone struct{ f *Forwarder }

var _ resolver.Zone = loopZone{}

// Answer implements resolver.Zone: it takes note of our probes, and passes on
// those of others, whose loop may be longer than one hop.
func (z loopZone) Answer(q *wire.Query) (resolver.Result, resolver.Outcome) {
	labels := wire.Name(q.Name()).Labels()
	if len(labels) != 5 || labels[1] != z.f.uid {
		return resolver.Result{}, resolver.NotMine
	}
	id, err := strconv.ParseUint(labels[0], 10, 64)
	if err != nil {
		return resolver.Result{}, resolver.NotMine
	}
	for _, s := range z.f.snapshot() {
		if s.id == id && s.cameBack() {
			z.f.log.Error("upstream leads back to this daemon, it is left out; take one of the two out of the other's configuration",
				"upstream", s.name, "client", q.Client.String())
		}
	}
	a, err := wire.Pack(q, &wire.Reply{Rcode: wire.RcodeNXDomain})
	if err != nil {
		return resolver.Result{}, resolver.NotMine
	}
	return resolver.Result{Answer: a, NoStore: true, Source: "loop detection"}, resolver.Answered
}

// Resolve implements resolver.Zone; Answer never asks for it.
func (z loopZone) Resolve(context.Context, *wire.Query) (resolver.Result, error) {
	return resolver.Result{}, resolver.ErrNotMine
}

// cameBack notes that a probe of s reached us; true: that is news.
func (s *server) cameBack() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := !s.looped
	s.looped, s.loopSeen = true, true
	return news
}
