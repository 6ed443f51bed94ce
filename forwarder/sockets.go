package forwarder

import (
	"errors"

	"meibo/resolver/wire"
)

// errClosed is what a question gets that is asked after Run has ended.
var errClosed = errors.New("the forwarder has ended")

// event is what came of a question over UDP: something was heard, or an error of
// the network.
type event struct {
	heard
	err error
}

// waiter is one question on its way to one server over UDP. Its socket may be
// shared with others.
type waiter struct {
	srv        *server
	q          *wire.Query
	id         uint16
	mismatches int        // guarded by the socket
	ch         chan event // holds one: the first thing that counts
	sock       *socket
}

func newWaiter(srv *server, q *wire.Query) *waiter {
	return &waiter{srv: srv, q: q, ch: make(chan event, 1)}
}

// tell gives w what came of it, unless it has been told before.
func (w *waiter) tell(e event) {
	select {
	case w.ch <- e:
	default:
	}
}

// mismatch counts a packet from w's server that is no reply to it.
func (w *waiter) mismatch() {
	w.srv.mismatches.Add(1)
	if w.mismatches++; w.mismatches >= maxMismatches {
		w.tell(event{})
	}
}

// hear judges a packet under w's ID from w's server. What a packet may do to us it
// does to this question only: a panic is its error.
func (w *waiter) hear(msg []byte) {
	defer func() {
		if p := recover(); p != nil {
			w.tell(event{err: panicked(w.srv.addr, p)})
		}
	}()
	if h, ok := match(w.q, w.id, msg); ok {
		w.tell(event{heard: h})
	}
}
