package cache

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meibo/resolver/wire"
)

const t0 = time.Hour // a boot time to start from

func mustQuery(t testing.TB, name string, typ wire.Type) *wire.Query {
	t.Helper()
	n, err := wire.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	return wire.NewQuery(n, typ)
}

func mustCache(t testing.TB, cfg Config) *Cache {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func put(c *Cache, q *wire.Query, e Entry) {
	if e.Answer == nil {
		e.Answer = answerOf(q, 10)
	}
	if e.Origin == nil {
		e.Origin = new(Origin)
	}
	if e.Stored == 0 {
		e.Stored = t0
	}
	c.Put(q, &e, c.Mark(q))
}

func TestGet_KeepsApartWhatDiffers(t *testing.T) {
	c := mustCache(t, Config{})
	base := mustQuery(t, "www.example", wire.TypeA)
	put(c, base, Entry{Origin: &Origin{Source: "base"}})
	for name, change := range map[string]func(q *wire.Query){
		"type":  func(q *wire.Query) { q.Type = wire.TypeAAAA },
		"class": func(q *wire.Query) { q.Class = wire.ClassCH },
		"DO":    func(q *wire.Query) { q.DO = true },
		"CD":    func(q *wire.Query) { q.CD = true },
	} {
		q := mustQuery(t, "www.example", wire.TypeA)
		change(q)
		if _, st := c.Get(q, t0); st != Miss {
			t.Errorf("another %s: %v", name, st)
		}
	}
	if e, st := c.Get(mustQuery(t, "WWW.Example", wire.TypeA), t0); st != Fresh || e.Source != "base" {
		t.Errorf("RFC 4343 another letter case: %v", st)
	}
}

func TestGet_ComparesTheKeyInFull(t *testing.T) {
	c := mustCache(t, Config{})
	q := mustQuery(t, "www.example", wire.TypeA)
	other := mustQuery(t, "other.example", wire.TypeA)
	k := keyOf(q)
	s, hash := c.place(&k)
	ok := keyOf(other)
	s.store(newNode(hash, &ok, &Entry{Answer: answerOf(other, 10)}, 300), s.drops.Load()) // a collision
	if _, st := c.Get(q, t0); st != Miss {
		t.Errorf("got another name's answer for an equal hash: %v", st)
	}
}

func TestGet_ByTimeAndCounters(t *testing.T) {
	var counter atomic.Uint64
	counter.Store(7)
	for _, tc := range []struct {
		name    string
		entry   Entry
		at      time.Duration
		changed bool
		want    State
	}{
		{"in time", Entry{Expires: t0 + 10*time.Second}, t0 + 9*time.Second, false, Fresh},
		{"at its expiry", Entry{Expires: t0 + 10*time.Second}, t0 + 10*time.Second, false, Expired},
		{"long after", Entry{Expires: t0 + 10*time.Second}, t0 + 24*time.Hour, false, Expired},
		{"too long after", Entry{Expires: t0 + 10*time.Second}, t0 + 10*time.Second + 24*time.Hour, false, Miss},
		{"without expiry", Entry{}, t0 + 1000*time.Hour, false, Fresh},
		{"after a change", Entry{Origin: &Origin{Deps: [3]Dep{{}, {}, {&counter, 7}}}}, t0, true, Miss},
		{"expired and after a change", Entry{Expires: t0, Origin: &Origin{Deps: [3]Dep{{&counter, 7}}}}, t0, true, Miss},
		{"made before the change, stored after", Entry{Origin: &Origin{Deps: [3]Dep{{&counter, 6}}}}, t0, false, Miss},
	} {
		counter.Store(7)
		c, q := mustCache(t, Config{}), mustQuery(t, "www.example", wire.TypeA)
		put(c, q, tc.entry)
		if tc.changed {
			counter.Add(1)
		}
		if e, st := c.Get(q, tc.at); st != tc.want || (e == nil) != (st == Miss) {
			t.Errorf("%s: got %v, want %v", tc.name, st, tc.want)
		}
	}
}

func TestAge(t *testing.T) {
	e := Entry{Stored: t0, Ages: true}
	for at, want := range map[time.Duration]uint32{t0 - time.Second: 0, t0: 0, t0 + 1900*time.Millisecond: 1, t0 + time.Minute: 60} {
		if got := e.Age(at); got != want {
			t.Errorf("age at %v: got %d, want %d", at, got, want)
		}
	}
	if e.Ages = false; e.Age(t0+time.Hour) != 0 {
		t.Error("an answer of a view aged")
	}
}

func TestDenial_CoversTheOtherTypes_RFC2308_5(t *testing.T) {
	c := mustCache(t, Config{})
	put(c, mustQuery(t, "nx.example", wire.TypeA), Entry{Expires: t0 + time.Minute, NameError: true})
	put(c, mustQuery(t, "nodata.example", wire.TypeA), Entry{Expires: t0 + time.Minute})
	for name, want := range map[string]bool{"nx.example": true, "NX.example": true, "nodata.example": false, "x.nx.example": false} {
		if _, got := c.Denial(mustQuery(t, name, wire.TypeTXT), t0); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if _, got := c.Denial(mustQuery(t, "nx.example", wire.TypeTXT), t0+time.Minute); got {
		t.Error("an expired denial was found")
	}
	if _, st := c.Get(mustQuery(t, "nx.example", 0), t0); st != Miss {
		t.Errorf("type 0 found the denial: %v", st)
	}
}

func TestDrop(t *testing.T) {
	c := mustCache(t, Config{})
	names := []string{"a.example", "b.a.example", "xa.example", "example"}
	fill := func() {
		for _, n := range names {
			put(c, mustQuery(t, n, wire.TypeA), Entry{})
			put(c, mustQuery(t, n, wire.TypeTXT), Entry{})
		}
	}
	left := func() string {
		s := ""
		for _, n := range names {
			_, a := c.Get(mustQuery(t, n, wire.TypeA), t0)
			_, b := c.Get(mustQuery(t, n, wire.TypeTXT), t0)
			if a == Fresh && b == Fresh {
				s += n + " "
			}
		}
		return s
	}
	name := func(s string) wire.Name { n, _ := wire.ParseName(s); return n }
	for what, tc := range map[string]struct {
		do   func()
		want string
	}{
		"one name":  {func() { c.Drop(name("A.example")) }, "b.a.example xa.example example "},
		"two names": {func() { c.Drop(name("a.example"), name("example")) }, "b.a.example xa.example "},
		"no name":   {func() { c.Drop() }, "a.example b.a.example xa.example example "},
		"suffix":    {func() { c.DropSuffix(name("A.example")) }, "xa.example example "},
		"all":       {func() { c.Flush() }, ""},
	} {
		fill()
		tc.do()
		if got := left(); got != tc.want {
			t.Errorf("%s: left %q, want %q", what, got, tc.want)
		}
	}
	if st := c.Stats(); st.Entries != 0 && st.Bytes == 0 {
		t.Errorf("accounts: %+v", st)
	}
}

func TestEviction_SparesWhatIsAskedForAndTakesTheExpiredFirst(t *testing.T) {
	c := mustCache(t, Config{MaxEntries: 4, MaxBytes: 1 << 20})
	q := func(i int) *wire.Query { return mustQuery(t, fmt.Sprintf("n%d.example", i), wire.TypeA) }
	put(c, q(0), Entry{Expires: t0 + time.Second}) // will be expired, and was asked for
	put(c, q(1), Entry{})                          // asked for
	put(c, q(2), Entry{})                          // not asked for
	put(c, q(3), Entry{})
	c.Get(q(0), t0)
	c.Get(q(1), t0)
	later := t0 + time.Minute
	put(c, q(4), Entry{Stored: later})
	put(c, q(5), Entry{Stored: later})
	for i, want := range map[int]State{0: Miss, 1: Fresh, 2: Miss, 3: Fresh} {
		if _, st := c.Peek(q(i), later); st != want {
			t.Errorf("entry %d: %v, want %v", i, st, want)
		}
	}
}

func TestBoundsHold(t *testing.T) {
	c := mustCache(t, Config{MaxBytes: 1 << 20, MaxEntries: 1000})
	for i := range 5000 {
		q := mustQuery(t, fmt.Sprintf("n%d.example", i), wire.TypeA)
		put(c, q, Entry{Answer: answerOf(q, 1+i%3000)})
	}
	st := c.Stats()
	if st.Bytes > 1<<20 || st.Entries > 1000 || st.Evicted == 0 || st.Entries < 100 {
		t.Errorf("got %+v", st)
	}
	big := mustQuery(t, "big.example", wire.TypeTXT)
	tiny := mustCache(t, Config{MaxBytes: 1000})
	put(tiny, big, Entry{Answer: answerOf(big, 2000)})
	if st := tiny.Stats(); st.Entries != 0 || st.Refused != 1 {
		t.Errorf("an answer beyond the whole cache: %+v", st)
	}
}

func TestNew_RefusesNegativeLimits(t *testing.T) {
	for _, cfg := range []Config{{MaxBytes: -1}, {MaxEntries: -1}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func TestGet_AllocatesNothing(t *testing.T) {
	c, q := mustCache(t, Config{}), mustQuery(t, "www.example", wire.TypeA)
	put(c, q, Entry{})
	miss := mustQuery(t, "a.rather.long.name.that.does.not.fit.a.small.buffer.example", wire.TypeA)
	if n := testing.AllocsPerRun(100, func() { c.Get(q, t0); c.Get(miss, t0); c.Mark(q) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestConcurrentUse(t *testing.T) {
	c := mustCache(t, Config{MaxEntries: 50})
	var counter atomic.Uint64
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				q := mustQuery(t, fmt.Sprintf("n%d.example", i%80), wire.TypeA)
				before := counter.Load() // whatever is fresh now was made at this value or later
				if e, st := c.Get(q, t0); st == Fresh && e.Deps[0].Value < before {
					t.Errorf("served an answer of %d after the change to %d", e.Deps[0].Value, before)
				}
				mark := c.Mark(q)
				c.Put(q, &Entry{Answer: answerOf(q, 10), Origin: &Origin{Deps: [3]Dep{{&counter, counter.Load()}}}, Stored: t0}, mark)
				if i%50 == g {
					counter.Add(1)
				}
				if i%100 == g {
					c.Flush()
				}
			}
		})
	}
	wg.Wait()
}

func TestBootTime_RunsWithTheMonotonicClock(t *testing.T) {
	a := BootTime()
	if b := BootTime(); b < a || a <= 0 {
		t.Errorf("went from %v to %v", a, b)
	}
}

func TestCollector(t *testing.T) {
	c := mustCache(t, Config{})
	put(c, mustQuery(t, "www.example", wire.TypeA), Entry{})
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c.Collector())
	if families, err := reg.Gather(); err != nil || len(families) != 7 {
		t.Errorf("%d families, %v", len(families), err)
	}
}

func BenchmarkGet(b *testing.B) {
	c, q := mustCache(b, Config{}), mustQuery(b, "www.example", wire.TypeA)
	put(c, q, Entry{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Get(q, t0)
		}
	})
}

// Denials of whole names are looked for only while there are some: the count of them must follow every way in and out.
func TestDenial_IsCounted(t *testing.T) {
	c := mustCache(t, Config{})
	q := mustQuery(t, "www.example", wire.TypeA)
	denial := func() *Entry {
		return &Entry{Answer: answerOf(q, 10), Origin: new(Origin), NameError: true, Negative: true, Stored: t0}
	}
	put := func() { c.Put(q, denial(), c.Mark(q)) }
	for _, tc := range []struct {
		name string
		do   func()
		want bool
	}{
		{"nothing", func() {}, false},
		{"put", put, true},
		{"put again", put, true},
		{"dropped", func() { c.Drop("\x03www\x07example\x00") }, false},
		{"dropped again", func() { c.Drop("\x03www\x07example\x00") }, false},
		{"put after that", put, true},
		{"flushed", c.Flush, false},
	} {
		tc.do()
		k := keyOf(q).denial()
		s, _ := c.place(&k)
		if _, ok := c.Denial(q, t0); ok != tc.want || (s.denials.Load() == 1) != tc.want {
			t.Errorf("%s: found %v, counted %d, want %v", tc.name, ok, s.denials.Load(), tc.want)
		}
	}
}

// What the answer is to is what the entry is found by.
func TestPut_AnAnswerToAnotherQuestionIsRefused(t *testing.T) {
	c := mustCache(t, Config{})
	q, other := mustQuery(t, "www.example", wire.TypeA), mustQuery(t, "other.example", wire.TypeA)
	put(c, q, Entry{Answer: answerOf(other, 10)})
	for _, q := range []*wire.Query{q, other} {
		if _, st := c.Get(q, t0); st != Miss {
			t.Errorf("%s: %v, want a miss", wire.Name(q.Name()), st)
		}
	}
	if st := c.Stats(); st.Refused != 1 || st.Entries != 0 {
		t.Errorf("%d refused, %d held", st.Refused, st.Entries)
	}
}
