// Package retry has the pauses between attempts.
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Wait waits for d and reports true, or false if ctx ends first.
func Wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// WaitFor is [Wait] that ends early, and reports true, once wake is closed.
func WaitFor(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-timer.C:
	}
	return true
}

// Backoff is a pause that grows with each attempt: Min at first, then twice as
// long each time, Max at most. Up to a half is taken off at random, so that
// those who failed together don't try again together. Both must be positive. It
// is for one goroutine.
type Backoff struct {
	Min, Max time.Duration

	next time.Duration
}

// Next returns the pause before the next attempt.
func (b *Backoff) Next() time.Duration {
	d := max(b.next, b.Min)
	b.next = min(2*d, b.Max)
	return d - rand.N(d/2+1)
}

// Reset makes the next pause a first one.
func (b *Backoff) Reset() { b.next = 0 }
