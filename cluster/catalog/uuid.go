package catalog

import (
	"crypto/rand"
	"fmt"
	"sync/atomic"
)

// NewUUID returns a random UUID (RFC 9562 section 5.4).
func NewUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// RequestIDs makes request IDs. It may be used by several goroutines at once.
type RequestIDs struct {
	client string
	count  atomic.Uint64
}

// NewRequestIDs returns a source of request IDs that nobody else makes.
func NewRequestIDs() *RequestIDs { return &RequestIDs{client: NewUUID()} }

// Next returns an ID that was not returned before, with the n-1 counters that follow it.
func (r *RequestIDs) Next(n uint64) RequestID {
	return RequestID{Client: r.client, Counter: r.count.Add(n) - n + 1}
}
