package resolver

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"meibo/cache"
	"meibo/resolver/wire"
)

// Outcome is what a Zone says of a question it was shown.
type Outcome uint8

const (
	// Answered: the Result is the answer.
	Answered Outcome = iota
	// NotMine: the zone has nothing to say of this name; ask the next one. The
	// Result's Deps[0] may name the counter that moves when that is no longer so:
	// whoever answers in its place is believed only while it stands still.
	NotMine
	// Later: the answer needs waiting or work; call Resolve in a flight.
	Later
)

// ErrNotMine is what Zone.Resolve returns in place of NotMine.
var ErrNotMine = errors.New("not a name of this zone")

// Result is an answer and how long it may be kept.
type Result struct {
	Answer *wire.Answer
	// Alias is where an Answer that ends with an alias leads to, in lower case, for
	// the resolver to go on from there. Only Zone.Resolve may set it; what Answer says
	// of such a name is Later.
	Alias wire.Name
	// Deps are the counters the answer depends on with the values they had
	// before the answer was built. They are stored as they are.
	Deps [2]cache.Dep
	// Life is how long the answer may be kept: 0 means until a Dep moves. It is
	// not the TTL that clients see. For answers of an Upstream it is ignored:
	// their life is judged from their TTLs.
	Life time.Duration
	// Exists goes with NotMine: the zone has the name, and leaves the type asked for to
	// those after it. Where these deny the name, there is no data (RFC 2308 section 2.2).
	Exists bool
	// NoStore answers are delivered and not kept.
	NoStore bool
	// Ages is true when the TTLs count down while the answer is kept.
	Ages bool
	// AD is true when the answer's AD bit may be passed on: the route is trusted
	// to validate, and the upstream set it (RFC 6840 section 5.8).
	AD bool
	// Source says for people where the answer came from: "view", "hosts",
	// "upstream 192.0.2.1:53".
	Source string
	// EDE and EDEText are an Extended DNS Error (RFC 8914), sent to clients that
	// sent OPT. EDE 0 without a text means none.
	EDE     uint16
	EDEText string
}

// Zone answers for names of its own.
type Zone interface {
	// Answer is called on the receive loop: it answers from memory, at once, and
	// never blocks. q and its bytes are borrowed until it returns. Called
	// concurrently.
	Answer(q *wire.Query) (Result, Outcome)
	// Resolve is called in a flight's goroutine after Answer said Later. It may
	// block until ctx ends. ErrNotMine passes the question on; any other error is
	// answered SERVFAIL, with the Extended Error of a *Failure in its chain.
	Resolve(ctx context.Context, q *wire.Query) (Result, error)
}

// Upstream exchanges one question with the servers of one route.
type Upstream interface {
	// Exchange returns what a server said, whatever its rcode, or an error when
	// no server said anything usable, with a *Failure in its chain that says
	// why. It obeys ctx, and ctx's Deadline by a timer of its own: Done need not
	// come by then. It is called concurrently, but never twice at once for equal
	// (name, type, class, DO, CD).
	Exchange(ctx context.Context, q *wire.Query) (Result, error)
}

// Health is what an Upstream may implement besides: Down tells that every server
// of the route is known to be dead, so that waiting before a stale answer is
// given would be in vain. It must not block.
type Health interface{ Down() bool }

// Failure says why no answer was had, in the terms of RFC 8914.
type Failure struct {
	EDE  uint16
	Text string // names the upstream or the part that failed
	Err  error  // the cause, may be nil
}

// Error implements error.
func (f *Failure) Error() string {
	if f.Err == nil {
		return f.Text
	}
	return f.Text + ": " + f.Err.Error()
}

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.Err }

// Rank decides between mounts of equal suffix: the lower one is asked first.
type Rank uint8

const (
	// RankRoute is an explicit route of the configuration.
	RankRoute Rank = iota
	// RankOwn is a zone of ours: .consul and the reverse zones.
	RankOwn
	// RankSpecial is a special name (RFC 6761 and its kin).
	RankSpecial
	// RankDefault is the route for everything else.
	RankDefault
)

// Mount is a Zone or an Upstream at a suffix.
type Mount struct {
	Suffix wire.Name // wire.Root: every name
	Rank   Rank
	// Exactly one of Zone and Upstream is set.
	Zone     Zone
	Upstream Upstream
	// Route counts the changes of an Upstream's route; its answers live no
	// longer than it stands still. Nil for a Zone.
	Route *atomic.Uint64
	// Name is for people and metrics: "consul", "route corp.example.".
	Name string
}

// Table says who answers which names. It is not changed once given away.
type Table struct {
	// Whole answers by whole name and is asked before all mounts; hosts files
	// and static records. It may be nil.
	Whole  Zone
	Mounts []Mount
}
