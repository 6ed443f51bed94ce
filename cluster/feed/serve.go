package feed

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/feed/frame"
)

// serverStream is the server's end of a stream: one goroutine reads what the
// host asks for, one writes.
type serverStream struct {
	subscriber
	server *Server
	conn   net.Conn
	peer   string
}

// errDismissed says that the host was told to go.
var errDismissed = errors.New("told to go elsewhere")

// serve runs the stream to its end.
func (st *serverStream) serve() error {
	if err := st.greet(); err != nil {
		if errors.Is(err, io.EOF) {
			return nil // it only asked
		}
		return err
	}
	s := st.server
	s.join(&st.subscriber)
	defer s.leave(&st.subscriber)
	s.began(st.peer)
	defer s.ended(st.peer)

	ended := make(chan struct{})
	var wrote error
	var wg sync.WaitGroup
	wg.Go(func() {
		if wrote = st.write(ended); wrote != nil {
			st.conn.Close() // which ends the reader
		}
	})
	read := st.read()
	close(ended)
	wg.Wait()
	return st.why(read, wrote)
}

// why picks the cause of the end.
func (st *serverStream) why(read, wrote error) error {
	switch {
	case errors.Is(wrote, os.ErrDeadlineExceeded):
		st.server.counts.slow.Add(1)
		return fmt.Errorf("the host has not read for %s: cut off", patience)
	case errors.Is(wrote, errDismissed):
		return nil
	case wrote != nil && errors.Is(read, net.ErrClosed):
		return wrote
	case errors.Is(read, io.EOF):
		return nil
	case errors.Is(read, os.ErrDeadlineExceeded):
		return fmt.Errorf("no word from the host for %s", st.server.hostSilence())
	}
	return read
}

// greet exchanges hellos and learns where the host's knowledge ends.
func (st *serverStream) greet() error {
	st.conn.SetDeadline(time.Now().Add(silence))
	kind, payload, _, err := frame.Read(st.conn, nil, maxFirstFrame)
	if err != nil {
		return fmt.Errorf("read hello: %w", err)
	}
	if kind != frame.Hello {
		return fmt.Errorf("the first frame is of kind %d: want a hello", kind)
	}
	if _, err := decodeHello(payload); err != nil {
		return err
	}
	h := hello{Version: Version, Leader: st.server.leader.Load(), Every: st.server.cfg.HostsSpeak}
	if _, err := st.conn.Write(h.frame()); err != nil {
		return fmt.Errorf("write hello: %w", err)
	}
	// The host may say hello to other servers before it decides.
	st.conn.SetDeadline(time.Now().Add(patience))
	for {
		kind, payload, _, err := frame.Read(st.conn, nil, maxHostFrame)
		switch {
		case errors.Is(err, io.EOF):
			return io.EOF
		case err != nil:
			return fmt.Errorf("read begin: %w", err)
		case kind != frame.Begin:
			continue
		}
		return st.begin(payload)
	}
}

// begin sets the cursor that the host says it is at.
func (st *serverStream) begin(payload []byte) error {
	g, err := decodeBegin(payload)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if limit := st.server.cfg.Limits.Names; len(g.Names) > limit {
		err := fmt.Errorf("the host subscribes to more than %d names", limit)
		refuse(st.conn, err)
		return err
	}
	if err := fold(g.Names); err != nil {
		return err
	}
	st.cursor = cursor{history: g.History, index: g.Index, whole: g.Whole, anew: g.Anew}
	s := st.server
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range g.Names {
		s.subscribeLocked(&st.subscriber, name)
	}
	return nil
}

// fold puts names that a host asks for into lower case, in place.
func fold(names []string) error {
	for i, name := range names {
		if len(name) > catalog.MaxNameLength || name == "" {
			return fmt.Errorf("a name of %d bytes: want 1 to %d", len(name), catalog.MaxNameLength)
		}
		names[i] = strings.ToLower(name)
	}
	return nil
}

// read takes what the host says until the stream ends.
func (st *serverStream) read() error {
	var buf []byte
	silence := st.server.hostSilence()
	for {
		st.conn.SetReadDeadline(time.Now().Add(silence))
		kind, payload, grown, err := frame.Read(st.conn, buf, maxHostFrame)
		if err != nil {
			return err
		}
		if buf = grown; cap(buf) > maxFirstFrame {
			buf = nil // an idle stream holds little
		}
		if err := st.handleFrame(kind, payload); err != nil {
			return err
		}
	}
}

// handleFrame takes one frame; those of newer hosts and signs of life need nothing.
func (st *serverStream) handleFrame(kind byte, payload []byte) error {
	switch kind {
	case frame.Subscribe, frame.Unsubscribe:
		names, err := decodeNames(payload)
		if err == nil {
			err = fold(names)
		}
		if err != nil {
			return fmt.Errorf("subscribe: %w", err)
		}
		return st.request(names, kind == frame.Unsubscribe, st.server.cfg.Limits.Names)
	case frame.Await:
		index, err := decodeAwait(payload)
		if err != nil {
			return fmt.Errorf("await: %w", err)
		}
		st.server.await(&st.subscriber, index)
	}
	return nil
}

// write tells the host what is new until the stream ends.
func (st *serverStream) write(ended <-chan struct{}) error {
	for {
		if err := st.push(); err != nil {
			return err
		}
		select {
		case <-st.wake:
		case <-st.server.stop:
			return st.dismiss(ended)
		case <-ended:
			return nil
		}
	}
}

// dismiss tells the host to go elsewhere and gives it time to.
func (st *serverStream) dismiss(ended <-chan struct{}) error {
	st.conn.SetWriteDeadline(time.Now().Add(farewell))
	if _, err := st.conn.Write(move{Stopping: true, Others: st.server.others()}.frame()); err != nil {
		return err
	}
	timer := time.NewTimer(farewell)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ended:
	}
	return errDismissed
}

// refuse tells a host why it can't have a stream, if it listens.
func refuse(conn net.Conn, why error) {
	conn.SetWriteDeadline(time.Now().Add(heartbeat))
	conn.Write(frame.New(frame.Refuse, func(e *frame.Encoder) { e.Strings(why.Error()) }))
}

// refuseFirst refuses a host that hasn't spoken yet: what it says is read first,
// or the end of the connection could overtake the reason.
func refuseFirst(conn net.Conn, why error) {
	conn.SetReadDeadline(time.Now().Add(heartbeat))
	if _, _, _, err := frame.Read(conn, nil, maxFirstFrame); err == nil {
		refuse(conn, why)
	}
}

// push tells the host all that it isn't told yet, be it nothing.
func (st *serverStream) push() error {
	s := st.server
	if err := s.applyRequests(&st.subscriber); err != nil {
		refuse(st.conn, err)
		return err
	}
	leader := s.leader.Load()
	out := updateWriters.Get().(*updateWriter)
	defer out.release()
	s.snapshot.advance(&st.cursor, leader, &out.head, out.entry, out.complete)
	if out.head.Reset {
		s.counts.resets.Add(1)
	}
	st.told.Store(s.turn.Load())
	n, err := out.send(st.conn)
	s.counts.bytes.Add(uint64(n))
	s.counts.updates.Add(1)
	if err != nil || leader {
		return err
	}
	if others := s.others(); len(others) > 0 {
		_, err = st.conn.Write(move{Others: others}.frame())
	}
	return err
}
