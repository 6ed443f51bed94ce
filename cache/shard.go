package cache

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"meibo/resolver/wire"
)

// nodeOverhead is what an entry costs beside its answer: the node,
// the entry, its place in the map. Measured, rounded up.
const nodeOverhead = 140

// secondChances bounds the work of one eviction: so many visited entries are
// passed over before one goes regardless.
const secondChances = 8

// key is what an answer is kept under: everything a reply may depend on.
type key struct {
	name  []byte // lower case, wire form
	typ   uint16
	class uint16
	flags uint8
}

const (
	flagDO = 1 << iota
	flagCD
	flagDenial // the denial of a name, whatever the type
)

func keyOf(q *wire.Query) key {
	k := key{name: q.Name(), typ: q.Type, class: q.Class}
	if q.DO {
		k.flags |= flagDO
	}
	if q.CD {
		k.flags |= flagCD
	}
	return k
}

// denial is the key under which the denial of k's name is kept.
func (k key) denial() key {
	k.typ = 0
	k.flags |= flagDenial
	return k
}

// place returns the shard of k's name and the hash of k within it. All types of a
// name share a shard, so that a name can be dropped under one lock. The hash is
// seeded: nobody outside can choose names that collide.
func (c *Cache) place(k *key) (*shard, uint64) {
	h := maphash.Bytes(c.seed, k.name)
	// An odd multiplier maps different (type, class, flags) to different values.
	rest := uint64(k.typ) | uint64(k.class)<<16 | uint64(k.flags)<<32
	return &c.shards[h>>32&uint64(len(c.shards)-1)], h ^ rest*0x9e3779b97f4a7c15
}

// node is an entry with its full key, which is compared at every lookup. The name is
// that of the answer's question.
type node struct {
	entry      *Entry
	prev, next *node // of the shard's list
	hash       uint64
	size       int32
	typ        uint16
	class      uint16
	flags      uint8
	use        atomic.Uint32 // hits, counted as far as anybody cares, and visited
}

// visited is set in node.use by hits, and taken back by evictions that pass over.
const visited = 1 << 31

// isHot counts a hit and reports whether it is the one that makes n hot.
func (n *node) isHot(hits uint32) bool {
	return n.use.Load()&^visited < hits && n.use.Add(1)&^visited == hits
}

func (n *node) name() []byte { return n.entry.Answer.QName() }

func newNode(hash uint64, k *key, e *Entry, size int) *node {
	return &node{entry: e, hash: hash, size: int32(size), typ: k.typ, class: k.class, flags: k.flags}
}

func (n *node) is(k *key) bool {
	return n.typ == k.typ && n.class == k.class && n.flags == k.flags && string(n.name()) == string(k.name)
}

// shard is one independently locked part of the cache.
type shard struct {
	mu    sync.RWMutex
	held  map[uint64]*node
	order list
	bytes int

	denials atomic.Int32 // nodes that are; moved under mu, looked at before a lookup for one

	maxBytes   int
	maxEntries int
	stale      time.Duration

	drops     atomic.Uint64 // bumped by every drop, under mu
	hits      atomic.Uint64
	misses    atomic.Uint64
	expired   atomic.Uint64
	inserted  atomic.Uint64
	evictions atomic.Uint64
	refused   atomic.Uint64
}

func (s *shard) init(maxBytes, maxEntries int, stale time.Duration) {
	s.maxBytes, s.maxEntries, s.stale = maxBytes, max(maxEntries, 1), stale
	s.held = make(map[uint64]*node)
	s.order.init()
}

func (s *shard) lookup(hash uint64, k *key) *node {
	s.mu.RLock()
	n := s.held[hash]
	s.mu.RUnlock()
	if n == nil || !n.is(k) {
		return nil
	}
	if n.use.Load()&visited == 0 {
		n.use.Or(visited)
	}
	return n
}

func (s *shard) count(st State) {
	switch st {
	case Fresh:
		s.hits.Add(1)
	case Expired:
		s.expired.Add(1)
	default:
		s.misses.Add(1)
	}
}

// store puts n in unless something was dropped since mark, and makes room for it.
func (s *shard) store(n *node, mark uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int(n.size) > s.maxBytes || s.drops.Load() != mark {
		s.refused.Add(1)
		return
	}
	if old := s.held[n.hash]; old != nil {
		s.removeLocked(old)
	}
	for s.bytes+int(n.size) > s.maxBytes || len(s.held) >= s.maxEntries {
		s.evictLocked(n.entry.Stored)
	}
	s.held[n.hash] = n
	s.order.push(n)
	s.countDenial(n, 1)
	s.bytes += int(n.size)
	s.inserted.Add(1)
}

func (s *shard) countDenial(n *node, by int32) {
	if n.flags&flagDenial != 0 {
		s.denials.Add(by)
	}
}

func (s *shard) removeLocked(n *node) {
	delete(s.held, n.hash)
	s.order.remove(n)
	s.countDenial(n, -1)
	s.bytes -= int(n.size)
}

// evictLocked removes the oldest entry that was not visited since the last
// eviction looked at it. A visit saves only what is fresh: an expired entry goes
// before any fresh one that anybody asks for.
func (s *shard) evictLocked(now time.Duration) {
	for range secondChances {
		n := s.order.oldest()
		if n == nil || n.use.Load()&visited == 0 || n.entry.state(now, s.stale) != Fresh {
			break
		}
		n.use.And(^uint32(visited))
		s.order.remove(n)
		s.order.push(n)
	}
	if n := s.order.oldest(); n != nil {
		s.removeLocked(n)
		s.evictions.Add(1)
	}
}

// nodes are those of answers, not of denials of a whole name, which come with these.
func (s *shard) nodes() []*node {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var nodes []*node
	for n := s.order.oldest(); n != nil && n != &s.order.root; n = n.prev {
		if n.flags&flagDenial == 0 {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

func (s *shard) drop(match func(name []byte) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drops.Add(1)
	for _, n := range s.held {
		if match(n.name()) {
			s.removeLocked(n)
		}
	}
}
