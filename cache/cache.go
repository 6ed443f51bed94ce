// Package cache keeps packed DNS answers for the resolver.
//
// An entry holds up to three counters and the values they had when its answer was
// made; it counts only while they still have them. A change elsewhere publishes
// its new state and then bumps a counter, and that is all: every answer made
// before is dead from that moment, without anybody scanning or locking anything
// here. So an entry can be dropped too early and is never served too late.
//
// Entries from upstream also expire. They stay a while past that time, for the
// case that no upstream answers (RFC 8767), and are the first to go when room is
// needed.
//
// The cache is bounded by bytes as well as by entries. A hit takes a shared lock
// of one of many shards, sets a visited bit and allocates nothing; promotion
// happens lazily, when something must be evicted.
//
// The cache knows nothing of the network, starts no goroutine and writes no log.
package cache

import (
	"fmt"
	"hash/maphash"
	"time"

	"meibo/resolver/wire"
)

const (
	// DefaultMaxBytes holds some 50,000 answers, more names than most hosts use
	// in a day, and is small beside the rest of the process.
	DefaultMaxBytes = 16 << 20
	// DefaultMaxEntries bounds the bookkeeping of many tiny answers.
	DefaultMaxEntries = 1 << 17
	// DefaultStale is how long expired answers are kept; RFC 8767 section 5
	// suggests one to three days.
	DefaultStale = 24 * time.Hour

	// shardBytes is the smallest share of a shard: four answers of the largest
	// size a DNS message can have.
	shardBytes = 256 << 10
	maxShards  = 64
)

// Config says how much a cache may hold. The zero value means the defaults.
type Config struct {
	// MaxBytes bounds the memory of all entries, bookkeeping included.
	MaxBytes int
	// MaxEntries bounds their number.
	MaxEntries int
	// Stale is how long entries are kept past their expiry; below zero: not.
	Stale time.Duration
}

// Cache is a bounded set of packed answers, safe for concurrent use.
type Cache struct {
	seed   maphash.Seed
	stale  time.Duration
	max    int
	shards []shard
	known  origins

	hot     func(q *wire.Query, e *Entry) // nil: nobody asks
	hotHits uint32
}

// New validates cfg and returns an empty cache.
func New(cfg Config) (*Cache, error) {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = DefaultMaxEntries
	}
	if cfg.Stale == 0 {
		cfg.Stale = DefaultStale
	}
	if cfg.MaxBytes < 0 || cfg.MaxEntries < 0 {
		return nil, fmt.Errorf("cache: max_bytes (%d) and max_entries (%d) must not be negative", cfg.MaxBytes, cfg.MaxEntries)
	}
	c := &Cache{seed: maphash.MakeSeed(), stale: max(cfg.Stale, 0), max: cfg.MaxBytes}
	c.shards = make([]shard, shardCount(cfg))
	for i := range c.shards {
		c.shards[i].init(cfg.MaxBytes/len(c.shards), cfg.MaxEntries/len(c.shards), c.stale)
	}
	return c, nil
}

// OnHot has hot called whenever an entry was hit that often, once for each entry. It is
// called by Get, on the answer path: q is borrowed until it returns. It must be set
// before the cache is used.
func (c *Cache) OnHot(hits uint32, hot func(q *wire.Query, e *Entry)) { c.hotHits, c.hot = hits, hot }

// shardCount is the largest power of two that leaves every shard room enough.
func shardCount(cfg Config) int {
	n := 1
	for n < maxShards && cfg.MaxBytes/(2*n) >= shardBytes && cfg.MaxEntries/(2*n) >= 64 {
		n *= 2
	}
	return n
}

// Get looks up the answer to q at boot time now. The entry is nil with Miss. It
// takes no exclusive lock and allocates nothing.
func (c *Cache) Get(q *wire.Query, now time.Duration) (*Entry, State) {
	k := keyOf(q)
	s, hash := c.place(&k)
	n := s.lookup(hash, &k)
	e, st := c.judge(n, now)
	s.count(st)
	if st == Fresh && n.isHot(c.hotHits) {
		c.hot(q, e)
	}
	return e, st
}

// Peek is Get for a question that was counted already.
func (c *Cache) Peek(q *wire.Query, now time.Duration) (*Entry, State) {
	k := keyOf(q)
	s, hash := c.place(&k)
	return c.judge(s.lookup(hash, &k), now)
}

func (c *Cache) judge(n *node, now time.Duration) (*Entry, State) {
	if n == nil {
		return nil, Miss
	}
	st := n.entry.state(now, c.stale)
	if st == Miss {
		return nil, Miss
	}
	return n.entry, st
}

// Denial looks for a fresh NXDOMAIN of q's name that was an answer to another
// type of it (RFC 2308 section 5).
func (c *Cache) Denial(q *wire.Query, now time.Duration) (*Entry, bool) {
	k := keyOf(q).denial()
	s, hash := c.place(&k)
	if s.denials.Load() == 0 {
		return nil, false
	}
	e, st := c.judge(s.lookup(hash, &k), now)
	return e, st == Fresh
}

// Mark is a moment in the life of a name's shard, see Cache.Mark.
type Mark uint64

// Mark is taken before an answer to q is looked for and handed to Put with it. If
// the name was dropped in between, the answer may be the one that the drop was
// meant for, and Put lets it go.
func (c *Cache) Mark(q *wire.Query) Mark {
	k := keyOf(q)
	s, _ := c.place(&k)
	return Mark(s.drops.Load())
}

// Put stores e as the answer to q; e must not change afterwards, and nobody else may know
// it yet: it gets the Origin of an entry before it, if that is the same. An entry that is
// too large for a shard, or whose answer is to another question, is not stored. The Deps are kept with the values they
// came with: they were read before the answer was built, and reading them now
// would hide a change in between.
func (c *Cache) Put(q *wire.Query, e *Entry, mark Mark) {
	k := keyOf(q)
	if !e.Answer.Matches(q) {
		s, _ := c.place(&k)
		s.refused.Add(1)
		return
	}
	size := e.Answer.Size() + nodeOverhead
	if o := c.known.find(c.seed, e.Origin); o != nil {
		e.Origin = o
	} else {
		size += e.size()
	}
	c.put(k, e, size, mark)
	if e.NameError {
		c.put(k.denial(), e, size, mark)
	}
}

func (c *Cache) put(k key, e *Entry, size int, mark Mark) {
	s, hash := c.place(&k)
	s.store(newNode(hash, &k, e, size), uint64(mark))
}

// Range calls f with each entry and its question until f returns false, those that were
// used longest ago first. f must not call the cache.
func (c *Cache) Range(f func(q *wire.Query, e *Entry) bool) {
	for i := range c.shards {
		for _, n := range c.shards[i].nodes() {
			q := wire.NewQuery(wire.Name(n.name()), n.typ)
			q.Class, q.DO, q.CD = n.class, n.flags&flagDO != 0, n.flags&flagCD != 0
			if !f(q, n.entry) {
				return
			}
		}
	}
}

// Drop removes every entry of the given names, whatever their type, and refuses
// answers to them that are being made now.
func (c *Cache) Drop(names ...wire.Name) {
	if len(names) == 0 {
		return
	}
	set := make(map[string]struct{}, len(names))
	for _, n := range names {
		set[string(n.Lower())] = struct{}{}
	}
	match := func(name []byte) bool { _, ok := set[string(name)]; return ok }
	if len(names) == 1 {
		k := key{name: []byte(names[0].Lower())}
		s, _ := c.place(&k)
		s.drop(match)
		return
	}
	c.dropAll(match)
}

// DropSuffix removes every entry at or below zone.
func (c *Cache) DropSuffix(zone wire.Name) {
	c.dropAll(func(name []byte) bool { return wire.Name(name).HasSuffix(zone) })
}

// Flush removes everything.
func (c *Cache) Flush() { c.dropAll(func([]byte) bool { return true }) }

func (c *Cache) dropAll(match func(name []byte) bool) {
	for i := range c.shards {
		c.shards[i].drop(match)
	}
}
