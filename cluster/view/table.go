package view

import (
	"iter"
	"slices"
	"strings"
)

// chunkLen is how many items a chunk of a table has at most. A change copies one
// chunk and the list of chunks: near the square root of a large fleet both are small.
const chunkLen = 128

// table is an ordered list of items, and immutable: what changes is made by a
// [txn]. Successive tables share the chunks that did not change. Where an item is,
// is asked by a function that says whether a given one is before (negative), at
// (0) or after the place that is sought. It is safe for concurrent use.
type table[T any] struct {
	chunks []chunk[T] // none empty
	len    int
}

type chunk[T any] struct {
	items []T
	own   bool // by the transaction under way alone
}

// find returns where the first item is that isn't before the place, and whether it
// is at it. What it finds may be past the end of its chunk.
func (t *table[T]) find(place func(T) int) (c, i int, ok bool) {
	low, high := 1, len(t.chunks) // the chunk sought is before the first that begins after the place
	for low < high {
		if mid := (low + high) / 2; place(t.chunks[mid].items[0]) <= 0 {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if len(t.chunks) == 0 {
		return 0, 0, false
	}
	c = low - 1
	items := t.chunks[c].items
	low, high = 0, len(items)
	for low < high {
		mid := (low + high) / 2
		switch at := place(items[mid]); {
		case at == 0:
			return c, mid, true
		case at < 0:
			low = mid + 1
		default:
			high = mid
		}
	}
	return c, low, false
}

// get returns the item at the place.
func (t *table[T]) get(place func(T) int) (item T, ok bool) {
	if c, i, ok := t.find(place); ok {
		return t.chunks[c].items[i], true
	}
	return item, false
}

// all returns the items in order. Items that a transaction replaces meanwhile may
// be given as they were.
func (t *table[T]) all() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, c := range t.chunks {
			for _, item := range c.items {
				if !yield(item) {
					return
				}
			}
		}
	}
}

// from returns the items in order, from the first on that isn't before the place. No
// two items may be at it.
func (t *table[T]) from(place func(T) int) iter.Seq[T] {
	return func(yield func(T) bool) {
		for c, i, _ := t.find(place); c < len(t.chunks); c, i = c+1, 0 {
			for _, item := range t.chunks[c].items[i:] {
				if !yield(item) {
					return
				}
			}
		}
	}
}

// txn makes the next table. Its zero value begins with an empty one. It is not safe
// for concurrent use, but those of its tables are.
type txn[T any] struct {
	table[T]
	base *table[T] // what was begun with, or committed last; nil once that was changed
}

// txn begins a transaction.
func (t *table[T]) txn() txn[T] { return txn[T]{*t, t} }

// write makes the list of chunks the transaction's own, and with it a chunk.
func (t *txn[T]) write(c int) *chunk[T] {
	if t.base != nil {
		t.chunks, t.base = slices.Clone(t.chunks), nil
	}
	if !t.chunks[c].own {
		t.chunks[c] = chunk[T]{slices.Clone(t.chunks[c].items), true}
	}
	return &t.chunks[c]
}

// findFromEnd is find, which looks at the last item first: a whole table comes in order.
func (t *txn[T]) findFromEnd(place func(T) int) (c, i int, ok bool) {
	if c = len(t.chunks) - 1; c >= 0 {
		if items := t.chunks[c].items; place(items[len(items)-1]) < 0 {
			return c, len(items), false
		}
	}
	return t.find(place)
}

// put sets the item at the place, and adds it if none is there.
func (t *txn[T]) put(item T, place func(T) int) {
	c, i, ok := t.findFromEnd(place)
	if ok {
		t.write(c).items[i] = item
		return
	}
	t.len++
	if len(t.chunks) == 0 {
		t.chunks, t.base = []chunk[T]{{[]T{item}, true}}, nil
		return
	}
	if full := t.write(c); len(full.items) == chunkLen {
		half := chunkLen / 2
		if c == len(t.chunks)-1 && i == chunkLen {
			half = i // items that come in order fill their chunks
		}
		rest := append(make([]T, 0, chunkLen), full.items[half:]...)
		clear(full.items[half:])
		full.items = full.items[:half]
		t.chunks = slices.Insert(t.chunks, c+1, chunk[T]{rest, true})
		if i >= half {
			c, i = c+1, i-half
		}
	}
	t.chunks[c].items = slices.Insert(t.chunks[c].items, i, item)
}

// remove takes out the item at the place, if one is there.
func (t *txn[T]) remove(place func(T) int) {
	c, i, ok := t.find(place)
	if !ok {
		return
	}
	t.len--
	at := t.write(c)
	at.items = slices.Delete(at.items, i, i+1)
	for _, c := range []int{c, c - 1} { // small neighbours become one
		if c < 0 || c+1 >= len(t.chunks) || len(t.chunks[c].items)+len(t.chunks[c+1].items) > chunkLen/2 {
			continue
		}
		left := t.write(c)
		left.items = append(left.items, t.chunks[c+1].items...)
		t.chunks = slices.Delete(t.chunks, c+1, c+2)
		return
	}
	if len(at.items) == 0 {
		t.chunks = slices.Delete(t.chunks, c, c+1)
	}
}

// commit returns the table as it is now; the transaction goes on from it.
func (t *txn[T]) commit() *table[T] {
	if t.base != nil {
		return t.base
	}
	for c := range t.chunks {
		at := &t.chunks[c]
		if at.own && cap(at.items)-len(at.items) > len(at.items)/8 {
			at.items = slices.Clone(at.items)
		}
		at.own = false
	}
	next := t.table
	t.base = &next
	return t.base
}

// keys is a set of keys, in order. A map takes twice the memory.
type keys struct{ txn[string] }

func atKey(key string) func(string) int {
	return func(k string) int { return strings.Compare(k, key) }
}

func (k *keys) has(key string) bool {
	_, _, ok := k.find(atKey(key))
	return ok
}

func (k *keys) add(key string) {
	if !k.has(key) {
		k.put(key, atKey(key))
	}
}

func (k *keys) drop(key string) { k.remove(atKey(key)) }
