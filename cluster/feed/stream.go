package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/feed/frame"
	"meibo/cluster/retry"
)

const (
	// A host whose server has no leader looks for another one that has, first
	// after a time between firstSeek and twice that, or as much more as there are
	// hosts; then less and less often. Most elections are over by then.
	firstSeek = time.Second
	lastSeek  = 30 * time.Second
	// A host that isn't with the server it likes best goes there after a time
	// between minRebalance and twice that, so that those who fled a server come back
	// to it little by little.
	minRebalance = 3 * time.Minute
)

var (
	errClosed = errors.New("closed by this host")
	errMoving = errors.New("this host moves to another server")
)

// Stream is one stream from one server.
type Stream struct {
	client *Client
	addr   string
	conn   net.Conn
	every  time.Duration   // how often the server wants a word
	ctx    context.Context // ends with the stream, for what it started
	end    context.CancelCauseFunc
	wg     sync.WaitGroup
	wake   chan struct{} // holds one
	heard  chan struct{} // holds one: the server has said a word

	// The caller of Next's alone.
	buf     []byte
	updates frame.Updates
	index   uint64

	mu       sync.Mutex // guards following
	names    map[string]struct{}
	requests map[string]bool // name to "wanted", not sent yet
	awaited  uint64          // index to hear of, not sent yet
	full     bool            // said that MaxNames was reached
	hints    []string        // where there is said to be a leader
	seeking  bool
	nextSeek time.Time // not before; zero: the server has a leader
	backoff  retry.Backoff
}

func newStream(c *Client, to *candidate) *Stream {
	ctx, end := context.WithCancelCause(context.Background())
	return &Stream{
		client: c, addr: to.addr, conn: to.conn, every: max(heartbeat, to.every), ctx: ctx, end: end,
		wake: make(chan struct{}, 1), heard: make(chan struct{}, 1), names: make(map[string]struct{}), requests: make(map[string]bool),
		backoff: retry.Backoff{Min: firstSeek, Max: lastSeek},
	}
}

// Next blocks until there is something to tell. An error means that the stream
// is lost, ctx's end included: it is not asked again. It is called from one
// goroutine.
func (s *Stream) Next(ctx context.Context) (catalog.Update, error) {
	defer context.AfterFunc(ctx, func() { s.conn.SetReadDeadline(time.Unix(1, 0)) })()
	for {
		u, news, err := s.next(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return catalog.Update{}, context.Cause(ctx)
		case err != nil:
			s.client.avoid(s.addr)
			return catalog.Update{}, fmt.Errorf("feed from %s: %w", s.addr, s.why(err))
		case news:
			s.client.recordUpdate()
			return u, nil
		}
	}
}

// why says what a broken stream broke of.
func (s *Stream) why(err error) error {
	switch {
	case s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("no word from the server for %s", silence)
	case errors.Is(err, io.EOF):
		return errors.New("the server ended the stream")
	}
	return err
}

// next takes one frame; news says that it finished an update that tells
// something.
func (s *Stream) next(ctx context.Context) (u catalog.Update, news bool, err error) {
	s.conn.SetReadDeadline(time.Now().Add(silence))
	if ctx.Err() != nil {
		return u, false, context.Cause(ctx)
	}
	kind, payload, grown, err := frame.Read(s.conn, s.buf, frame.Max)
	if err != nil {
		return u, false, err
	}
	if s.buf = grown; cap(s.buf) > 2*frame.Full {
		s.buf = nil
	}
	select {
	case s.heard <- struct{}{}:
	default:
	}
	switch kind {
	case frame.Update:
		return s.update(payload)
	case frame.Move:
		m, err := decodeMove(payload)
		switch {
		case err != nil:
			return u, false, fmt.Errorf("move: %w", err)
		case m.Stopping:
			return u, false, ErrStopped
		}
		s.hint(m.Others)
	case frame.Refuse:
		return u, false, refusal(payload)
	}
	return u, false, nil // a kind from a newer program
}

// update adds a frame to the update in the making, and returns it when it is
// whole; news says that it tells something.
func (s *Stream) update(payload []byte) (u catalog.Update, news bool, err error) {
	u, whole, err := s.updates.Add(payload)
	if err != nil || !whole {
		return u, false, err
	}
	news = u.Confirmed || u.Reset || u.Index != s.index || !u.IsEmpty()
	s.index = u.Index
	s.recordConfirmed(u.Confirmed)
	return u, news, nil
}

// recordConfirmed notes whether the server has a leader; without one another is sought.
func (s *Stream) recordConfirmed(confirmed bool) {
	if !confirmed {
		s.seek()
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextSeek = time.Time{}
	s.backoff.Reset()
}

// talk sends what this host asks for, and signs of life, until the stream ends. These
// answer the server's: it says a word to many hosts at once, and so hears many at once.
func (s *Stream) talk() {
	beat := time.NewTimer(s.every)
	defer beat.Stop()
	var last time.Time // that something was sent
	rebalance := time.NewTimer(minRebalance + rand.N(minRebalance))
	defer rebalance.Stop()
	for {
		var out []byte
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
			out = s.drainRequests()
		case <-s.heard:
			if time.Since(last) > s.every-heartbeat/2 {
				out = frame.New(frame.Beat, nil)
			}
		case <-beat.C: // a server that says little
			out = frame.New(frame.Beat, nil)
		case <-rebalance.C:
			s.rebalance()
			rebalance.Reset(minRebalance + rand.N(minRebalance))
		}
		if len(out) == 0 {
			continue
		}
		last = time.Now()
		beat.Reset(s.every + heartbeat/2)
		s.conn.SetWriteDeadline(last.Add(patience))
		if _, err := s.conn.Write(out); err != nil {
			s.fail(err)
			return
		}
	}
}

// fail ends the stream for a reason that Next returns.
func (s *Stream) fail(why error) {
	s.mu.Lock()
	s.end(why) // under the lock: from now on nothing is started
	s.mu.Unlock()
	s.conn.Close()
}

// Close ends the stream and waits for all it started. It may be called twice.
func (s *Stream) Close() {
	s.fail(errClosed)
	s.wg.Wait()
	s.client.ended(s)
}

// Subscribe asks for the contents of the services, in any letter case. An
// update that names them Complete answers. It does not block. Beyond MaxNames
// nothing is asked.
func (s *Stream) Subscribe(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		name = strings.ToLower(name)
		if _, known := s.names[name]; !known && len(s.names) >= MaxNames {
			if !s.full {
				s.client.logger.Warn("this host uses more names than it may subscribe to", "limit", MaxNames, "service", name)
			}
			s.full = true
			continue
		}
		if !validName(name) {
			continue // no service has that name
		}
		s.names[name] = struct{}{}
		s.requests[name] = true
	}
	s.poke()
}

func validName(name string) bool { return name != "" && len(name) <= catalog.MaxNameLength }

// Unsubscribe ends subscriptions. It does not block.
func (s *Stream) Unsubscribe(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		name = strings.ToLower(name)
		if _, known := s.names[name]; known {
			delete(s.names, name)
			s.requests[name] = false
		}
	}
	s.poke()
}

// await has the server tell of an index as soon as it is reached.
func (s *Stream) await(index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaited = max(index, s.awaited)
	s.poke()
}

func (s *Stream) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// drainRequests returns frames that say what this host has asked for since the
// last call, nil for nothing.
func (s *Stream) drainRequests() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []byte
	if s.awaited > 0 {
		out = awaitFrame(s.awaited)
		s.awaited = 0
	}
	var want, end []string
	for _, name := range slices.Sorted(maps.Keys(s.requests)) {
		if s.requests[name] {
			want = append(want, name)
		} else {
			end = append(end, name)
		}
	}
	clear(s.requests)
	if len(end) > 0 {
		out = append(out, namesFrame(frame.Unsubscribe, end)...)
	}
	if len(want) > 0 {
		out = append(out, namesFrame(frame.Subscribe, want)...)
	}
	return out
}

// hint notes where there is said to be a leader, and seeks one.
func (s *Stream) hint(others []string) {
	s.mu.Lock()
	s.hints = others
	s.mu.Unlock()
	s.seek()
}

// seek looks, beside the stream, for a server that has a leader: at those first
// that are said to, then at all others. It does not look any more once the
// present server has one.
func (s *Stream) seek() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.seeking || now.Before(s.nextSeek) {
		return
	}
	var pause time.Duration
	if s.nextSeek.IsZero() {
		pause = firstSeek + rand.N(max(firstSeek, s.client.spread()))
	}
	s.nextSeek = now.Add(pause + s.backoff.Next())
	s.moveLocked(pause, func() []string {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.nextSeek.IsZero() {
			return nil
		}
		return append(slices.Clone(s.hints), s.client.order(s.client.cfg.Servers(), true)...)
	})
}

// rebalance goes to the server that this host likes best, if it has a leader.
func (s *Stream) rebalance() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seeking {
		return
	}
	s.moveLocked(0, func() []string {
		best := s.client.order(s.client.cfg.Servers(), false)
		return best[:min(1, len(best))]
	})
}

// moveLocked moves, after a pause, to the first of the servers that has a leader,
// unless that is the present one. Until then the stream goes on.
func (s *Stream) moveLocked(pause time.Duration, servers func() []string) {
	if s.ctx.Err() != nil {
		return
	}
	s.seeking = true
	s.wg.Go(func() {
		if retry.Wait(s.ctx, pause) {
			s.tryToMove(servers())
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.seeking = false
	})
}

func (s *Stream) tryToMove(servers []string) {
	for _, addr := range servers {
		if addr == s.addr {
			continue
		}
		to, err := s.client.greet(s.ctx, addr)
		if err != nil {
			continue
		}
		if to.leader {
			s.client.prepare(to)
			s.fail(fmt.Errorf("%w, %s", errMoving, addr))
			return
		}
		to.conn.Close()
	}
}
