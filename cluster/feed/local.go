package feed

import (
	"context"
	"fmt"
	"strings"
	"time"

	"meibo/cluster/catalog"
)

// Local is a stream in the server's own process: the whole catalog, uncoded.
// Its methods are those of a [Stream].
type Local struct {
	server *Server
	sub    subscriber
}

// Local returns a stream in this process that goes on where resume says, from
// the start if it is nil. It must be closed.
func (s *Server) Local(resume Resume) *Local {
	l := &Local{server: s, sub: subscriber{wake: make(chan struct{}, 1)}}
	at := &l.sub.cursor
	at.all, at.anew = true, true
	if resume != nil {
		at.history, at.index, at.whole, _ = resume()
		at.anew = at.history.ID == ""
	}
	s.join(&l.sub)
	s.mu.Lock()
	s.locals[&l.sub] = struct{}{}
	s.mu.Unlock()
	l.sub.poke()
	return l
}

// Next is [Stream.Next]; the stream is lost when the server ends.
func (l *Local) Next(ctx context.Context) (catalog.Update, error) {
	timer := time.NewTimer(heartbeat)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return catalog.Update{}, context.Cause(ctx)
		case <-l.server.stop:
			return catalog.Update{}, fmt.Errorf("feed in this process: %w", ErrStopped)
		case <-l.sub.wake:
		case <-timer.C:
			timer.Reset(heartbeat)
		}
		before := l.sub.cursor.index
		if u := l.update(); u.Confirmed || u.Reset || u.Index != before || len(u.Complete) > 0 {
			return u, nil
		}
	}
}

func (l *Local) update() catalog.Update {
	s := l.server
	s.applyRequests(&l.sub) // this process keeps to no limit
	var u catalog.Update
	s.snapshot.advance(&l.sub.cursor, s.leader.Load(), &u,
		func(e *entry) { e.tell(&u) },
		func(name string) { u.Complete = append(u.Complete, name) })
	u.History = l.sub.cursor.history
	return u
}

// Subscribe is [Stream.Subscribe].
func (l *Local) Subscribe(names ...string) { l.request(names, false) }

// Unsubscribe is [Stream.Unsubscribe].
func (l *Local) Unsubscribe(names ...string) { l.request(names, true) }

func (l *Local) request(names []string, end bool) {
	lower := make([]string, len(names))
	for i, name := range names {
		lower[i] = strings.ToLower(name)
	}
	l.sub.request(lower, end, len(lower)+l.server.cfg.Limits.Names)
}

// Close ends the stream.
func (l *Local) Close() { l.server.leave(&l.sub) }
