package forwarder

import (
	"errors"
	"time"

	"meibo/resolver/wire"
)

// errClosed is what a question gets that is asked after Run has ended.
var errClosed = errors.New("the forwarder has ended")

// event is what came of a question over UDP: something was heard, or an error of
// the network, or nothing yet.
type event struct {
	heard
	err error
	at  time.Time
}

// waiter is one question on its way to one server over UDP. Its socket may be
// shared with others.
type waiter struct {
	to  *attempt
	srv *server
	q   *wire.Query

	// set when it is sent
	id     uint16
	packet []byte
	sock   *socket

	// guarded by the socket
	mismatches int
	told       bool
	event      event
}

func newWaiter(a *attempt) *waiter { return &waiter{to: a, srv: a.srv, q: a.q} }

// complete notes what came of w, unless something did before. It is called with the
// socket locked.
func (w *waiter) complete(h heard, err error) {
	if w.told {
		return
	}
	w.told, w.event = true, event{h, err, time.Now()}
	w.to.told <- told{to: w.to, w: w}
}

// mismatch counts a packet from w's server that is no reply to it.
func (w *waiter) mismatch() {
	w.srv.mismatches.Add(1)
	if w.mismatches++; w.mismatches >= maxMismatches {
		w.complete(heard{}, nil)
	}
}

// hear judges a packet under w's ID from w's server. What a packet may do to us it
// does to this question only: a panic is its error.
func (w *waiter) hear(msg []byte) {
	defer func() {
		if p := recover(); p != nil {
			w.complete(heard{}, panicked(w.srv.addr, p))
		}
	}()
	if h, ok := match(w.q, w.id, msg); ok {
		w.complete(h, nil)
	}
}
