package feed

import "sync/atomic"

// counters are what a server counts.
type counters struct {
	refused, slow, resets, bytes atomic.Uint64
}
