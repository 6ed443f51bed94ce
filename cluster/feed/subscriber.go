package feed

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// subscriber is a stream as the server sees it: somebody to be woken.
type subscriber struct {
	wake   chan struct{} // holds one
	cursor cursor        // its reader's alone
	turn   int           // when it hears that the server is there; set by join
	told   atomic.Int64  // the turn, counted from the server's start, in which it last heard a word

	mu       sync.Mutex // guards following
	requests []request  // what the host has asked for since
	pending  int        // names in them
}

// request is a subscription begun or ended.
type request struct {
	names []string
	end   bool
}

// poke wakes the subscriber.
func (sub *subscriber) poke() {
	select {
	case sub.wake <- struct{}{}:
	default:
	}
}

// join and leave begin and end the waking of a subscriber.
func (s *Server) join(sub *subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joined++
	sub.turn = s.joined % turns
	s.subscribers[sub] = struct{}{}
}

func (s *Server) leave(sub *subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subscribers, sub)
	delete(s.locals, sub)
	delete(s.waiting, sub)
	for name := range sub.cursor.names {
		s.unsubscribeLocked(sub, name)
	}
}

func (s *Server) streamCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.subscribers)
}

// request notes what the host asks for. What it asks for before the last is carried
// out is bounded like the whole.
func (sub *subscriber) request(names []string, end bool, limit int) error {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.pending += len(names); sub.pending > 2*limit {
		return fmt.Errorf("the host asks for more than %d names at once", 2*limit)
	}
	sub.requests = append(sub.requests, request{names, end})
	sub.poke()
	return nil
}

// applyRequests carries out what the host has asked for.
func (s *Server) applyRequests(sub *subscriber) error {
	sub.mu.Lock()
	requests := sub.requests
	sub.requests, sub.pending = nil, 0
	sub.mu.Unlock()
	if len(requests) == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := &sub.cursor
	for _, o := range requests {
		for _, name := range o.names {
			if o.end {
				s.unsubscribeLocked(sub, name)
				delete(at.names, name)
				delete(at.asked, name)
				continue
			}
			name = s.subscribeLocked(sub, name)
			if at.asked == nil {
				at.asked = make(map[string]struct{})
			}
			at.asked[name] = struct{}{}
		}
	}
	if limit := s.cfg.Limits.Names; len(at.names) > limit {
		return fmt.Errorf("the host subscribes to more than %d names", limit)
	}
	return nil
}

// subscribeLocked subscribes to a name and returns it, one string for all.
func (s *Server) subscribeLocked(sub *subscriber, name string) string {
	a := s.byName[name]
	if a == nil {
		a = &nameSubscribers{name: name, subs: make(map[*subscriber]struct{})}
		s.byName[name] = a
	}
	a.subs[sub] = struct{}{}
	if sub.cursor.names == nil {
		sub.cursor.names = make(map[string]struct{})
	}
	sub.cursor.names[a.name] = struct{}{}
	return a.name
}

func (s *Server) unsubscribeLocked(sub *subscriber, name string) {
	a := s.byName[name]
	if a == nil {
		return
	}
	delete(a.subs, sub)
	if len(a.subs) == 0 {
		delete(s.byName, name)
	}
}

// await has the subscriber woken when the index is reached. Who wrote something
// waits to hear of it, though it may be nothing that concerns this host.
func (s *Server) await(sub *subscriber, index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[sub] = max(index, s.waiting[sub])
	s.wakeWaitingLocked(s.snapshot.at())
}

func (s *Server) wakeWaitingLocked(index uint64) {
	for sub, wanted := range s.waiting {
		if index >= wanted {
			delete(s.waiting, sub)
			sub.poke()
		}
	}
}

// wake wakes whom a change concerns.
func (s *Server) wake(to touched) {
	whole, index := s.snapshot.isWhole(), s.snapshot.at()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakeWaitingLocked(index)
	if to.base || (whole && len(to.parts) > 0) {
		for sub := range s.subscribers {
			sub.poke()
		}
		return
	}
	// Whoever wrote in this process waits for the index, changes or none.
	for sub := range s.locals {
		sub.poke()
	}
	for name := range to.parts {
		if a := s.byName[name]; a != nil {
			for sub := range a.subs {
				sub.poke()
			}
		}
	}
}
