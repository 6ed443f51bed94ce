package cache

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"meibo/resolver/wire"
)

// liveBytes is the heap that is in use, without garbage.
func liveBytes() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// What the cache says that it holds is what it takes of memory, be the answers of one origin or each of its own; and it is
// little.
func TestMemory_IsCountedAndLittle(t *testing.T) {
	const names = 50_000
	counters := make([]atomic.Uint64, names)
	for _, tc := range []struct {
		name    string
		counter func(i int) *atomic.Uint64
		most    int // bytes of an entry
	}{
		{"answers of an upstream", func(int) *atomic.Uint64 { return &counters[0] }, 310},
		{"each under a counter of its own", func(i int) *atomic.Uint64 { return &counters[i] }, 425},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := mustCache(t, Config{MaxBytes: 1 << 28, MaxEntries: 4 * names})
			before := liveBytes()
			for i := range names {
				q := mustQuery(t, fmt.Sprintf("n%d.example", i), wire.TypeA)
				o := &Origin{Deps: [3]Dep{{Counter: tc.counter(i)}}, Mount: "default route", Source: "upstream 192.0.2.53:53"}
				put(c, q, Entry{Answer: receivedAnswer(t, q), Origin: o})
			}
			took, counted := (liveBytes()-before)/names, c.Stats().Bytes/names
			t.Logf("%d bytes an entry, counted as %d", took, counted)
			if took > tc.most || took > counted || counted > took+took/4 || c.Stats().Entries != names {
				t.Errorf("an entry takes %d bytes, counted as %d; want at most %d, counted as what it takes or little more", took, counted, tc.most)
			}
		})
	}
}

// receivedAnswer is q's answer of three addresses, as it comes from an upstream.
func receivedAnswer(t *testing.T, q *wire.Query) *wire.Answer {
	t.Helper()
	rrs := make([]wire.RR, 3)
	for i := range rrs {
		rrs[i] = wire.RR{Owner: wire.Name(q.Name()), Type: wire.TypeA, TTL: 300, Data: []byte{192, 0, 2, byte(i)}}
	}
	a, err := wire.Pack(q, &wire.Reply{RRs: rrs})
	if err == nil {
		a, err = wire.ParseAnswer(a.Append(nil, q, wire.Render{}))
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestPut_EntriesOfOneOriginShareIt(t *testing.T) {
	c := mustCache(t, Config{})
	var route, other atomic.Uint64
	origin := func(change func(o *Origin)) *Origin {
		o := &Origin{Deps: [3]Dep{{Counter: &route, Value: 7}}, Mount: "default route", Source: "upstream 192.0.2.53:53", EDE: 3, EDEText: "old"}
		change(o)
		return o
	}
	put(c, mustQuery(t, "first.example", wire.TypeA), Entry{Origin: origin(func(*Origin) {})})
	first, _ := c.Get(mustQuery(t, "first.example", wire.TypeA), t0)
	if first != nil {
		t.Fatal("a counter stands at another value, and its entry counts")
	}
	route.Store(7)
	first, _ = c.Get(mustQuery(t, "first.example", wire.TypeA), t0)
	for name, change := range map[string]func(o *Origin){
		"the same":        func(*Origin) {},
		"another counter": func(o *Origin) { o.Deps[0].Counter = &other; other.Store(7) },
		"another value":   func(o *Origin) { o.Deps[0].Value = 8; route.Store(8) },
		"one more":        func(o *Origin) { o.Deps[2] = Dep{Counter: &other, Value: other.Load()} },
		"another mount":   func(o *Origin) { o.Mount = "route corp." },
		"another source":  func(o *Origin) { o.Source = "upstream 192.0.2.54:53" },
		"another error":   func(o *Origin) { o.EDE = 4 },
		"another text":    func(o *Origin) { o.EDEText = "young" },
	} {
		route.Store(7)
		q, o := mustQuery(t, "other.example", wire.TypeA), origin(change)
		put(c, mustQuery(t, "first.example", wire.TypeA), Entry{Origin: first.Origin})
		put(c, q, Entry{Origin: o})
		e, st := c.Get(q, t0)
		if st != Fresh || *e.Origin != *o || (e.Origin == first.Origin) != (name == "the same") {
			t.Errorf("%s: %v, %+v", name, st, e)
		}
	}
}
