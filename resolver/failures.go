package resolver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"meibo/cache"
	"meibo/resolver/wire"
)

// Failures are remembered for a moment (RFC 9520 section 3.2 asks for at least one
// second), doubling while they go on.
const (
	failureMin = time.Second
	failureMax = 5 * time.Second
	// failureForget ends a row of failures: one later than this begins at
	// failureMin again.
	failureForget = 30 * time.Second
	maxFailures   = 4096
)

// question is what distinguishes flights, exchanges and failures.
type question struct {
	name   string
	typ    uint16
	class  uint16
	do, cd bool
	// stranger is set for flights of clients whose questions are not forwarded.
	stranger bool
}

func questionOf(q *wire.Query) question {
	return question{name: string(q.Name()), typ: q.Type, class: q.Class, do: q.DO, cd: q.CD}
}

// failureMemory remembers questions that no upstream answered. It is asked only
// when the cache has no fresh answer, so it never hides one.
type failureMemory struct {
	n   atomic.Int32 // questions; while there are none, most of the time, nobody locks or makes a key
	mu  sync.Mutex
	lru *simplelru.LRU[question, *failedQuestion] // guarded by mu
}

type failedQuestion struct {
	err   error
	dep   cache.Dep // the route that failed
	at    time.Duration
	until time.Duration
	pause time.Duration
}

func newFailureMemory() *failureMemory {
	lru, err := simplelru.NewLRU[question, *failedQuestion](maxFailures, nil)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &failureMemory{lru: lru}
}

// recall returns how q failed, if it did so recently. With an expired answer at
// hand recent means the recheck interval of RFC 8767, unless it is a denial: a name
// that exists by now must not be denied for so long.
func (m *failureMemory) recall(q *wire.Query, now time.Duration, expired *cache.Entry) (error, bool) {
	if m.n.Load() == 0 {
		return nil, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.lru.Peek(questionOf(q))
	if !ok || f.dep.Moved() {
		return nil, false
	}
	if now < f.until || expired != nil && !expired.Negative && now < f.at+staleRecheck {
		return f.err, true
	}
	return nil, false
}

// record remembers that q failed. A question given up by its client says nothing of
// the upstreams.
func (m *failureMemory) record(q *wire.Query, now time.Duration, dep cache.Dep, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.count()
	k := questionOf(q)
	pause := failureMin
	if f, ok := m.lru.Peek(k); ok && now < f.until+failureForget && !f.dep.Moved() {
		pause = min(2*f.pause, failureMax)
	}
	m.lru.Add(k, &failedQuestion{err: err, dep: dep, at: now, until: now + pause, pause: pause})
}

func (m *failureMemory) forget(q *wire.Query) {
	if m.n.Load() == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lru.Remove(questionOf(q))
	m.count()
}

func (m *failureMemory) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lru.Purge()
	m.count()
}

// count is called with m.mu held, after every change.
func (m *failureMemory) count() { m.n.Store(int32(m.lru.Len())) }
