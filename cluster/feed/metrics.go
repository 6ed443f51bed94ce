package feed

import "sync/atomic"

// counters are what a server counts.
type counters struct {
	refused, slow, resets, updates, bytes atomic.Uint64
}
