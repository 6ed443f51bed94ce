package view

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

type pair struct{ key, value int }

func atPair(key int) func(pair) int { return func(p pair) int { return cmp.Compare(p.key, key) } }

// check compares a table with what it should hold.
func (t *table[T]) check(tb interface{ Fatalf(string, ...any) }, want []T, same func(a, b T) bool) {
	if got := slices.Collect(t.all()); !slices.EqualFunc(got, want, same) || t.len != len(want) {
		tb.Fatalf("holds %v, %d items\nwant %v", got, t.len, want)
	}
	for _, c := range t.chunks {
		if len(c.items) == 0 || len(c.items) > chunkLen {
			tb.Fatalf("a chunk of %d items", len(c.items))
		}
	}
}

func TestTable_IsAsAMapAndSnapshotsStay(t *testing.T) {
	same := func(a, b pair) bool { return a == b }
	rapid.Check(t, func(t *rapid.T) {
		var txn txn[pair]
		want := make(map[int]int)
		list := func() []pair {
			var l []pair
			for _, k := range slices.Sorted(maps.Keys(want)) {
				l = append(l, pair{k, want[k]})
			}
			return l
		}
		type snapshot struct {
			table *table[pair]
			want  []pair
		}
		var snapshots []snapshot
		for i := range rapid.IntRange(1, 40).Draw(t, "steps") {
			from := rapid.IntRange(0, 600).Draw(t, "from")
			n := rapid.SampledFrom([]int{1, 1, 2, 200, 600}).Draw(t, "n")
			step := rapid.SampledFrom([]int{1, -1, 7}).Draw(t, "step")
			remove := rapid.Bool().Draw(t, "remove")
			for j := range n {
				key := from + j*step
				if remove {
					txn.remove(atPair(key))
					delete(want, key)
				} else {
					txn.put(pair{key, i}, atPair(key))
					want[key] = i
				}
			}
			txn.check(t, list(), same)
			key := rapid.IntRange(-10, 700).Draw(t, "key")
			p, ok := txn.get(atPair(key))
			if value, has := want[key]; ok != has || ok && p != (pair{key, value}) {
				t.Fatalf("%d is %v %v, want %v %v", key, p, ok, value, has)
			}
			rest := slices.DeleteFunc(list(), func(p pair) bool { return p.key < key })
			if got := slices.Collect(txn.from(atPair(key))); !slices.Equal(got, rest) {
				t.Fatalf("from %d: %v, want %v", key, got, rest)
			}
			if rapid.Bool().Draw(t, "commit") {
				snapshots = append(snapshots, snapshot{txn.commit(), list()})
				if rapid.Bool().Draw(t, "anew") {
					txn = snapshots[len(snapshots)-1].table.txn()
				}
			}
		}
		for _, s := range snapshots {
			s.table.check(t, s.want, same)
		}
	})
}

func TestTable_CopiesOnlyWhatChanges(t *testing.T) {
	var txn txn[pair]
	for i := range 5000 {
		txn.put(pair{i, 0}, atPair(i))
	}
	before := txn.commit()
	if len(before.chunks) != (5000+chunkLen-1)/chunkLen {
		t.Errorf("%d chunks: items that came in order don't fill them", len(before.chunks))
	}
	if txn.commit() != before {
		t.Error("a new table of no change")
	}
	txn.put(pair{2500, 1}, atPair(2500))
	after := txn.commit()
	var copied int
	for i := range after.chunks {
		if &after.chunks[i].items[0] != &before.chunks[i].items[0] {
			copied++
		}
	}
	if copied != 1 {
		t.Errorf("%d chunks were copied", copied)
	}
}

// TestTable_IsReadWhileTheNextIsMade has readers check tables in which all values are
// one, while a writer makes others of them.
func TestTable_IsReadWhileTheNextIsMade(t *testing.T) {
	const items = 3 * chunkLen
	var txn txn[pair]
	for i := range items {
		txn.put(pair{i, 0}, atPair(i))
	}
	var newest atomic.Pointer[table[pair]]
	newest.Store(txn.commit())
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				now := newest.Load()
				want, _ := now.get(atPair(items / 2))
				for p := range now.from(atPair(0)) {
					if p.value != want.value {
						t.Errorf("%d is %d in a table of %d", p.key, p.value, want.value)
						return
					}
				}
			}
		})
	}
	for n := 1; n <= 300; n++ {
		for i := range items {
			txn.put(pair{i, n}, atPair(i))
		}
		for i := range n % 5 { // some come and go
			txn.put(pair{-i, n}, atPair(-i))
		}
		newest.Store(txn.commit())
		for i := range n % 5 {
			txn.remove(atPair(-i))
		}
	}
	close(stop)
	readers.Wait()
}

func TestCompareKey_IsComparingKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.StringOfN(rapid.SampledFrom([]rune("abABzZ-0@[`{é É")), 0, 4, -1)
		name, key := letters.Draw(t, "name"), nameKey(letters.Draw(t, "other"))
		if got, want := compareKey(name, key), cmp.Compare(nameKey(name), key); got != want {
			t.Fatalf("%q and %q: %d, want %d", name, key, got, want)
		}
	})
}
