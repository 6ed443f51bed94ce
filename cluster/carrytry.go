package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/consensus"
	"meibo/cluster/link"
)

// job is what is known of a request that is carried.
type job struct {
	write    bool
	once     bool // its body cannot be sent again
	acts     bool // it does something anew each time it arrives
	blocking bool // may take minutes
	hops     int  // that it has come already
	origin   link.Peer
	request  catalog.RequestID // of a write
	hold     time.Duration
}

func (c *carrier) jobOf(ctx context.Context, write bool) job {
	j := job{write: write, hold: c.cfg.Hold}
	if in := carriedIn(ctx); in != nil {
		j.hops, j.origin = in.hops, in.peer
		if in.hops > 0 {
			j.hold = min(j.hold, relayHold)
		}
	}
	if write {
		var ok bool
		if j.request, ok = requestFrom(ctx); !ok {
			j.request = c.nextRequest()
		}
	}
	return j
}

// sender makes the request of one try; waited is how long the request is under
// way already.
type sender func(ctx context.Context, addr string, waited time.Duration) (*http.Request, error)

// target is who to ask.
type target struct {
	addr string
	// moved is closed when somebody else may be; nil: never.
	moved <-chan struct{}
	// leads says that it was chosen for leading.
	leads bool
}

// lostError is a try that got no answer.
type lostError struct {
	addr  string
	err   error
	sent  bool // may have arrived
	write bool
}

// Error implements error.
func (e *lostError) Error() string {
	if e.sent && e.write {
		return fmt.Sprintf("%v: lost %s: %v", consensus.ErrUnknownOutcome, e.addr, e.err)
	}
	return fmt.Sprintf("rpc error making call: %v", e.err)
}

// Is makes a lost write one of unknown outcome, and what never was sent one that
// did not happen.
func (e *lostError) Is(target error) bool {
	if e.sent && e.write {
		return target == consensus.ErrUnknownOutcome
	}
	return target == ErrNoLeader
}

// Unwrap makes links' errors found.
func (e *lostError) Unwrap() error { return e.err }

// carry sends a request until it is answered, or the hold time is over, or ctx
// ends. The error is errHere if this host has become the one to answer.
func (c *carrier) carry(ctx context.Context, j job, send sender) (*http.Response, error) {
	began := time.Now()
	until, pause := began.Add(j.hold), firstTry
	var unknown error // once a write's outcome is, it stays so until an answer
	var failed []string
	for first := true; ; first = false {
		t, err := c.aim(j, failed)
		if t.addr != "" {
			var waited time.Duration
			if !first {
				waited = time.Since(began)
			}
			start := time.Now()
			var res *http.Response
			if res, err = c.try(ctx, j, t, send, waited); err == nil {
				c.last.Store(&t.addr)
				return res, nil
			}
			c.logger.Debug("asked another host in vain", "addr", t.addr, "err", err)
			failed = append(failed, t.addr)
			if j.blocking && time.Since(start) >= longTry {
				until, pause = time.Now().Add(j.hold), firstTry
			}
		}
		if errors.Is(err, consensus.ErrUnknownOutcome) {
			unknown = err
		}
		switch {
		case errors.Is(err, errHere), j.once && wasSent(err), j.acts && unknown != nil, j.hops >= maxHops:
			return nil, err
		}
		left := time.Until(until)
		if left <= 0 || ctx.Err() != nil {
			if unknown != nil {
				err = unknown
			}
			return nil, err
		}
		waitTry(ctx, min(pause, left), t.moved)
		pause = min(2*pause, lastTry)
	}
}

// wasSent reports whether a request's body may have been read by a try.
func wasSent(err error) bool {
	var lost *lostError
	return !errors.As(err, &lost) || lost.sent
}

func waitTry(ctx context.Context, d time.Duration, moved <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-moved:
	case <-timer.C:
	}
}

// aim chooses who to ask, with an error instead if that is nobody at the moment.
func (c *carrier) aim(j job, failed []string) (target, error) {
	isServer, isLeader := c.cfg.Where.Self()
	leader, moved := c.cfg.Where.Leader()
	switch {
	case isLeader:
		return target{}, errHere
	case j.hops >= maxHops, !isServer && j.hops > 0:
		return target{}, ErrNoLeader
	case isServer && leader == "":
		return target{moved: moved}, ErrNoLeader
	case isServer:
		return target{addr: leader, moved: moved, leads: true}, nil
	}
	servers := c.cfg.Where.Servers()
	if len(servers) == 0 {
		return target{}, errNoServers
	}
	return target{addr: c.choose(servers, failed)}, nil
}

// choose prefers the server that answered last, and of the others those that
// failed longest ago.
func (c *carrier) choose(servers, failed []string) string {
	if last := c.last.Load(); last != nil && !slices.Contains(failed, *last) && slices.Contains(servers, *last) {
		return *last
	}
	return slices.MinFunc(servers, func(a, b string) int {
		return lastIndex(failed, a) - lastIndex(failed, b)
	})
}

func lastIndex(list []string, s string) int {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i] == s {
			return i
		}
	}
	return -1
}

// errMoved ends a try at a server that leads no more.
var errMoved = errors.New("another server leads now")

// try sends the request to one host. Only an answer that is final comes back
// without error; its body ends with ctx.
func (c *carrier) try(ctx context.Context, j job, t target, send sender, waited time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var sent atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	req, err := send(traced, t.addr, waited)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	stop := func() {}
	if !j.acts { // which may be what moves the leadership, and is answered all the same
		stop = c.watchMove(t, cancel)
	}
	res, err := c.cfg.Transport.RoundTrip(req)
	stop()
	if err == nil && context.Cause(ctx) == errMoved {
		_ = res.Body.Close()
		err = errMoved
	}
	whole := false
	if err == nil {
		whole, err = takeWhole(res, j)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		c.tries.WithLabelValues("lost").Inc()
		return nil, &lostError{addr: t.addr, err: err, sent: sent.Load(), write: j.write}
	}
	if err := markedOutcome(res, j.write); err != nil {
		_ = res.Body.Close()
		cancel(nil)
		c.tries.WithLabelValues("put_off").Inc()
		return nil, err
	}
	c.tries.WithLabelValues("answered").Inc()
	if whole {
		cancel(nil)
	} else {
		res.Body = &endingBody{res.Body, cancel}
	}
	return res, nil
}

// smallAnswer is up to how many bytes a read's answer is taken whole.
const smallAnswer = 64 << 10

// takeWhole reads an answer that is small, or a write's, before anything of it is
// passed on, so that one that breaks off is asked for again.
func takeWhole(res *http.Response, j job) (whole bool, err error) {
	if !j.write && (res.ContentLength < 0 || res.ContentLength > smallAnswer) {
		return false, nil
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	_ = res.Body.Close()
	if len(data) > maxAnswer {
		err = fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	res.Body = io.NopCloser(bytes.NewReader(data))
	return true, err
}

// watchMove ends the try when another server leads, which a frozen leader
// would not say. stop ends the watch.
func (c *carrier) watchMove(t target, cancel context.CancelCauseFunc) (stop func()) {
	if !t.leads {
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for moved := t.moved; ; {
			select {
			case <-done:
				return
			case <-moved:
			}
			var leader string
			leader, moved = c.cfg.Where.Leader()
			_, isLeader := c.cfg.Where.Self()
			if isLeader || leader != "" && leader != t.addr {
				cancel(errMoved)
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// endingBody ends its request's context when it is closed.
type endingBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

// Close implements io.Closer.
func (b *endingBody) Close() error {
	defer b.cancel(nil)
	return b.ReadCloser.Close()
}
