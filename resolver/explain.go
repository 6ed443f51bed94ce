package resolver

import (
	"context"
	"errors"
	"time"

	"meibo/cache"
	"meibo/resolver/wire"
)

// Explanation is an answer and where it came from.
type Explanation struct {
	// Message is the reply as a client with q's flags and size gets it.
	Message []byte
	Rcode   uint16
	// Mount and Source name who answered; Mount is empty when nobody did.
	Mount, Source string
	// Cached is true when the answer was in the cache before it was asked for,
	// Stale when it is expired and given for want of a better one.
	Cached, Stale bool
	// Age is how long ago the answer was made; Left how long it may still be
	// kept, 0 with Watched when it lives until what it rests on changes.
	Age, Left time.Duration
	Watched   bool
	// EDE and EDEText are the Extended DNS Error of the reply (RFC 8914).
	EDE     uint16
	EDEText string
	// Err is why there is no answer, or why it is a stale one.
	Err  error
	Took time.Duration
}

// Explain answers q as Lookup does and says how it came about. The error is only
// for questions that can't be asked; that no answer was had is in the Explanation.
func (r *Resolver) Explain(ctx context.Context, q *wire.Query) (Explanation, error) {
	if len(q.Name()) == 0 {
		return Explanation{}, errors.New("explain: the question has no name")
	}
	began := r.now()
	_, st := r.cfg.Cache.Peek(q, began)
	s := r.lookup(ctx, q)
	now := r.now()
	x := Explanation{Err: s.err, Stale: s.stale, Cached: s.stale || st == cache.Fresh, Took: now - began}
	x.Message = r.render(nil, q, s, now)
	if a, err := wire.ParseAnswer(x.Message); err == nil {
		x.Rcode = a.Rcode()
		x.EDE, x.EDEText = a.EDE()
	}
	if e := s.entry; e != nil {
		x.Mount, x.Source = e.Mount, e.Source
		x.Age = max(now-e.Stored, 0)
		x.Watched = e.Expires == 0
		x.Left = max(e.Expires-now, 0)
	}
	return x, nil
}
