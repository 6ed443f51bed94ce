package forwarder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"meibo/resolver"
	"meibo/resolver/wire"
)

// probeOneIn is how rarely a question makes the prober measure another server of
// its route: about three in a hundred.
const probeOneIn = 32

// route is a Route at work. It implements resolver.Upstream and resolver.Health.
type route struct {
	cfg     Route
	f       *Forwarder
	counter *atomic.Uint64
	name    string
	servers []*server // in the order of cfg.Servers, then cfg.Fallback
	first   int       // how many are of cfg.Servers
}

var (
	_ resolver.Upstream = (*route)(nil)
	_ resolver.Health   = (*route)(nil)
	_ resolver.Lasting  = (*route)(nil)
)

// Down tells that every server of the route is dead or leads back to us.
func (rt *route) Down() bool {
	return !slices.ContainsFunc(rt.servers, (*server).usable)
}

// Identity tells which servers are asked, and how.
func (rt *route) Identity() string {
	tls := ""
	if t := rt.cfg.TLS; t != nil {
		tls = fmt.Sprint(t.Name, t.Pins, t.Opportunistic)
	}
	return fmt.Sprint(rt.cfg.Servers, rt.cfg.Fallback, tls)
}

// Exchange asks the servers of the route until one gives an answer. NOERROR and
// NXDOMAIN are answers; after any other response code, or a cut answer that can't be
// had whole, the next server is asked, and such a reply is what is returned when no
// server does better. A referral is none, but to a question for name servers. The
// error is a *resolver.Failure, or that of ctx when ctx was canceled.
func (rt *route) Exchange(ctx context.Context, q *wire.Query) (resolver.Result, error) {
	r := newRace(ctx, rt, q)
	defer r.release()
	timer := r.ear.timer
	timer.Reset(r.next())
	for len(r.running) > 0 {
		rt.f.sockets.flush()
		select {
		case t := <-r.ear.told:
			rep, done := t.to.handle(r.tcpContext, t)
			if !done {
				continue
			}
			if r.accept(rep) {
				rt.explore(rep.from.srv)
				return rt.result(rep), nil
			}
			if d, asked := r.instead(); asked {
				timer.Reset(d)
			}
		case now := <-timer.C:
			r.overdue()
			if !now.Before(r.deadline) || r.hasCut() && len(r.todo) == 0 {
				return r.failed(nil)
			}
			timer.Reset(r.next())
		case <-ctx.Done():
			return r.failed(ctx.Err())
		}
	}
	return r.failed(nil)
}

func (rt *route) result(rep reply) resolver.Result {
	res := resolver.Result{
		Answer: rep.answer, Ages: true, AD: rt.cfg.TrustAD && rep.answer.AD(),
		Source: rep.from.srv.source,
	}
	if rep.tcp && !rep.from.secure {
		res.Source += " over TCP"
	}
	return res
}

// explore now and then has a server other than the one used measured.
func (rt *route) explore(used *server) {
	if rt.cfg.Mode != Fastest || len(rt.servers) < 2 || rand.N(probeOneIn) != 0 {
		return
	}
	if s := rt.servers[rand.N(rt.first)]; s != used {
		s.probeSoon()
		rt.f.nudge()
	}
}

// order is the servers to ask in order, those to ask when none of these answers, and
// those to ask when all of both refuse.
func (rt *route) order() (first, fallback, reserve []*server) {
	for i, s := range rt.servers {
		switch {
		case s.usable() && i < rt.first:
			first = append(first, s)
		case s.usable():
			fallback = append(fallback, s)
		case !s.isLooped():
			reserve = append(reserve, s)
		}
	}
	for _, tier := range [][]*server{first, fallback} {
		switch rt.cfg.Mode {
		case Fastest:
			slices.SortStableFunc(tier, func(a, b *server) int { return int(a.latency() - b.latency()) })
		case Random:
			rand.Shuffle(len(tier), func(i, j int) { tier[i], tier[j] = tier[j], tier[i] })
		}
	}
	if len(first) == 0 {
		first, fallback = fallback, nil
	}
	return first, fallback, reserve
}

// race is one exchange: who was asked, who may still answer.
type race struct {
	ctx      context.Context
	rt       *route
	q        *wire.Query
	began    time.Time
	deadline time.Time
	parallel bool
	todo     []*server // not asked yet
	fallback []*server // not asked before all of todo
	reserve  []*server // dead ones
	running  []*attempt
	ear      *ear
	tcp      context.Context // of questions over TCP; nil: there were none
	endTCP   context.CancelFunc
	turn     int
	round    int
	bad      *reply // the last answer that is none
	err      error  // the last fault of the network
	asked    []*server
}

func newRace(ctx context.Context, rt *route, q *wire.Query) *race {
	now := time.Now()
	r := &race{
		ctx: ctx, rt: rt, q: q, began: now, deadline: now.Add(rt.cfg.Timeout), parallel: rt.cfg.Mode == All,
		ear: rt.f.getEar(toldEach * len(rt.servers)),
	}
	if until, ok := ctx.Deadline(); ok && until.Before(r.deadline) {
		r.deadline = until
	}
	r.todo, r.fallback, r.reserve = rt.order()
	if len(r.todo) == 0 {
		r.wakeReserve()
	}
	return r
}

// reserveWait is how long servers that are dead are waited for, no longer than by the
// probes that tell when they are back.
const reserveWait = probeTimeout

// wakeReserve turns to the dead servers, all at once: any of them may be back.
func (r *race) wakeReserve() {
	r.todo, r.reserve, r.parallel = r.reserve, nil, true
	if until := time.Now().Add(reserveWait); until.Before(r.deadline) {
		r.deadline = until
	}
}

// tcpContext ends with the race.
func (r *race) tcpContext() context.Context {
	if r.tcp == nil {
		r.tcp, r.endTCP = context.WithDeadline(r.ctx, r.deadline)
	}
	return r.tcp
}

// next asks the next server, or asks those again that were asked and are silent.
// It returns how long to wait before calling it again.
func (r *race) next() time.Duration {
	return min(r.startNext(), time.Until(r.deadline))
}

func (r *race) startNext() time.Duration {
	if len(r.todo) == 0 {
		r.todo, r.fallback = r.fallback, nil
	}
	if len(r.todo) > 0 {
		return r.start()
	}
	if len(r.running) == 0 {
		return r.rt.cfg.Timeout
	}
	if r.parallel {
		r.round++
		for _, a := range r.running {
			a.resend()
		}
		return maxWait << r.round
	}
	if r.turn%len(r.running) == 0 {
		r.round++
	}
	a := r.running[r.turn%len(r.running)]
	r.turn++
	a.resend()
	return a.srv.wait() << r.round
}

// start starts the next attempt, or all of them in a parallel race.
func (r *race) start() time.Duration {
	n := 1
	if r.parallel {
		n = len(r.todo)
	}
	wait := time.Duration(0)
	for _, s := range r.todo[:n] {
		wait = max(wait, s.wait())
		r.launch(s)
	}
	r.todo = r.todo[n:]
	return wait << r.round
}

func (r *race) launch(s *server) {
	a := r.rt.f.newAttempt(s, r.q, r.rt.cfg.TrustAD, r.ear.told)
	r.running = append(r.running, a)
	r.asked = append(r.asked, s)
	a.start(r.tcpContext)
}

// accept takes one outcome; true: it is the answer. That of a server which does not
// resolve is one only when nobody has a better.
func (r *race) accept(rep reply) bool {
	r.running = slices.DeleteFunc(r.running, func(a *attempt) bool { return a == rep.from })
	if rep.err != nil {
		r.rt.f.log.Debug("upstream failed a question", "upstream", rep.from.srv.name, "err", rep.err)
		rep.from.end(rep.err)
		r.err = rep.err
		return false
	}
	switch rcode := rep.answer.Rcode(); {
	case rep.answer.IsReferral() && r.q.Type != wire.TypeNS:
		// To pass it on would deny a name that may well exist. Who asked for name
		// servers has them.
		rep.from.complain(errReferral, "the next one is asked")
		r.err = &faultError{rep.from.srv.addr, errReferral}
		return false
	case rep.cut: // the next server may have a whole one
	case rep.answer.IsLame():
		rep.from.srv.badRcodes.Add(1)
		if r.bad != nil {
			return false
		}
	case rcode == wire.RcodeSuccess, rcode == wire.RcodeNXDomain:
		return true
	default:
		rep.from.srv.badRcodes.Add(1)
		if r.hasCut() {
			return false // half an answer is better than none
		}
	}
	bad := rep // a copy, or every reply would be made on the heap
	r.bad = &bad
	return false
}

// hasCut tells that there is a cut answer: no client is kept waiting for a whole one
// by servers that are silent.
func (r *race) hasCut() bool { return r.bad != nil && r.bad.cut }

// instead asks somebody else at once after a refusal. False: nobody was left that
// is not being listened to already.
func (r *race) instead() (time.Duration, bool) {
	if len(r.todo) == 0 && (len(r.running) == 0 || !r.parallel) {
		r.todo, r.fallback = r.fallback, nil
	}
	if len(r.todo) == 0 && len(r.running) == 0 && !r.hasCut() {
		r.wakeReserve()
	}
	if len(r.todo) == 0 {
		return 0, false
	}
	return min(r.start(), time.Until(r.deadline)), true
}

// overdue counts the silence of those still running, after their patience.
func (r *race) overdue() {
	for _, a := range r.running {
		if time.Since(a.sent) >= a.srv.patience() {
			a.silent()
		}
	}
}

// ear is what an exchange waits with.
type ear struct {
	timer *time.Timer
	told  chan told
}

// getEar takes an ear that can be told so much, one that was used before if there is.
func (f *Forwarder) getEar(most int) *ear {
	if e, _ := f.ears.Get().(*ear); e != nil && cap(e.told) >= most {
		return e
	}
	return &ear{time.NewTimer(time.Hour), make(chan told, most)}
}

// release lets those still running end by themselves.
func (r *race) release() {
	r.ear.timer.Stop()
	if len(r.running) == 0 && r.tcp == nil && len(r.ear.told) == 0 { // nobody is left to tell anything
		r.rt.f.ears.Put(r.ear)
	}
	for _, a := range r.running {
		a.release()
	}
	if r.endTCP != nil {
		r.endTCP()
	}
}

// failed is what the exchange comes to without an answer.
func (r *race) failed(err error) (resolver.Result, error) {
	if r.bad != nil {
		return r.rt.result(*r.bad), nil
	}
	if err == context.Canceled {
		return resolver.Result{}, err
	}
	if len(r.asked) == 0 {
		return resolver.Result{}, &resolver.Failure{EDE: wire.EDENoReachable, Text: r.rt.name + ": every upstream leads back here"}
	}
	names := make([]string, len(r.asked))
	for i, s := range r.asked {
		names[i] = s.name
	}
	who := strings.Join(names, ", ")
	var fault *faultError
	if errors.As(r.err, &fault) {
		return resolver.Result{}, &resolver.Failure{EDE: wire.EDEInvalidData, Text: fault.Error(), Err: r.err}
	}
	var insecure *tlsError
	if errors.As(r.err, &insecure) {
		return resolver.Result{}, &resolver.Failure{EDE: wire.EDENetworkError, Text: insecure.Error(), Err: r.err}
	}
	if r.err != nil && r.err != errSilent {
		return resolver.Result{}, &resolver.Failure{EDE: wire.EDENetworkError, Text: who + " not reachable", Err: r.err}
	}
	return resolver.Result{}, &resolver.Failure{EDE: wire.EDENoReachable, Text: "no answer from " + who + " in " + time.Since(r.began).Round(100*time.Millisecond).String()}
}

// lost counts a question that came to nothing against s.
func (f *Forwarder) lost(s *server, asked time.Time, why error) {
	var insecure *tlsError
	if errors.As(why, &insecure) && insecure.distrusts() && s.reports() {
		f.log.Warn("upstream's certificate is refused, nothing is asked of it", "upstream", s.name, "err", why)
	}
	s.lose(asked, time.Now())
	f.nudge()
}

// answered notes a reply of s.
func (f *Forwarder) answered(s *server, rtt time.Duration) {
	if s.answered(rtt, time.Now()) {
		f.log.Info("upstream answers again", "upstream", s.name)
	}
}

// spurned notes that s, which needn't, speaks no TLS.
func (f *Forwarder) spurned(s *server, why error) {
	if s.spurns(why, time.Now()) {
		f.log.Info("upstream is not to be had over TLS, it is asked in the clear", "upstream", s.name, "err", why)
	}
}

// secured notes that s speaks TLS.
func (f *Forwarder) secured(s *server) {
	if s.secures() {
		f.log.Info("upstream is asked over TLS again", "upstream", s.name)
	}
}
