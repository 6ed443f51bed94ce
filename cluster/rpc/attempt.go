package rpc

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
	"meibo/cluster/link"
	"meibo/cluster/retry"
)

// call is what is known of a request that is sent.
type call struct {
	write    bool
	once     bool // its body cannot be sent again
	acts     bool // it does something anew each time it arrives
	blocking bool // may take minutes
	hops     int  // that it has come already
	origin   link.Peer
	request  catalog.RequestID // of a write
	hold     time.Duration
}

func (c *Endpoint) newCall(ctx context.Context, write bool) call {
	j := call{write: write, hold: c.cfg.Hold}
	if in := inboundFrom(ctx); in != nil {
		j.hops, j.origin = in.hops, in.peer
		if in.hops > 0 {
			j.hold = min(j.hold, relayHold)
		}
	}
	if write {
		var ok bool
		if j.request, ok = NextRequestID(ctx); !ok {
			j.request = c.newRequestID()
		}
	}
	return j
}

// requestMaker makes the request of one attempt; waited is how long the request is
// under way already.
type requestMaker func(ctx context.Context, addr string, waited time.Duration) (*http.Request, error)

// target is who to ask.
type target struct {
	addr string
	// moved is closed when somebody else may be; nil: never.
	moved <-chan struct{}
	// leads says that it was chosen for leading.
	leads bool
	// others says that another server could be asked as well.
	others bool
}

// LostError is an attempt that got no answer.
type LostError struct {
	Sent bool // it may have arrived

	addr  string
	err   error
	write bool
}

// Error implements error.
func (e *LostError) Error() string {
	if e.Sent && e.write {
		return fmt.Sprintf("%v: lost %s: %v", catalog.ErrUnknownOutcome, e.addr, e.err)
	}
	return fmt.Sprintf("rpc error making call: %v", e.err)
}

// Is makes a lost write one of unknown outcome, and what never was sent one that
// did not happen.
func (e *LostError) Is(target error) bool {
	if e.Sent && e.write {
		return target == catalog.ErrUnknownOutcome
	}
	return target == catalog.ErrNoLeader
}

// Unwrap makes links' errors found.
func (e *LostError) Unwrap() error { return e.err }

// send sends a request until it is answered, or the hold time is over, or ctx
// ends. The error is errLocal if this host has become the one to answer. unknown says
// that an attempt before the last was a write that may have happened.
func (c *Endpoint) send(ctx context.Context, j call, send requestMaker) (res *http.Response, unknown, err error) {
	began := time.Now()
	until, pause := began.Add(j.hold), retry.Backoff{Min: firstPause, Max: lastPause}
	patience := firstPatience
	var failed []string
	for first := true; ; first = false {
		var t target
		t, err = c.pick(j, failed)
		if t.addr != "" {
			var waited time.Duration
			if !first {
				waited = time.Since(began)
			}
			start := time.Now()
			if res, err = c.attempt(ctx, j, t, send, waited, patience); err == nil {
				c.last.Store(&t.addr)
				return res, unknown, nil
			}
			c.logger.Debug("asked another host in vain", "addr", t.addr, "err", err)
			failed = append(failed, t.addr)
			c.forgetLeader(t.addr)
			patience *= 2
			if j.blocking && time.Since(start) >= longAttempt {
				until = time.Now().Add(j.hold)
				pause.Reset()
			}
		}
		if errors.Is(err, catalog.ErrUnknownOutcome) {
			unknown = err
		}
		switch {
		case errors.Is(err, errLocal), j.once && wasSent(err), j.acts && unknown != nil, j.hops >= maxHops:
			return nil, unknown, err
		}
		left := time.Until(until)
		if left <= 0 || ctx.Err() != nil {
			if unknown != nil {
				err = unknown
			}
			return nil, unknown, err
		}
		retry.WaitFor(ctx, min(pause.Next(), left), t.moved)
	}
}

// wasSent reports whether a request's body may have been read by an attempt.
func wasSent(err error) bool {
	var lost *LostError
	return !errors.As(err, &lost) || lost.Sent
}

// pick chooses who to ask, with an error instead if that is nobody at the moment.
func (c *Endpoint) pick(j call, failed []string) (target, error) {
	isServer, isLeader := c.cfg.Router.Self()
	leader, moved := c.cfg.Router.Leader(c.cfg.Self.Datacenter)
	switch {
	case isLeader:
		return target{}, errLocal
	case j.hops >= maxHops, !isServer && j.hops > 0:
		return target{}, catalog.ErrNoLeader
	case isServer && leader == "":
		return target{moved: moved}, catalog.ErrNoLeader
	case isServer:
		return target{addr: leader, moved: moved, leads: true}, nil
	}
	servers := c.cfg.Router.Servers(c.cfg.Self.Datacenter)
	if len(servers) == 0 {
		return target{}, catalog.ErrNoServers
	}
	return target{addr: c.prefer(servers, failed, j.write), others: len(servers) > 1}, nil
}

// prefer prefers, for a write, the leader that a server named, then the server that
// answered last, and of the others those that failed longest ago.
func (c *Endpoint) prefer(servers, failed []string, write bool) string {
	known := func(addr *string) bool {
		return addr != nil && !slices.Contains(failed, *addr) && slices.Contains(servers, *addr)
	}
	if leader := c.leader.Load(); write && known(leader) {
		return *leader
	}
	if last := c.last.Load(); known(last) {
		return *last
	}
	return slices.MinFunc(servers, func(a, b string) int {
		return lastIndex(failed, a) - lastIndex(failed, b)
	})
}

// rememberLeader keeps who leads, as an answer says.
func (c *Endpoint) rememberLeader(res *http.Response) {
	if addr := getEscaped(res.Header, headerLeader); addr != "" {
		c.leader.Store(&addr)
	}
}

// forgetLeader drops a leader that gave no final answer.
func (c *Endpoint) forgetLeader(addr string) {
	if leader := c.leader.Load(); leader != nil && *leader == addr {
		c.leader.CompareAndSwap(leader, nil)
	}
}

func lastIndex(list []string, s string) int {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i] == s {
			return i
		}
	}
	return -1
}

// Why attempts end: at a server that leads no more, or that is slow to answer a write.
var (
	errMoved = errors.New("another server leads now")
	errSlow  = errors.New("no answer in time, another server is asked")
)

// attempt sends the request to one host. Only an answer that is final comes back
// without error; its body ends with ctx. A write has the patience to wait for the
// answer if another server could be asked for it.
func (c *Endpoint) attempt(ctx context.Context, j call, t target, send requestMaker, waited, patience time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	if j.write && t.others && !j.once && !j.acts {
		slow := time.AfterFunc(patience, func() { cancel(errSlow) })
		defer slow.Stop()
	}
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
		whole, err = readWhole(res, j)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		c.attempts.WithLabelValues("lost").Inc()
		return nil, &LostError{addr: t.addr, err: err, Sent: sent.Load(), write: j.write}
	}
	c.rememberLeader(res)
	if err := outcomeIn(res, j.write); err != nil {
		_ = res.Body.Close()
		cancel(nil)
		c.attempts.WithLabelValues("put_off").Inc()
		return nil, err
	}
	c.attempts.WithLabelValues("answered").Inc()
	if whole {
		cancel(nil)
	} else {
		res.Body = &endingBody{res.Body, cancel}
	}
	return res, nil
}

// smallAnswer is up to how many bytes a read's answer is taken whole.
const smallAnswer = 64 << 10

// readWhole reads an answer that is small, or a write's, before anything of it is
// passed on, so that one that breaks off is asked for again.
func readWhole(res *http.Response, j call) (whole bool, err error) {
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

// watchMove ends the attempt when another server leads, which a frozen leader
// would not say. stop ends the watch.
func (c *Endpoint) watchMove(t target, cancel context.CancelCauseFunc) (stop func()) {
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
			leader, moved = c.cfg.Router.Leader(c.cfg.Self.Datacenter)
			_, isLeader := c.cfg.Router.Self()
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
