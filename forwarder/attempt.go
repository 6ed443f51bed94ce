package forwarder

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"meibo/resolver/wire"
)

const (
	// maxMismatches on one socket mean that somebody guesses; TCP can't be guessed.
	maxMismatches = 20
	// tcpTimeout bounds the second leg of a question; firewalls that drop TCP are
	// common, and the cut answer is then better than none.
	tcpTimeout = 2 * time.Second
	// readBuffer is beyond what our OPT allows a server to send.
	readBuffer = 4096

	headerSize = 12
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
// socket when asked to, so that a forger gains nothing from retries.
type attempt struct {
	srv     *server
	sockets *sockets
	log     *slog.Logger
	q       *wire.Query
	trustAD bool
	sent    time.Time

	losses atomic.Int32 // how often its silence was counted

	mu      sync.Mutex // guards following
	asked   *waiter    // nil: not yet or no longer
	timer   *time.Timer
	packet  []byte
	sends   int  // of the packet
	edns    bool // the packet has an OPT
	plainly bool // it was sent without as well
	lingers bool
}

// run asks and returns what came of it. deadline ends the wait for UDP, ctx the
// part over TCP. What a packet may do to us it does to this attempt only: a panic
// is its error.
func (a *attempt) run(ctx context.Context, deadline time.Time) (rep reply) {
	defer func() {
		if p := recover(); p != nil {
			rep = reply{from: a, err: panicked(a.srv.addr, p)}
		}
	}()
	return a.ask(ctx, deadline)
}

func panicked(server netip.AddrPort, p any) error {
	return fmt.Errorf("panic at a reply of %s: %v\n%s", server, p, debug.Stack())
}

func (a *attempt) ask(ctx context.Context, deadline time.Time) reply {
	a.srv.queries.Add(1)
	edns, refused := !a.srv.plain(a.sent), false
	for ctx.Err() == nil {
		got, err := a.overUDP(ctx, deadline, edns)
		switch {
		case err != nil:
			return reply{from: a, err: err}
		case edns && got.refusesEDNS():
			edns, refused = false, true
			continue
		case got.fault != nil:
			return a.afterFault(ctx, deadline, got.fault, edns)
		}
		if refused && !got.refusesEDNS() {
			a.srv.refusedEDNS(time.Now()) // it was the OPT, not the question
		}
		if got.answer == nil || got.answer.TC() {
			return a.afterTC(ctx, got.answer, edns)
		}
		return reply{from: a, answer: got.answer}
	}
	return reply{from: a, err: errSilent}
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

// afterFault asks over TCP what UDP, or somebody on its way, has spoilt; and without
// an OPT where there is no TCP, since it is the larger replies that are spoilt.
func (a *attempt) afterFault(ctx context.Context, deadline time.Time, why error, edns bool) reply {
	fault := &faultError{a.srv.addr, why}
	a.complain(why, "it is asked over TCP")
	answer, err := a.overTCP(ctx, edns)
	if err == nil {
		return reply{from: a, answer: answer, tcp: true}
	}
	if edns && ctx.Err() == nil {
		if got, e := a.overUDP(ctx, deadline, false); e == nil && got.answer != nil {
			return reply{from: a, answer: got.answer, cut: got.answer.TC()}
		}
	}
	return reply{from: a, err: errors.Join(fault, err)}
}

// complain counts a reply that can't be used, and logs it now and then.
func (a *attempt) complain(why error, next string) {
	a.srv.faults.Add(1)
	if a.srv.saysFault(time.Now()) {
		a.log.Warn("upstream sent a reply that can't be used, "+next, "upstream", a.srv.addr.String(), "name", wire.Name(a.q.Name()).String(), "err", why)
	}
}

// afterTC asks over TCP; where that fails the cut answer is better than none.
func (a *attempt) afterTC(ctx context.Context, cut *wire.Answer, edns bool) reply {
	answer, err := a.overTCP(ctx, edns)
	switch {
	case err == nil:
		return reply{from: a, answer: answer, tcp: true}
	case cut != nil:
		a.srv.netErrors.Add(1)
		return reply{from: a, answer: cut, cut: true}
	}
	return reply{from: a, err: err}
}

// packed is the query packet with an ID.
func (a *attempt) packed(id uint16, edns bool) []byte {
	packet := wire.AppendQuery(make([]byte, 0, 320), a.q, id, edns)
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

// overUDP asks, and waits for what comes of it among whatever arrives.
func (a *attempt) overUDP(ctx context.Context, deadline time.Time, edns bool) (heard, error) {
	if err := ctx.Err(); err != nil {
		return heard{}, err
	}
	began := time.Now()
	w, timer := newWaiter(a.srv, a.q), time.NewTimer(deadline.Sub(began))
	defer timer.Stop()
	err := a.sockets.ask(w, func(id uint16) []byte {
		packet := a.packed(id, edns)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.asked, a.timer, a.packet, a.edns, a.sends, a.plainly = w, timer, packet, edns, 1, false
		return packet
	})
	defer a.sockets.drop(w)
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.asked = nil
	}()
	if err != nil {
		return heard{}, err
	}
	select {
	case e := <-w.ch:
		if e.err == nil && (e.answer != nil || e.fault != nil) {
			a.answered(time.Since(began))
		}
		if e.answer != nil {
			a.noteEDNS(e.answer)
		}
		return e.heard, e.err
	case <-timer.C:
		return heard{}, errSilent
	}
}

// answered notes a reply, and tells that a server which was left out is back.
func (a *attempt) answered(rtt time.Duration) {
	if a.srv.answered(rtt) {
		a.log.Info("upstream answers again", "upstream", a.srv.addr.String())
	}
}

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
		if bad, err := wire.Pack(q, &wire.Reply{Rcode: rcode}); err == nil {
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

// overTCP asks on a connection of its own.
func (a *attempt) overTCP(ctx context.Context, edns bool) (*wire.Answer, error) {
	a.srv.overTCP.Add(1)
	ctx, cancel := context.WithTimeout(ctx, tcpTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", a.srv.addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	var r [2]byte
	rand.Read(r[:])
	id := binary.BigEndian.Uint16(r[:])
	packet := a.packed(id, edns)
	framed := append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(packet)), uint16(len(packet))), packet...)
	if _, err := conn.Write(framed); err != nil {
		return nil, err
	}
	for range maxMismatches {
		msg, err := readFrame(conn)
		if err != nil {
			return nil, err
		}
		h, ok := match(a.q, id, msg)
		switch {
		case ok && h.fault != nil:
			return nil, &faultError{a.srv.addr, h.fault}
		case ok:
			a.answered(0)
			return h.answer, nil
		}
		a.srv.mismatches.Add(1)
	}
	return nil, fmt.Errorf("%s answers other questions over TCP", a.srv.addr)
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, msg)
	return msg, err
}

// silencesForPlain is after how many silences a question is asked without an OPT:
// there are servers, and firewalls before them, that drop what they don't know.
const silencesForPlain = 2

// resend sends the question again on the same socket, every other time without its
// OPT once there was so much silence.
func (a *attempt) resend() {
	a.mu.Lock()
	defer a.mu.Unlock() // the socket is its own no longer than it is asked
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
	const opt = 11 // our own has no options
	plain := append([]byte(nil), packet[:len(packet)-opt]...)
	plain[11] = 0
	return plain
}

// noteEDNS remembers whether the server answers what has an OPT.
func (a *attempt) noteEDNS(answer *wire.Answer) {
	a.mu.Lock()
	edns, plainly := a.edns, a.plainly
	a.mu.Unlock()
	switch {
	case answer.EDNS():
		a.srv.speaksEDNS(time.Now())
	case edns && plainly:
		a.srv.droppedEDNS(time.Now())
	}
}

// release ends the interest in a: another server was faster. It listens on for
// what is left of maxWait, since only so a server that never answers is noticed.
func (a *attempt) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked == nil {
		return
	}
	left := time.Until(a.sent.Add(maxWait))
	if a.srv.lingering.Add(1) > maxLinger {
		left = 0
	}
	a.lingers = true
	a.timer.Reset(left)
}

// end does the accounts of a finished attempt and reports whether its silence or
// refusal is to be counted against the server.
func (a *attempt) end(rep reply) (lost bool) {
	a.mu.Lock()
	if a.lingers {
		a.srv.lingering.Add(-1)
	}
	a.mu.Unlock()
	switch {
	case rep.err == nil:
		return false
	case errors.Is(rep.err, errSilent):
		return a.losses.Load() == 0 && time.Since(a.sent) >= maxWait
	}
	var fault *faultError
	if errors.As(rep.err, &fault) {
		return false // it lives
	}
	a.srv.netErrors.Add(1)
	return !errors.Is(rep.err, context.Canceled)
}
