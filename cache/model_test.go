package cache

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"meibo/resolver/wire"
)

// model is the world that the cache answers about: names whose contents are the
// values of counters. It is naive: it knows what would be right now.
type model struct {
	cache    *Cache
	now      time.Duration
	counters []*atomic.Uint64
	drops    map[string]int // how often a name was dropped
	building []*build
}

// build is an answer being made: what was read when it was begun.
type build struct {
	q       *wire.Query
	name    string
	mark    Mark
	deps    [3]Dep
	dropped int // m.drops[name] then
	life    time.Duration
	key     string
}

var modelNames = []string{"a.test", "b.test", "c.b.test"}

func keyText(q *wire.Query) string {
	return fmt.Sprintf("%q %d %v %v", q.Name(), q.Type, q.DO, q.CD)
}

func drawQuery(t *rapid.T) (*wire.Query, string) {
	name := rapid.SampledFrom(modelNames).Draw(t, "name")
	n, err := wire.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	q := wire.NewQuery(n, wire.TypeA)
	switch rapid.IntRange(0, 9).Draw(t, "variant") { // seldom, so that most questions meet an answer
	case 0:
		q.Type = wire.TypeTXT
	case 1:
		q.DO = true
	case 2:
		q.CD = true
	}
	return q, name
}

// begin reads the counters, as a zone does before it builds.
func (m *model) begin(t *rapid.T) {
	q, name := drawQuery(t)
	b := &build{q: q, name: name, mark: m.cache.Mark(q), dropped: m.drops[name], key: keyText(q)}
	for i := range b.deps {
		if c := rapid.IntRange(-1, len(m.counters)-1).Draw(t, "dep"); c >= 0 {
			b.deps[i] = Dep{m.counters[c], m.counters[c].Load()}
		}
	}
	b.life = time.Duration(rapid.IntRange(0, 3).Draw(t, "life")) * time.Second
	m.building = append(m.building, b)
}

// finish stores an answer, however much has happened since it was begun.
func (m *model) finish(t *rapid.T) {
	if len(m.building) == 0 {
		t.Skip("nothing is being built")
	}
	i := rapid.IntRange(0, len(m.building)-1).Draw(t, "which")
	b := m.building[i]
	m.building = append(m.building[:i], m.building[i+1:]...)
	size := rapid.IntRange(1, 300).Draw(t, "size")
	e := &Entry{Answer: answerOf(b.q, size), Stored: m.now, Origin: &Origin{Deps: b.deps, Source: fmt.Sprintf("%s|%d", b.key, b.dropped)}}
	if b.life > 0 {
		e.Expires = m.now + b.life
	}
	m.cache.Put(b.q, e, b.mark)
}

func answerOf(q *wire.Query, size int) *wire.Answer {
	a, err := wire.Pack(q, &wire.Reply{RRs: []wire.RR{{Owner: wire.Name(q.Name()), Type: wire.TypeTXT, TTL: 1, Data: wire.TXT(string(make([]byte, size)))}}})
	if err != nil {
		panic(err)
	}
	return a
}

// check looks a name up and holds the answer to the world as it is.
func (m *model) check(t *rapid.T) {
	q, name := drawQuery(t)
	e, st := m.cache.Get(q, m.now)
	if st == Miss {
		return // dropped early is allowed, always
	}
	if want := fmt.Sprintf("%s|%d", keyText(q), m.drops[name]); e.Source != want {
		t.Fatalf("got the answer %s, want that of %s", e.Source, want)
	}
	for _, d := range e.Deps {
		if d.Counter != nil && d.Counter.Load() != d.Value {
			t.Fatalf("%v: served after a change: made at %d, now %d", st, d.Value, d.Counter.Load())
		}
	}
	over := e.Expires > 0 && m.now >= e.Expires
	if over != (st == Expired) {
		t.Fatalf("%v at %v, expires at %v", st, m.now, e.Expires)
	}
	if over && m.now >= e.Expires+m.cache.stale {
		t.Fatalf("kept %v past its expiry", m.now-e.Expires)
	}
}

// drop takes out a name, a suffix or everything.
func (m *model) drop(t *rapid.T) {
	names := modelNames
	switch rapid.IntRange(0, 3).Draw(t, "drop") {
	case 0, 1:
		names = []string{rapid.SampledFrom(modelNames).Draw(t, "name")}
		n, _ := wire.ParseName(names[0])
		m.cache.Drop(n)
	case 2:
		names = []string{"b.test", "c.b.test"}
		zone, _ := wire.ParseName("B.test")
		m.cache.DropSuffix(zone)
	case 3:
		m.cache.Flush()
	}
	for _, name := range names {
		m.drops[name]++
	}
}

func TestViews5_DroppedEarlyNeverServedLate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{MaxBytes: rapid.IntRange(3000, 20000).Draw(t, "bytes"), MaxEntries: rapid.IntRange(2, 12).Draw(t, "entries"), Stale: 5 * time.Second}
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		m := &model{cache: c, now: time.Minute, drops: map[string]int{}, counters: []*atomic.Uint64{new(atomic.Uint64), new(atomic.Uint64), new(atomic.Uint64)}}
		t.Repeat(map[string]func(*rapid.T){
			"begin":  m.begin,
			"finish": m.finish,
			"put": func(t *rapid.T) {
				m.building = nil
				m.begin(t)
				m.finish(t)
			},
			"get":    m.check,
			"get2":   m.check,
			"get3":   m.check,
			"change": func(t *rapid.T) { rapid.SampledFrom(m.counters).Draw(t, "counter").Add(1) },
			"pass":   func(t *rapid.T) { m.now += time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond },
			"drop":   m.drop,
			"": func(t *rapid.T) {
				if st := c.Stats(); st.Bytes > cfg.MaxBytes || st.Entries > cfg.MaxEntries || st.Bytes < 0 || (st.Entries == 0) != (st.Bytes == 0) {
					t.Fatalf("beyond %+v: %+v", cfg, st)
				}
			},
		})
	})
}
