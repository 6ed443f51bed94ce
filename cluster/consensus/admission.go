package consensus

import (
	"context"
	"sync"
)

// admission bounds what waits to be committed, and waits for it to end.
type admission struct {
	mu      sync.Mutex // guards following
	count   int
	bytes   int
	refused uint64
	closed  bool
	idle    chan struct{} // closed when count falls to 0 while closed
}

func (a *admission) enter(size int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.closed:
		return ErrNoLeader
	case a.count >= MaxInFlight, a.bytes+size > MaxInFlightBytes:
		a.refused++
		return ErrBusy
	}
	a.count++
	a.bytes += size
	return nil
}

func (a *admission) leave(size int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count--
	a.bytes -= size
	if a.closed && a.count == 0 {
		close(a.idle)
	}
}

func (a *admission) counts() (waiting int, refused uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count, a.refused
}

// close lets nothing in any more.
func (a *admission) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	a.closed = true
	a.idle = make(chan struct{})
	if a.count == 0 {
		close(a.idle)
	}
}

// wait waits until all that was let in has left, or ctx ends; it reports
// whether all left. close must have been called.
func (a *admission) wait(ctx context.Context) bool {
	select {
	case <-a.idle:
		return true
	case <-ctx.Done():
		return false
	}
}
