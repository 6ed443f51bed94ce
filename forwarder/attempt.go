package forwarder

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"time"

	"meibo/resolver/wire"
)

const (
	// maxMismatches on one socket mean that somebody guesses; TCP can't be guessed.
	maxMismatches = 20
	// readBuffer is beyond what our OPT allows a server to send.
	readBuffer = 4096

	headerSize = 12
	optSize    = 11 // of our own, which has no options
)

// errSilent is the outcome of an attempt that nobody answered.
var errSilent = errors.New("no answer")

// reply is the outcome of an attempt.
type reply struct {
	from   *attempt
	answer *wire.Answer // nil: err
	tcp    bool
	cut    bool // the answer is cut, and TCP had no whole one
	err    error
}

// attempt is one question to one server. It sends the same packet again on the same
// socket when asked to, so that a forger gains nothing from retries. It runs nowhere:
// whoever began it gives it what comes of it, and it says what that comes to; only a
// question over TCP has a goroutine. All of it belongs to that one goroutine.
type attempt struct {
	f       *Forwarder
	srv     *server
	q       *wire.Query
	trustAD bool
	sent    time.Time
	told    chan<- told // what comes of it; never blocks

	counted bool // its silence was

	asked   *waiter // over UDP now; nil: not
	began   time.Time
	packet  []byte
	sends   int   // of the packet
	secure  bool  // it was asked over TLS
	edns    bool  // the packet has an OPT
	plainly bool  // it was sent without as well
	refused bool  // the server refused the OPT, or the question
	fault   error // what came over UDP can't be used, and TCP was asked
	tcpErr  error // why TCP had no answer then
	cut     *wire.Answer
}

// tcpContext makes the context of questions over TCP, which are few.
type tcpContext func() context.Context

// told is what came of an attempt: of w over UDP, or over TCP, or an error at once.
type told struct {
	to     *attempt
	w      *waiter
	tcp    bool
	answer *wire.Answer
	err    error
}

// toldEach is how much an attempt is told at most: over TLS with an OPT, without; over
// UDP with an OPT, without, over TCP, and over UDP without an OPT after that.
const toldEach = 6

func (f *Forwarder) newAttempt(s *server, q *wire.Query, trustAD bool, to chan<- told) *attempt {
	return &attempt{f: f, srv: s, q: q, trustAD: trustAD, sent: time.Now(), told: to}
}

// start asks.
func (a *attempt) start(ctx tcpContext) {
	a.srv.queries.Add(1)
	edns := !a.srv.plain(a.sent)
	if a.srv.isSecure(a.sent) {
		a.overTLS(ctx(), edns)
		return
	}
	a.overUDP(edns)
}

// handle makes of what came of a what it is; not done: it goes on. What a packet may do
// to us it does to this attempt only: a panic is its error.
func (a *attempt) handle(ctx tcpContext, t told) (rep reply, done bool) {
	defer func() {
		if p := recover(); p != nil {
			rep, done = reply{from: a, err: panicked(a.srv.addr, p)}, true
		}
	}()
	switch {
	case t.tcp && a.secure:
		return a.handleTLS(ctx, t)
	case t.tcp:
		return a.handleTCP(t)
	case t.err != nil:
		a.drop()
		return a.unheard(t.err), true
	}
	e := a.drop()
	if e.err != nil {
		return a.unheard(e.err), true
	}
	if e.answer != nil || e.fault != nil {
		a.answered(e.at.Sub(a.began))
	}
	if e.answer != nil {
		a.recordEDNS(&e.heard)
	}
	switch {
	case a.fault != nil: // TCP was asked before
		if e.answer != nil {
			return reply{from: a, answer: e.answer, cut: e.answer.TC()}, true
		}
		return a.unheard(a.fault), true
	case a.edns && (e.refusesEDNS() || e.mayRefuseEDNS() && !a.srv.spokeEDNS(a.began)):
		a.refused = true
		a.overUDP(false)
		return reply{}, false
	case e.fault != nil:
		a.complain(e.fault, "it is asked over TCP")
		a.fault = &faultError{a.srv.addr, e.fault}
		a.overTCP(ctx())
		return reply{}, false
	}
	if a.refused && !e.refusesEDNS() && !e.mayRefuseEDNS() {
		a.srv.refusedEDNS(time.Now()) // it was the OPT, not the question
	}
	if e.answer == nil || e.answer.TC() {
		a.cut = e.answer
		a.overTCP(ctx())
		return reply{}, false
	}
	return reply{from: a, answer: e.answer}, true
}

// unheard is the end without an answer over UDP; TCP, where it was asked before, had
// none either.
func (a *attempt) unheard(err error) reply {
	if a.fault != nil {
		err = errors.Join(a.fault, a.tcpErr)
	}
	return reply{from: a, err: err}
}

// handleTCP makes of what came over TCP what it is. Where UDP, or somebody on its way,
// has spoilt the reply and there is no TCP, the question is asked without an OPT, since
// it is the larger replies that are spoilt. A cut answer is better than none.
func (a *attempt) handleTCP(t told) (reply, bool) {
	switch {
	case t.err == nil:
		a.answered(0)
		return reply{from: a, answer: t.answer, tcp: true}, true
	case a.fault != nil:
		a.tcpErr = t.err
		if a.edns {
			a.overUDP(false)
			return reply{}, false
		}
		return a.unheard(t.err), true
	case a.cut != nil:
		a.srv.netErrors.Add(1)
		return reply{from: a, answer: a.cut, cut: true}, true
	}
	return reply{from: a, err: t.err}, true
}

// handleTLS makes of what came over TLS what it is. A server that has no TLS, and needn't,
// is asked in the clear.
func (a *attempt) handleTLS(ctx tcpContext, t told) (reply, bool) {
	switch h := (heard{answer: t.answer}); {
	case t.err == nil && a.edns && !a.refused && h.refusesEDNS():
		a.refused = true
		a.overTLS(ctx(), false)
		return reply{}, false
	case t.err == nil:
		a.answered(time.Since(a.began))
		a.f.secured(a.srv)
		return reply{from: a, answer: t.answer, tcp: true, cut: t.answer.TC()}, true
	case a.srv.opportunistic && !errors.Is(t.err, context.Canceled):
		a.f.spurned(a.srv, t.err)
		if a.secure = false; a.asked == nil {
			a.overUDP(!a.srv.plain(a.sent))
		}
		return reply{}, false
	}
	return reply{from: a, err: t.err}, true
}

func panicked(server netip.AddrPort, p any) error {
	return fmt.Errorf("panic at a question or reply of %s: %v\n%s", server, p, debug.Stack())
}

// faultError is a reply of the server that was asked, to the question that was
// asked, which can't be used.
type faultError struct {
	server netip.AddrPort
	why    error
}

// Error implements error.
func (e *faultError) Error() string {
	return fmt.Sprintf("%s sent a reply that can't be used: %v", e.server, e.why)
}

// complain counts a reply that can't be used, and logs it now and then.
func (a *attempt) complain(why error, next string) {
	a.srv.faults.Add(1)
	if a.srv.shouldLog(why.Error(), time.Now()) {
		a.f.log.Warn("upstream sent a reply that can't be used, "+next, "upstream", a.srv.name, "name", wire.Name(a.q.Name()).String(), "err", why)
	}
}

// packed is the query packet with an ID.
func (a *attempt) packed(id uint16, edns bool) []byte {
	packet := wire.AppendQuery(make([]byte, 0, len(a.q.Msg)+optSize), a.q, id, edns)
	if a.trustAD {
		packet[3] |= 0x20 // AD in a query asks for AD in the answer (RFC 6840 section 5.7)
	}
	return packet
}

// heard is what a server said over UDP: an answer; or a reply that can't be used;
// or neither, when too much was heard that can't be from it.
type heard struct {
	answer *wire.Answer
	fault  error
}

// overUDP asks over UDP.
func (a *attempt) overUDP(edns bool) {
	w := newWaiter(a)
	a.began, a.edns, a.sends, a.plainly = time.Now(), edns, 1, false
	a.asked, a.packet = w, a.packed(0, edns)
	a.f.sockets.send(w, a.packet)
}

// drop ends the interest in what comes over UDP and returns what came.
func (a *attempt) drop() event {
	w := a.asked
	a.asked = nil
	return a.f.sockets.drop(w)
}

func (a *attempt) answered(rtt time.Duration) { a.f.answered(a.srv, rtt) }

var (
	errNotReply      = errors.New("it is a question, perhaps our own sent back")
	errOpcode        = errors.New("it is of another opcode")
	errOtherQuestion = errors.New("it answers another question")
	errNoQuestion    = errors.New("it does not say to which question it belongs")
	errReferral      = errors.New("it names other servers in place of an answer (a referral): this server does not resolve")
)

// match takes msg as the reply to q under id, or says that it is none: another ID
// (RFC 5452 section 9.1; the socket has judged address and port). What has the ID and
// can't be used, for another question too, is a reply: to wait on would be to wait
// for nothing, and who guesses an ID gains no more by it than that TCP is asked.
func match(q *wire.Query, id uint16, msg []byte) (heard, bool) {
	if len(msg) < 2 || binary.BigEndian.Uint16(msg) != id {
		return heard{}, false
	}
	a, err := wire.ParseAnswer(msg)
	switch {
	case err == nil && a.Matches(q):
		return heard{answer: a}, true
	case err == nil && a.HasQuestion():
		err = errOtherQuestion
	case err == nil:
		return unasked(q, a), true
	case !sameQuestion(q, msg):
		err = errOtherQuestion
	case len(msg) >= headerSize && msg[2]&0x80 == 0:
		err = errNotReply
	case len(msg) >= headerSize && msg[2]&0x78 != 0:
		err = errOpcode
	}
	return heard{fault: err}, true
}

// unasked judges a reply that repeats no question: an error code means what it says,
// from servers that could not read the question or don't care to repeat it.
func unasked(q *wire.Query, a *wire.Answer) heard {
	if rcode := a.Rcode(); rcode != wire.RcodeSuccess && rcode != wire.RcodeNXDomain {
		if bad, err := wire.Pack(q, &wire.Reply{Rcode: rcode, Plain: true}); err == nil {
			return heard{answer: bad}
		}
	}
	return heard{fault: errNoQuestion}
}

// sameQuestion reports whether a message that can't be read as a whole begins with
// our question, or doesn't hold one.
func sameQuestion(q *wire.Query, msg []byte) bool {
	if len(msg) < headerSize || binary.BigEndian.Uint16(msg[4:]) != 1 {
		return true
	}
	var asked wire.Query
	reply := append([]byte(nil), msg...)
	reply[2] = 0 // as if it were a query, of which the question alone is read
	asked.Parse(reply)
	name := asked.Name()
	return len(name) == 0 || string(name) == string(q.Name()) && asked.Type == q.Type && asked.Class == q.Class
}

// refusesEDNS tells the replies of servers that may not know EDNS (RFC 6891 section
// 7), or can't write it.
func (h *heard) refusesEDNS() bool {
	if h.answer == nil {
		return errors.Is(h.fault, wire.ErrOPT)
	}
	rcode := h.answer.Rcode()
	return rcode == wire.RcodeFormErr || rcode == wire.RcodeNotImp || rcode == wire.RcodeBadVers
}

// mayRefuseEDNS tells replies that mean the question, or the OPT of servers that know
// neither it nor what to say of it.
func (h *heard) mayRefuseEDNS() bool {
	if h.answer == nil || h.answer.EDNS() {
		return false
	}
	rcode := h.answer.Rcode()
	return rcode == wire.RcodeServFail || rcode == wire.RcodeRefused
}

// overTCP asks over TCP, until ctx ends.
func (a *attempt) overTCP(ctx context.Context) {
	a.srv.overTCP.Add(1)
	to, edns := a.told, a.edns
	a.f.wg.Go(func() { to <- a.onStream(ctx, &a.srv.clear, edns) })
}

// onStream waits for what comes of the question on one of the server's connections.
func (a *attempt) onStream(ctx context.Context, on *streams, edns bool) (t told) {
	t = told{to: a, tcp: true}
	defer func() {
		if p := recover(); p != nil {
			t.answer, t.err = nil, panicked(a.srv.addr, p)
		}
	}()
	t.answer, t.err = on.exchange(ctx, a.q, func(id uint16) []byte { return a.packed(id, edns) })
	return t
}

// overTLS asks over TLS. When ctx ends, and nobody waits any more, it goes on for a
// little: only so a server that never answers is noticed.
func (a *attempt) overTLS(ctx context.Context, edns bool) {
	a.srv.overTCP.Add(1)
	a.secure, a.edns, a.began = true, edns, time.Now()
	to, began := a.told, a.began
	a.f.wg.Go(func() {
		own := ctx
		if a.srv.lingering.Add(1) <= maxLinger {
			own = context.WithoutCancel(ctx)
		}
		defer a.srv.lingering.Add(-1)
		t := a.onStream(own, &a.srv.secured, edns)
		switch {
		case ctx.Err() == nil:
			to <- t
		case t.err == nil:
			a.f.answered(a.srv, time.Since(began))
			a.f.secured(a.srv)
		case !errors.Is(t.err, errSilent):
		case a.srv.opportunistic:
			a.f.spurned(a.srv, t.err)
		default:
			a.srv.losses.Add(1)
			a.f.lost(a.srv, began, t.err)
		}
	})
}

// silencesForPlain is after how many silences a question is asked without an OPT:
// there are servers, and firewalls before them, that drop what they don't know.
const silencesForPlain = 2

// resend sends the question again on the same socket, every other time without its
// OPT once there was so much silence.
func (a *attempt) resend() {
	if a.secure { // TCP repeats what was lost
		if a.srv.opportunistic && a.asked == nil {
			a.overUDP(!a.srv.plain(a.sent)) // whichever answers first
		}
		return
	}
	if a.asked != nil && !a.f.sockets.isSent(a.asked) {
		return
	}
	packet := a.packet
	if a.edns && a.sends >= silencesForPlain && (a.sends-silencesForPlain)%2 == 0 {
		packet, a.plainly = withoutOPT(packet), true
	}
	a.sends++
	if a.asked != nil {
		a.srv.queries.Add(1)
		a.asked.again(packet)
	}
}

// withoutOPT is a query of ours without its last record, the OPT.
func withoutOPT(packet []byte) []byte {
	plain := append([]byte(nil), packet[:len(packet)-optSize]...)
	plain[11] = 0
	return plain
}

// recordEDNS remembers whether the server answers what has an OPT. One that it only
// sends back with its refusal says nothing.
func (a *attempt) recordEDNS(h *heard) {
	switch {
	case h.refusesEDNS():
	case h.answer.EDNS():
		a.srv.speaksEDNS(time.Now())
	case a.edns && a.plainly:
		a.srv.droppedEDNS(time.Now())
		a.f.nudge()
	}
}

// release ends the interest in a: another server was faster, or the time is over. It
// is heard for what is left of its server's patience, since only so a server that never answers is
// noticed.
func (a *attempt) release() {
	if a.asked == nil {
		return
	}
	left := time.Until(a.sent.Add(a.srv.patience()))
	if lingering := a.srv.lingering.Add(1); left <= 0 || lingering > maxLinger {
		a.linger()
		return
	}
	a.f.wg.Add(1)
	time.AfterFunc(left, func() {
		defer a.f.wg.Done()
		a.linger()
	})
}

// linger ends the time of an attempt that nobody waits for any more.
func (a *attempt) linger() {
	a.srv.lingering.Add(-1)
	a.over(a.drop())
}

// over does the accounts of an attempt that nobody waits for any more.
func (a *attempt) over(e event) {
	switch {
	case e.err != nil:
		a.end(e.err)
	case e.answer != nil || e.fault != nil:
		a.answered(e.at.Sub(a.began))
	default:
		a.end(errSilent)
	}
}

// end does the accounts of an attempt that failed: whether its silence or refusal is
// to be counted against the server.
func (a *attempt) end(err error) {
	var fault *faultError
	switch {
	case errors.As(err, &fault):
		return // it lives
	case errors.Is(err, errSilent):
		if time.Since(a.sent) >= a.srv.patience() {
			a.silent()
		}
		return
	}
	a.srv.netErrors.Add(1)
	if !errors.Is(err, context.Canceled) {
		a.f.lost(a.srv, a.sent, err)
	}
}

// silent counts the silence against the server, once: a question that is sent again is
// the same question.
func (a *attempt) silent() {
	if !a.counted {
		a.counted = true
		a.srv.losses.Add(1)
		a.f.lost(a.srv, a.sent, errSilent)
	}
}
