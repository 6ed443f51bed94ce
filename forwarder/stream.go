package forwarder

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"meibo/resolver/wire"
)

const (
	// streamTimeout bounds a question on a connection, its making included: firewalls
	// that drop TCP are common, and the next server is asked meanwhile.
	streamTimeout = 2 * time.Second
	// streamIdle is how long a connection without a question is kept (RFC 7766 section
	// 6.2.3: seconds).
	streamIdle = 10 * time.Second
	// maxPipelined bounds the questions under way on one connection.
	maxPipelined = 512
)

// errStreamEnded is the end of a connection that still owed answers. They are asked for
// once more (RFC 7766 section 6.2.4).
var errStreamEnded = errors.New("the connection ended before the answer")

// streams are the connections to one server over TCP or TLS. One is shared by all
// questions, which follow one another without waiting and are answered in any order
// (RFC 7766 section 6.2.1); a question that it fails gets one of its own.
type streams struct {
	f    *Forwarder
	srv  *server
	addr netip.AddrPort
	tls  *tls.Config // nil: in the clear

	mu      sync.Mutex // guards following
	shared  *stream    // nil: none, or it has ended
	dialing *dialing   // whoever needs one waits for it
}

// dialing is a connection being made.
type dialing struct {
	done chan struct{} // closed when the rest is set
	st   *stream
	err  error
}

// exchange asks q and waits for the answer, at most for streamTimeout or until ctx ends.
// pack makes the message with an ID.
func (s *streams) exchange(ctx context.Context, q *wire.Query, pack func(id uint16) []byte) (*wire.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, streamTimeout)
	defer cancel()
	st, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	a, err := st.exchange(ctx, q, pack)
	if !errors.Is(err, errStreamEnded) || ctx.Err() != nil {
		return a, err
	}
	// The server had enough of a kept one, or takes one question on each.
	if st, err = s.dial(ctx); err != nil {
		return nil, err
	}
	defer st.end(nil)
	return st.exchange(ctx, q, pack)
}

// get returns the shared connection; whoever comes while it is made waits for it.
func (s *streams) get(ctx context.Context) (*stream, error) {
	s.mu.Lock()
	if st := s.shared; st != nil && st.hasRoom() {
		s.mu.Unlock()
		return st, nil
	}
	d := s.dialing
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		s.dialing = d
		s.f.wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), streamTimeout)
			defer cancel()
			d.st, d.err = s.dial(ctx)
			s.mu.Lock()
			s.shared, s.dialing = d.st, nil
			s.mu.Unlock()
			close(d.done)
		})
	}
	s.mu.Unlock()
	select {
	case <-d.done:
		return d.st, d.err
	case <-ctx.Done():
		return nil, silence(ctx)
	}
}

// silence is the error of a context that ended: by its time, or because nobody waits.
func silence(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errSilent
	}
	return ctx.Err()
}

// dial makes a connection, which is read from until it ends.
func (s *streams) dial(ctx context.Context) (*stream, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.addr.String())
	if err != nil {
		return nil, err
	}
	if s.tls != nil {
		secured := tls.Client(conn, s.tls)
		if err := secured.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, &tlsError{s.addr, err}
		}
		conn = secured
	}
	st := &stream{srv: s.srv, conn: conn, ids: &s.f.sockets.chance, waiting: map[uint16]chan answered{}, heard: time.Now()}
	st.idle = time.AfterFunc(streamIdle, st.expire)
	if !s.f.register(st) {
		st.end(nil)
		return nil, errClosed
	}
	s.f.wg.Go(func() {
		st.read()
		s.f.forgets(st)
	})
	return st, nil
}

// register notes a connection, which Run closes when it ends; false: it has.
func (f *Forwarder) register(st *stream) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return false
	}
	f.streams[st] = struct{}{}
	return true
}

func (f *Forwarder) forgets(st *stream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.streams, st)
}

// endStreams closes all connections, and keeps none from now on.
func (f *Forwarder) endStreams() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	for st := range f.streams {
		st.end(errClosed)
	}
}

// answered is what came of a question on a connection.
type answered struct {
	msg []byte
	err error
}

// stream is one connection. Its methods may be called concurrently.
type stream struct {
	srv  *server
	conn net.Conn
	ids  *chance

	writing sync.Mutex // one message after the other

	mu      sync.Mutex // guards following
	waiting map[uint16]chan answered
	heard   time.Time // when something last came
	over    error     // why it takes no more questions
	idle    *time.Timer
}

// hasRoom reports whether one more question may be asked.
func (st *stream) hasRoom() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.over == nil && len(st.waiting) < maxPipelined
}

// exchange sends one question and waits for its answer.
func (st *stream) exchange(ctx context.Context, q *wire.Query, pack func(id uint16) []byte) (*wire.Answer, error) {
	id, came, err := st.enter()
	if err != nil {
		return nil, err
	}
	defer st.leave(id)
	began := time.Now()
	if err := st.send(ctx, pack(id)); err != nil {
		st.end(err)
		return nil, errors.Join(errStreamEnded, err)
	}
	for range maxMismatches {
		select {
		case got := <-came:
			if got.err != nil {
				return nil, got.err
			}
			h, ok := match(q, id, got.msg)
			switch {
			case ok && h.fault != nil:
				return nil, &faultError{st.srv.addr, h.fault}
			case ok:
				return h.answer, nil
			}
			st.srv.mismatches.Add(1)
		case <-ctx.Done():
			if st.silentSince(began) {
				// Some firewall forgot it: nobody else is to wait for it.
				st.end(errStreamEnded)
			}
			return nil, silence(ctx)
		}
	}
	return nil, fmt.Errorf("%s answers other questions over TCP", st.srv.addr)
}

// enter takes an ID that no other question here has.
func (st *stream) enter() (uint16, chan answered, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.over != nil {
		return 0, nil, errStreamEnded
	}
	id := st.ids.uint16()
	for st.waiting[id] != nil {
		id++
	}
	came := make(chan answered, 1)
	st.waiting[id] = came
	st.idle.Stop()
	return id, came, nil
}

func (st *stream) leave(id uint16) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.waiting, id)
	if len(st.waiting) == 0 && st.over == nil {
		st.idle.Reset(streamIdle)
	}
}

// send writes one message in one piece (RFC 7766 section 8).
func (st *stream) send(ctx context.Context, packet []byte) error {
	framed := append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(packet)), uint16(len(packet))), packet...)
	st.writing.Lock()
	defer st.writing.Unlock()
	until, _ := ctx.Deadline()
	st.conn.SetWriteDeadline(until)
	_, err := st.conn.Write(framed)
	return err
}

func (st *stream) silentSince(t time.Time) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.heard.Before(t)
}

// read gives each message to who waits for it, until the connection ends.
func (st *stream) read() {
	for {
		msg, err := readFrame(st.conn)
		if err != nil {
			st.end(err)
			return
		}
		st.mu.Lock()
		st.heard = time.Now()
		var came chan answered
		if len(msg) >= 2 {
			came = st.waiting[binary.BigEndian.Uint16(msg)]
		}
		if came == nil {
			st.srv.mismatches.Add(1) // late, or nobody's
		} else {
			select {
			case came <- answered{msg: msg}:
			default: // an answer is there already
				st.srv.mismatches.Add(1)
			}
		}
		st.mu.Unlock()
	}
}

// expire ends a connection that nobody has used for a while.
func (st *stream) expire() {
	st.mu.Lock()
	idle := len(st.waiting) == 0
	st.mu.Unlock()
	if idle {
		st.end(nil)
	}
}

// end closes the connection and tells who waits.
func (st *stream) end(err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.over != nil {
		return
	}
	if st.over = errStreamEnded; err != nil {
		st.over = errors.Join(errStreamEnded, err)
	}
	st.idle.Stop()
	for _, came := range st.waiting {
		select {
		case came <- answered{err: st.over}:
		default:
		}
	}
	st.conn.Close()
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
