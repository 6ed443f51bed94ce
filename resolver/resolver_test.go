package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"meibo/cache"
	"meibo/resolver"
	"meibo/resolver/resolvertest"
	"meibo/resolver/wire"
)

// zone is a resolver.Zone of func fields.
type zone struct {
	answer  func(q *wire.Query) (resolver.Result, resolver.Outcome)
	resolve func(ctx context.Context, q *wire.Query) (resolver.Result, error)
}

func (z *zone) Answer(q *wire.Query) (resolver.Result, resolver.Outcome) { return z.answer(q) }
func (z *zone) Resolve(ctx context.Context, q *wire.Query) (resolver.Result, error) {
	return z.resolve(ctx, q)
}

// says is a zone that answers everything with one TXT record.
func says(text string) *zone {
	return &zone{answer: func(q *wire.Query) (resolver.Result, resolver.Outcome) {
		return txt(q, text), resolver.Answered
	}}
}

// notMine is a zone of nothing.
var notMine = &zone{answer: func(*wire.Query) (resolver.Result, resolver.Outcome) { return resolver.Result{}, resolver.NotMine }}

func txt(q *wire.Query, text string) resolver.Result {
	a, err := wire.Pack(q, &wire.Reply{RRs: []wire.RR{{Owner: wire.Name(q.Name()), Type: q.Type, Data: wire.TXT(text)}}})
	if err != nil {
		panic(err)
	}
	return resolver.Result{Answer: a, Source: text}
}

func mustName(s string) wire.Name {
	n, err := wire.ParseName(s)
	if err != nil {
		panic(err)
	}
	return n
}

func mount(suffix string, rank resolver.Rank, z resolver.Zone) resolver.Mount {
	return resolver.Mount{Suffix: mustName(suffix), Rank: rank, Zone: z, Name: suffix}
}

// newResolver is a resolver over a table, run until the test ends.
func newResolver(t *testing.T, table resolver.Table, change ...func(*resolver.Config)) (*resolver.Resolver, *cache.Cache) {
	t.Helper()
	c, err := cache.New(cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	cfg := resolver.Config{Cache: c, Table: table, Now: func() time.Duration { return time.Since(began) + time.Hour }}
	for _, f := range change {
		f(&cfg)
	}
	r, err := resolver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r, c
}

// said is the text of the TXT record a name is answered with, or the response code.
func said(t *testing.T, r *resolver.Resolver, name string, typ uint16) string {
	t.Helper()
	m := resolvertest.Ask(t, r, resolvertest.Query(name, typ), false)
	if len(m.Answer) == 0 {
		return dns.RcodeToString[m.Rcode]
	}
	if txt, ok := m.Answer[0].(*dns.TXT); ok {
		return txt.Txt[0]
	}
	return strings.Join(resolvertest.Records(m.Answer), "; ")
}

func TestOrderOfZones(t *testing.T) {
	hosts := &zone{answer: func(q *wire.Query) (resolver.Result, resolver.Outcome) {
		if string(q.Name()) == string(mustName("web.service.consul")) {
			return txt(q, "hosts"), resolver.Answered
		}
		return resolver.Result{}, resolver.NotMine
	}}
	r, _ := newResolver(t, resolver.Table{Whole: hosts, Mounts: []resolver.Mount{
		mount(".", resolver.RankDefault, says("default")),
		mount("consul", resolver.RankOwn, says("own")),
		mount("dc2.consul", resolver.RankRoute, says("route dc2")),
		mount("local", resolver.RankSpecial, says("special")),
		mount("local", resolver.RankRoute, says("route local")),
		mount("test", resolver.RankSpecial, says("special")),
		mount("10.in-addr.arpa", resolver.RankOwn, notMine),
		mount("10.in-addr.arpa", resolver.RankSpecial, says("special reverse")),
		mount("1.10.in-addr.arpa", resolver.RankOwn, notMine),
		mount("168.192.in-addr.arpa", resolver.RankOwn, notMine),
	}})
	for _, tc := range []struct{ name, want string }{
		{"web.service.consul", "hosts"},              // whole names before all
		{"db.service.consul", "own"},                 // then the longest suffix
		{"consul", "own"},                            // its apex included
		{"db.service.dc2.consul", "route dc2"},       // a longer one is nearer
		{"xconsul", "default"},                       // on label borders
		{"printer.local", "route local"},             // rank decides ties: a route before a special name
		{"a.test", "special"},                        // a special name before the default
		{"DB.Service.CONSUL", "own"},                 // RFC 4343
		{"4.3.2.10.in-addr.arpa", "special reverse"}, // not mine: the next of the same suffix
		{"4.3.1.10.in-addr.arpa", "special reverse"}, // not mine: the next shorter suffix
		{"4.3.168.192.in-addr.arpa", "default"},      // down to the default
		{".", "default"},
	} {
		if got := said(t, r, tc.name, dns.TypeTXT); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestDSIsAnsweredByTheParentSide_RFC4035_3_1_4_1(t *testing.T) {
	r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{
		mount("corp.example", resolver.RankRoute, says("corp")), mount(".", resolver.RankDefault, says("parent")),
	}})
	for name, want := range map[string]string{"corp.example": "parent", "x.corp.example": "corp"} {
		m := resolvertest.Ask(t, r, resolvertest.Query(name, dns.TypeDS), false)
		if len(m.Answer) != 1 {
			t.Fatalf("%s: %s", name, resolvertest.Text(m))
		}
		x, err := r.Explain(t.Context(), wire.NewQuery(mustName(name), wire.TypeDS))
		if err != nil || x.Source != want {
			t.Errorf("%s DS: answered by %q, want %q", name, x.Source, want)
		}
	}
}

func TestNoRouteIsRefused_RFC8914_4_21(t *testing.T) {
	r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{mount("consul", resolver.RankOwn, says("own"))}})
	m := resolvertest.Ask(t, r, resolvertest.Query("example.com", dns.TypeA), false)
	if code, _, _ := resolvertest.EDE(m); m.Rcode != dns.RcodeRefused || code != 20 {
		t.Errorf("got %s", resolvertest.Text(m))
	}
}

func TestWhatThePacketIsDecides(t *testing.T) {
	r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{mount(".", resolver.RankDefault, says("x"))}},
		func(c *resolver.Config) { c.Version, c.ServerID = "meibo test", "" })
	query := func(change func(m *dns.Msg)) []byte {
		m := resolvertest.Query("www.example", dns.TypeTXT)
		change(m)
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	class := func(name string, class uint16) []byte {
		return query(func(m *dns.Msg) { m.Question[0].Name, m.Question[0].Qclass = name, class })
	}
	typ := func(typ uint16) []byte { return query(func(m *dns.Msg) { m.Question[0].Qtype = typ }) }
	for _, tc := range []struct {
		name  string
		query []byte
		want  string
	}{
		{"RFC 1035 a response is dropped", query(func(m *dns.Msg) { m.Response = true }), "dropped"},
		{"RFC 1035 a short packet is dropped", []byte{1, 2, 3}, "dropped"},
		{"RFC 9619 two questions", query(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), "FORMERR"},
		{"RFC 9619 no question", query(func(m *dns.Msg) { m.Question = nil }), "FORMERR"},
		{"octets after the message are passed over", append(query(func(*dns.Msg) {}), 0), "NOERROR"},
		{"RFC 6891 6.1.1 two OPT", query(func(m *dns.Msg) { m.Extra = append(m.Extra, m.Extra[0]) }), "FORMERR"},
		{"RFC 6891 6.1.3 version 1", query(func(m *dns.Msg) { m.IsEdns0().SetVersion(1) }), dns.RcodeToString[dns.RcodeBadVers]},
		{"RFC 1996 NOTIFY", query(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), "NOTIMP"},
		{"RFC 2136 UPDATE", query(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), "NOTIMP"},
		{"RFC 4892 version.bind", class("Version.BIND.", dns.ClassCHAOS), "NOERROR"},
		{"RFC 4892 id.server not told", class("id.server.", dns.ClassCHAOS), "REFUSED"},
		{"other names of CHAOS", class("www.example.", dns.ClassCHAOS), "REFUSED"},
		{"class HS", class("www.example.", dns.ClassHESIOD), "REFUSED"},
		{"class ANY", class("www.example.", dns.ClassANY), "REFUSED"},
		{"RFC 5936 AXFR", typ(dns.TypeAXFR), "REFUSED"},
		{"RFC 1995 IXFR", typ(dns.TypeIXFR), "REFUSED"},
		{"a question for OPT", typ(dns.TypeOPT), "FORMERR"},
		{"RFC 2930 TKEY", typ(dns.TypeTKEY), "NOTIMP"},
	} {
		m := resolvertest.AskRaw(t, r, tc.query, false)
		got, _, _ := strings.Cut(resolvertest.Text(m), "\n")
		if got, _, _ = strings.Cut(got, " "); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
		if m != nil && !m.RecursionAvailable {
			t.Errorf("%s: RA is clear", tc.name)
		}
	}
}

func TestOwnZonesAnswerWithoutRD(t *testing.T) {
	r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{mount("consul", resolver.RankOwn, says("own"))}})
	req := resolvertest.Query("a.consul", dns.TypeTXT)
	req.RecursionDesired = false
	if m := resolvertest.Ask(t, r, req, false); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
		t.Errorf("got %s", resolvertest.Text(m))
	}
}

func TestPanicCostsOneQuestion(t *testing.T) {
	broken := &zone{
		answer: func(q *wire.Query) (resolver.Result, resolver.Outcome) {
			switch {
			case strings.HasPrefix(string(q.Name()), "\x05later"):
				return resolver.Result{}, resolver.Later
			case strings.HasPrefix(string(q.Name()), "\x03nil"):
				return resolver.Result{}, resolver.Answered // without an answer
			}
			panic("in Answer")
		},
		resolve: func(context.Context, *wire.Query) (resolver.Result, error) { panic("in Resolve") },
	}
	var route atomic.Uint64
	r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{
		mount("consul", resolver.RankOwn, broken), mount("fine", resolver.RankOwn, says("fine")),
		{Suffix: wire.Root, Rank: resolver.RankDefault, Upstream: panicking{}, Route: &route, Name: "default"},
	}})
	for _, name := range []string{"now.consul", "later.consul", "nil.consul", "www.example"} {
		if got := said(t, r, name, dns.TypeTXT); got != "SERVFAIL" {
			t.Errorf("%s: got %s, want SERVFAIL", name, got)
		}
	}
	if got := said(t, r, "a.fine", dns.TypeTXT); got != "fine" {
		t.Errorf("after the panics: got %q", got)
	}
}

type panicking struct{}

func (panicking) Exchange(context.Context, *wire.Query) (resolver.Result, error) {
	panic("in Exchange")
}

// blocked is a zone whose answers wait until open is closed.
func blocked(open <-chan struct{}) *zone {
	return &zone{
		answer: func(*wire.Query) (resolver.Result, resolver.Outcome) { return resolver.Result{}, resolver.Later },
		resolve: func(ctx context.Context, q *wire.Query) (resolver.Result, error) {
			select {
			case <-open:
				return txt(q, "at last"), nil
			case <-ctx.Done():
				return resolver.Result{}, ctx.Err()
			}
		},
	}
}

// send is ServeDNS for a client that doesn't wait; the reply comes on the channel.
func send(r *resolver.Resolver, name string, id uint16) <-chan *dns.Msg {
	req := resolvertest.Query(name, dns.TypeTXT)
	req.Id = id
	b, _ := req.Pack()
	q := &wire.Query{Client: netip.MustParseAddrPort("127.0.0.1:999")}
	v := q.Parse(b)
	ch := make(chan *dns.Msg, 2)
	deliver := func(_ *wire.Query, msg []byte) {
		m := new(dns.Msg)
		if m.Unpack(msg) == nil {
			ch <- m
		}
	}
	if out := r.ServeDNS(q, v, nil, deliver); out != nil {
		deliver(q, out)
	}
	clear(b) // the loop uses its buffer again
	return ch
}

func TestFlightsAreBounded(t *testing.T) {
	for _, c := range []struct {
		name             string
		flights, waiters int
		boards           map[string]int // how many ask for a name and wait
		refused          map[string]string
	}{
		{"questions", 2, 100, map[string]int{"A.consul": 3, "b.consul": 1}, map[string]string{"c.consul": "questions"}},
		{"clients in all", 10, 4, map[string]int{"A.consul": 2, "b.consul": 2}, map[string]string{"a.consul": "clients", "c.consul": "clients"}},
		{"clients of one name", 10, 6, map[string]int{"A.consul": 4}, map[string]string{"a.consul": "clients"}},
		{"two hundred clients of one name", 0, 0, map[string]int{"A.consul": 200}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				open := make(chan struct{})
				r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{mount("consul", resolver.RankOwn, blocked(open))}},
					func(cfg *resolver.Config) { cfg.MaxFlights, cfg.MaxWaiters = c.flights, c.waiters })
				waiting := map[string][]<-chan *dns.Msg{}
				for _, name := range slices.Sorted(maps.Keys(c.boards)) {
					for range c.boards[name] {
						waiting[name] = append(waiting[name], send(r, name, uint16(len(waiting[name]))))
					}
				}
				for name, why := range c.refused {
					m := <-send(r, name, 9)
					code, text, ok := resolvertest.EDE(m)
					if m.Rcode != dns.RcodeServerFailure || !ok || code != 0 || !strings.Contains(text, why) {
						t.Errorf("%s beyond the limit: got %s, want SERVFAIL that speaks of %s", name, resolvertest.Text(m), why)
					}
				}
				synctest.Wait()
				close(open)
				for name, chs := range waiting {
					for i, ch := range chs {
						m := <-ch
						if m.Id != uint16(i) || m.Question[0].Name != name+"." || len(m.Answer) != 1 {
							t.Errorf("waiter %d of %s got %d %s", i, name, m.Id, resolvertest.Text(m))
						}
					}
				}
				synctest.Wait()
				if m := <-send(r, "later.consul", 7); len(m.Answer) != 1 { // the room is free again
					t.Errorf("afterwards: %s", resolvertest.Text(m))
				}
			})
		})
	}
}

func TestFlightEndsWithItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{mount("consul", resolver.RankOwn, blocked(nil))}})
		began := time.Now()
		m := <-send(r, "a.consul", 1)
		if d := time.Since(began); m.Rcode != dns.RcodeServerFailure || d != resolver.DefaultDeadline {
			t.Errorf("after %v: %s", d, resolvertest.Text(m))
		}
		if code, text, _ := resolvertest.EDE(m); code != 22 || !strings.Contains(text, "consul") {
			t.Errorf("Extended Error %d %q", code, text)
		}
	})
}

func TestRunEndsItsFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := cache.New(cache.Config{})
		r, err := resolver.New(resolver.Config{Cache: c, Table: resolver.Table{Mounts: []resolver.Mount{mount("consul", resolver.RankOwn, blocked(nil))}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		before := send(r, "a.consul", 1)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		for _, ch := range []<-chan *dns.Msg{before, send(r, "b.consul", 2)} {
			if m := <-ch; m.Rcode != dns.RcodeServerFailure {
				t.Errorf("got %s", resolvertest.Text(m))
			}
		}
	})
}

func TestViews3_AnEntryHoldsTheValuesReadBeforeItWasBuilt(t *testing.T) {
	var name, epoch atomic.Uint64
	built := 0
	z := &zone{answer: func(q *wire.Query) (resolver.Result, resolver.Outcome) {
		built++
		res := txt(q, fmt.Sprint("state ", built))
		res.Deps = [2]cache.Dep{{Counter: &name, Value: name.Load()}, {Counter: &epoch, Value: epoch.Load()}}
		if built == 2 {
			name.Add(1) // the change comes while the answer is being built
		}
		return res, resolver.Answered
	}}
	r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{mount("consul", resolver.RankOwn, z)}})
	for _, step := range []struct {
		what string
		do   func()
		want string
	}{
		{"first", func() {}, "state 1"},
		{"again, from the cache", func() {}, "state 1"},
		{"the name changed", func() { name.Add(1) }, "state 2"},
		{"it changed while that was built", func() {}, "state 3"},
		{"again, from the cache", func() {}, "state 3"},
		{"the epoch changed", func() { epoch.Add(1) }, "state 4"},
	} {
		step.do()
		if got := said(t, r, "web.service.consul", dns.TypeTXT); got != step.want {
			t.Errorf("%s: got %q, want %q", step.what, got, step.want)
		}
	}
}

func TestViews6_TTLShownAndLifeAreTwoThings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var counter atomic.Uint64
		built := 0
		life := time.Duration(0)
		z := &zone{answer: func(q *wire.Query) (resolver.Result, resolver.Outcome) {
			built++
			a, _ := wire.Pack(q, &wire.Reply{RRs: []wire.RR{{Owner: wire.Name(q.Name()), Type: wire.TypeTXT, TTL: 7, Data: wire.TXT("x")}}})
			return resolver.Result{Answer: a, Life: life, Deps: [2]cache.Dep{{Counter: &counter, Value: counter.Load()}}}, resolver.Answered
		}}
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{mount("consul", resolver.RankOwn, z)}})
		ttl := func() uint32 {
			return resolvertest.Ask(t, r, resolvertest.Query("a.consul", dns.TypeTXT), false).Answer[0].Header().Ttl
		}
		ttl()
		time.Sleep(1000 * time.Hour)
		if got := ttl(); got != 7 || built != 1 {
			t.Errorf("long after: TTL %d, built %d times; want the full TTL from the cache", got, built)
		}
		counter.Add(1)
		life = 10 * time.Second // a part fetched upstream bounds it
		ttl()
		time.Sleep(9 * time.Second)
		ttl()
		if built != 2 {
			t.Errorf("within its life: built %d times", built)
		}
		time.Sleep(2 * time.Second)
		if ttl(); built != 3 {
			t.Errorf("after its life: built %d times", built)
		}
	})
}

func TestViews5_WhoeverAsksAfterAChangeIsAnsweredByIt(t *testing.T) {
	// A client that joins a flight whose answer was built before a change, but asks
	// after it, must not get the old one.
	synctest.Test(t, func(t *testing.T) {
		var counter atomic.Uint64
		open := make(chan struct{})
		z := &zone{
			answer: func(*wire.Query) (resolver.Result, resolver.Outcome) { return resolver.Result{}, resolver.Later },
			resolve: func(ctx context.Context, q *wire.Query) (resolver.Result, error) {
				v := counter.Load()
				res := txt(q, fmt.Sprint("state ", v))
				res.Deps[0] = cache.Dep{Counter: &counter, Value: v}
				if v == 0 {
					<-open // slow after it read the state
				}
				return res, nil
			},
		}
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{mount("consul", resolver.RankOwn, z)}})
		early := send(r, "a.consul", 1)
		synctest.Wait()
		counter.Add(1)
		late := send(r, "a.consul", 2)
		synctest.Wait()
		close(open)
		<-early
		if m := <-late; m.Answer[0].(*dns.TXT).Txt[0] != "state 1" {
			t.Errorf("asked after the change, got %s", resolvertest.Text(m))
		}
	})
}

func TestDropDuringAFlightIsNotUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := resolvertest.NewMemory()
		up.Set("www.example.", dns.TypeTXT, resolvertest.Rule{Records: []string{`www.example. 300 IN TXT "upstream"`}})
		up.SetDelay(time.Second)
		r, c := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}})
		first := send(r, "www.example", 1)
		synctest.Wait()
		c.Drop(mustName("WWW.example")) // a static record came
		<-first
		said(t, r, "www.example", dns.TypeTXT)
		if n := up.Asked(); n != 2 {
			t.Errorf("asked %d times, want the answer from before the drop not to be kept", n)
		}
	})
}

func TestSetTable_DropsNamesWhoseMountChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def, corp := resolvertest.NewMemory(), resolvertest.NewMemory()
		for _, name := range []string{"www.example.", "x.corp.example."} {
			def.Set(name, dns.TypeTXT, resolvertest.Rule{Records: []string{name + ` 300 IN TXT "default"`}})
			corp.Set(name, dns.TypeTXT, resolvertest.Rule{Records: []string{name + ` 300 IN TXT "corp"`}})
		}
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{def.Mount(wire.Root)}})
		for _, name := range []string{"www.example", "x.corp.example"} {
			if got := said(t, r, name, dns.TypeTXT); got != "default" {
				t.Fatalf("%s: got %q", name, got)
			}
		}
		with := resolver.Table{Mounts: []resolver.Mount{def.Mount(wire.Root), corp.Mount(mustName("corp.example"))}}
		for _, step := range []struct {
			table resolver.Table
			want  string
			asked int // the default route, in all
		}{
			{with, "corp", 2}, {with, "corp", 2}, {resolver.Table{Mounts: []resolver.Mount{def.Mount(wire.Root)}}, "default", 3},
		} {
			if err := r.SetTable(step.table); err != nil {
				t.Fatal(err)
			}
			if got := said(t, r, "x.corp.example", dns.TypeTXT); got != step.want {
				t.Errorf("x.corp.example: got %q, want %q", got, step.want)
			}
			said(t, r, "www.example", dns.TypeTXT)
			if def.Asked() != step.asked {
				t.Errorf("the default route was asked %d times, want %d: a reload keeps its answers", def.Asked(), step.asked)
			}
		}
		if err := r.SetTable(resolver.Table{Mounts: []resolver.Mount{{Suffix: wire.Root}}}); err == nil {
			t.Error("a mount of nothing was taken")
		}
	})
}

// chasing is a zone whose names are aliases of what next says.
func chasing(r **resolver.Resolver, next func(name string) string) *zone {
	return &zone{
		answer: func(*wire.Query) (resolver.Result, resolver.Outcome) { return resolver.Result{}, resolver.Later },
		resolve: func(ctx context.Context, q *wire.Query) (resolver.Result, error) {
			res, err := (*r).Lookup(ctx, wire.NewQuery(mustName(next(wire.Name(q.Name()).String())), q.Type))
			if err != nil {
				return resolver.Result{}, err
			}
			return txt(q, wire.Name(q.Name()).String()+" < "+res.Source), nil
		},
	}
}

func TestLookup_CutsLoopsAndLongChains(t *testing.T) {
	var r *resolver.Resolver
	n := func(name string) int { var i int; fmt.Sscanf(name, "n%d.", &i); return i }
	z := chasing(&r, func(name string) string {
		if strings.HasPrefix(name, "loop") {
			return map[string]string{"loop1.consul.": "loop2.consul", "loop2.consul.": "loop1.consul"}[name]
		}
		if i := n(name); i > 1 {
			return fmt.Sprintf("n%d.consul", i-1)
		}
		return "end.example"
	})
	r, _ = newResolver(t, resolver.Table{Mounts: []resolver.Mount{mount("consul", resolver.RankOwn, z), mount("example", resolver.RankOwn, says("end"))}})
	if got := said(t, r, "n8.consul", dns.TypeTXT); !strings.HasPrefix(got, "n8.consul. < n7.consul.") {
		t.Errorf("eight aliases: got %q", got)
	}
	for name, want := range map[string]string{"n20.consul": "more than 8", "loop1.consul": "lead back"} {
		m := resolvertest.Ask(t, r, resolvertest.Query(name, dns.TypeTXT), false)
		if _, text, _ := resolvertest.EDE(m); m.Rcode != dns.RcodeServerFailure || !strings.Contains(text, want) {
			t.Errorf("%s: got %s, want SERVFAIL that says %q", name, resolvertest.Text(m), want)
		}
	}
}

func TestLookup_AgesWhatItFinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := resolvertest.NewMemory()
		up.Set("www.example.", dns.TypeA, resolvertest.Rule{Records: []string{"www.example. 300 IN A 192.0.2.1"}})
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}})
		q := wire.NewQuery(mustName("www.example"), wire.TypeA)
		for _, want := range []uint32{300, 200} {
			res, err := r.Lookup(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if rr := res.Answer.RRs()[0]; rr.TTL != want || res.Life != time.Duration(want)*time.Second {
				t.Errorf("TTL %d, life %v, want %d", rr.TTL, res.Life, want)
			}
			time.Sleep(100 * time.Second)
		}
		up.SetState(resolvertest.Silent)
		time.Sleep(time.Hour)
		began := time.Now()
		res, err := r.Lookup(t.Context(), q)
		if err != nil || res.Answer.RRs()[0].TTL != 30 || res.Life != 30*time.Second || time.Since(began) != resolver.DefaultStaleWait {
			t.Errorf("with the upstream silent: %+v, %v after %v; want the stale answer after DefaultStaleWait", res, err, time.Since(began))
		}
		time.Sleep(10 * time.Second) // let the flight end
		if _, err := r.Lookup(t.Context(), wire.NewQuery(mustName("other.example"), wire.TypeA)); err == nil {
			t.Error("no error for a name nobody knows")
		} else if f := new(resolver.Failure); !errors.As(err, &f) {
			t.Errorf("got %v, want a Failure", err)
		}
	})
}

// When an expired answer has moved, because its route is another, it doesn't stand in for
// a late one any more: clients wait for what comes, whether they or the change came first.
func TestLateFlight_WhoseExpiredAnswerMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := resolvertest.NewMemory()
		up.Set("www.example.", dns.TypeA, resolvertest.Rule{Records: []string{"www.example. 300 IN A 192.0.2.1"}})
		m := up.Mount(wire.Root)
		route := new(atomic.Uint64)
		m.Route = route
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{m}})
		ask := func() *dns.Msg { return resolvertest.Ask(t, r, resolvertest.Query("www.example", dns.TypeA), false) }
		q := wire.NewQuery(mustName("www.example"), wire.TypeA)
		wantStale := func(m *dns.Msg) {
			t.Helper()
			if ede, _, _ := resolvertest.EDE(m); m.Rcode != dns.RcodeSuccess || ede != wire.EDEStale {
				t.Errorf("got %s, want the expired answer", resolvertest.Text(m))
			}
		}
		for _, before := range []bool{false, true} { // the change comes after, or before, the answer is late
			up.SetState(resolvertest.Up)
			ask()
			time.Sleep(time.Hour)
			up.Set("www.example.", dns.TypeA, resolvertest.Rule{Records: []string{"www.example. 300 IN A 192.0.2.2"}, Delay: 1200 * time.Millisecond})
			var wg sync.WaitGroup
			wg.Go(func() {
				if first := ask(); before {
					wantFresh(t, first)
				} else {
					wantStale(first)
				}
			})
			synctest.Wait()
			if !before {
				time.Sleep(resolver.DefaultStaleWait + time.Millisecond)
			}
			route.Add(1)
			wg.Go(func() { wantFresh(t, ask()) })
			wg.Go(func() {
				if res, err := r.Lookup(t.Context(), q); err != nil || len(res.Answer.RRs()) != 1 {
					t.Errorf("lookup: got %v, want the answer that comes", err)
				}
			})
			wg.Wait()
			time.Sleep(10 * time.Second)
		}
	})
}

func wantFresh(t *testing.T, m *dns.Msg) {
	t.Helper()
	if _, _, ede := resolvertest.EDE(m); m.Rcode != dns.RcodeSuccess || ede {
		t.Errorf("got %s, want the answer that comes", resolvertest.Text(m))
	}
}

func TestExplain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := resolvertest.NewMemory()
		up.Set("www.example.", dns.TypeA, resolvertest.Rule{Records: []string{"www.example. 300 IN A 192.0.2.1"}})
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root), mount("consul", resolver.RankOwn, says("view"))}})
		explain := func(name string, typ wire.Type) resolver.Explanation {
			x, err := r.Explain(t.Context(), wire.NewQuery(mustName(name), typ))
			if err != nil {
				t.Fatal(err)
			}
			return x
		}
		x := explain("www.example", wire.TypeA)
		if x.Cached || x.Mount != "default route" || x.Source != "upstream memory" || x.Left != 300*time.Second {
			t.Errorf("first: %+v", x)
		}
		time.Sleep(100 * time.Second)
		x = explain("www.example", wire.TypeA)
		if !x.Cached || x.Age != 100*time.Second || x.Left != 200*time.Second || x.Watched {
			t.Errorf("from the cache: %+v", x)
		}
		if x = explain("a.consul", wire.TypeTXT); !x.Watched || x.Source != "view" || x.Mount != "consul" {
			t.Errorf("of a zone: %+v", x)
		}
		up.SetState(resolvertest.Refused)
		time.Sleep(time.Hour)
		if x = explain("www.example", wire.TypeA); !x.Stale || x.EDE != wire.EDEStale || x.Err == nil {
			t.Errorf("stale: %+v", x)
		}
		if x = explain("other.example", wire.TypeA); x.Rcode != wire.RcodeServFail || x.EDE != wire.EDENetworkError || x.Err == nil {
			t.Errorf("failed: %+v", x)
		}
	})
}

func TestAHitAllocatesNothing(t *testing.T) {
	r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{mount("consul", resolver.RankOwn, says("x"))}},
		func(c *resolver.Config) { c.Now = nil })
	b, _ := resolvertest.Query("web.service.consul", dns.TypeTXT).Pack()
	q := &wire.Query{Client: netip.MustParseAddrPort("127.0.0.1:999")}
	dst := make([]byte, 0, 4096)
	serve := func() {
		if out := r.ServeDNS(q, q.Parse(b), dst, nil); len(out) == 0 {
			t.Fatal("no answer")
		}
	}
	serve()
	if n := testing.AllocsPerRun(100, serve); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAHitLooksAtTheClockOnce(t *testing.T) {
	looks := 0
	r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{mount("consul", resolver.RankOwn, says("x"))}},
		func(c *resolver.Config) { c.Now = func() time.Duration { looks++; return time.Hour } })
	b, _ := resolvertest.Query("web.service.consul", dns.TypeTXT).Pack()
	q := &wire.Query{Client: netip.MustParseAddrPort("127.0.0.1:999")}
	for _, how := range []string{"made in place", "from the cache"} {
		looks = 0
		if out := r.ServeDNS(q, q.Parse(b), nil, nil); len(out) == 0 || looks != 1 {
			t.Errorf("%s: %d looks at the clock", how, looks)
		}
	}
}

func BenchmarkServeDNS_Hit(b *testing.B) {
	c, _ := cache.New(cache.Config{})
	r, err := resolver.New(resolver.Config{Cache: c, Table: resolver.Table{Mounts: []resolver.Mount{mount("consul", resolver.RankOwn, says("x"))}}})
	if err != nil {
		b.Fatal(err)
	}
	msg, _ := resolvertest.Query("web.service.consul", dns.TypeTXT).Pack()
	q := &wire.Query{Client: netip.MustParseAddrPort("127.0.0.1:999")}
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		r.ServeDNS(q, q.Parse(msg), dst, nil)
	}
}

func TestAliasOutOfARouteIsAskedWhereItBelongs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		corp, lab, def := resolvertest.NewMemory(), resolvertest.NewMemory(), resolvertest.NewMemory()
		set := func(m *resolvertest.Memory, name string, records ...string) {
			m.Set(name, dns.TypeA, resolvertest.Rule{Records: records})
		}
		set(corp, "x.corp.", "x.corp. 300 IN CNAME y.corp.", "y.corp. 300 IN CNAME bank.example.", "bank.example. 300 IN A 192.0.2.66")
		set(corp, "www.corp.", "www.corp. 300 IN CNAME srv.corp.local.", "srv.corp.local. 300 IN A 192.0.2.8")
		set(corp, "web.corp.", "web.corp. 300 IN CNAME web.service.consul.")
		set(corp, "in.corp.", "in.corp. 300 IN CNAME y.corp.", "y.corp. 300 IN A 192.0.2.7")
		set(corp, "a.corp.", "a.corp. 300 IN CNAME b.lab.")
		set(lab, "b.lab.", "b.lab. 300 IN CNAME a.corp.")
		set(def, "bank.example.", "bank.example. 100 IN A 192.0.2.1")
		var counter atomic.Uint64
		own := &zone{answer: func(q *wire.Query) (resolver.Result, resolver.Outcome) {
			a, _ := wire.Pack(q, &wire.Reply{RRs: []wire.RR{{Owner: wire.Name(q.Name()), Type: wire.TypeA,
				Data: []byte{10, 0, 0, byte(counter.Load())}}}})
			return resolver.Result{Answer: a, Deps: [2]cache.Dep{{Counter: &counter, Value: counter.Load()}}}, resolver.Answered
		}}
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{
			corp.Mount(mustName("corp")), lab.Mount(mustName("lab")), def.Mount(wire.Root), mount("consul", resolver.RankOwn, own), mount("local", resolver.RankSpecial, denial()),
		}})
		ask := func(name string) string {
			return resolvertest.Text(resolvertest.Ask(t, r, resolvertest.Query(name, dns.TypeA), false))
		}
		expect := func(what, got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("%s: got\n%s\nwant\n%s", what, got, want)
			}
		}
		bank := "NOERROR\nbank.example. 100 IN A 192.0.2.1\nx.corp. 300 IN CNAME y.corp.\ny.corp. 300 IN CNAME bank.example.\n"
		expect("a route claims another's name", ask("x.corp"), bank)
		expect("again", ask("x.corp"), bank)
		if corp.Asked() != 1 || def.Asked() != 1 {
			t.Errorf("asked %d and %d times, want the joined answer to be kept", corp.Asked(), def.Asked())
		}
		expect("within the route", ask("in.corp"), "NOERROR\nin.corp. 300 IN CNAME y.corp.\ny.corp. 300 IN A 192.0.2.7\n")
		whole := "NOERROR\nsrv.corp.local. 300 IN A 192.0.2.8\nwww.corp. 300 IN CNAME srv.corp.local.\n"
		expect("into a special name", ask("www.corp"), whole)
		expect("into an own zone", ask("web.corp"), "NOERROR\nweb.corp. 300 IN CNAME web.service.consul.\nweb.service.consul. 0 IN A 10.0.0.0\n")
		counter.Add(1)
		expect("after a change there", ask("web.corp"), "NOERROR\nweb.corp. 300 IN CNAME web.service.consul.\nweb.service.consul. 0 IN A 10.0.0.1\n")
		if got := ask("a.corp"); !strings.HasPrefix(got, "SERVFAIL") || !strings.Contains(got, "lead back") {
			t.Errorf("a loop of two routes: got %s", got)
		}
	})
}

// What an upstream leaves open is asked of it, once; what it denies, or says of names that are nobody's here, is kept.
func TestAliasThatIsLeftOpenIsFollowed_RFC1034_4_3_2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := resolvertest.NewMemory()
		set := func(name string, typ uint16, records ...string) {
			up.Set(name, typ, resolvertest.Rule{Records: records})
		}
		set("www.example.", dns.TypeA, "www.example. 300 IN CNAME mid.example.", "mid.example. 300 IN CNAME cdn.example.net.")
		set("cdn.example.net.", dns.TypeA, "cdn.example.net. 60 IN A 192.0.2.1")
		set("www.example.", dns.TypeAAAA, "www.example. 300 IN CNAME cdn.example.net.", "authority: example.net. 60 IN SOA ns. h. 1 2 3 4 60")
		set("www.example.", dns.TypeMX, "www.example. 300 IN CNAME cdn.example.net.")
		set("cdn.example.net.", dns.TypeMX)
		set("gone.example.", dns.TypeA, "gone.example. 300 IN CNAME absent.example.")
		up.Set("absent.example.", dns.TypeA, resolvertest.NXDomain("example.", 60))
		up.Set("loop.example.", dns.TypeA, resolvertest.CNAMELoop("loop.example."))
		set("4.2.0.203.in-addr.arpa.", dns.TypePTR, "4.2.0.203.in-addr.arpa. 300 IN CNAME 4.0/26.2.0.203.in-addr.arpa.", "4.0/26.2.0.203.in-addr.arpa. 300 IN PTR nas.example.")
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root), mount("in-addr.arpa", resolver.RankOwn, notMine)}})
		for _, tc := range []struct {
			name  string
			typ   uint16
			want  string
			asked int
		}{
			{"www.example", dns.TypeA, "NOERROR\ncdn.example.net. 60 IN A 192.0.2.1\nmid.example. 300 IN CNAME cdn.example.net.\nwww.example. 300 IN CNAME mid.example.\n", 2},
			{"www.example", dns.TypeA, "NOERROR\ncdn.example.net. 60 IN A 192.0.2.1\nmid.example. 300 IN CNAME cdn.example.net.\nwww.example. 300 IN CNAME mid.example.\n", 0},
			{"www.example", dns.TypeAAAA, "NOERROR\nwww.example. 300 IN CNAME cdn.example.net.\nauthority: example.net. 60 IN SOA ns. h. 1 2 3 4 60\n", 1},
			{"www.example", dns.TypeMX, "NOERROR\nwww.example. 300 IN CNAME cdn.example.net.\n", 2},
			{"gone.example", dns.TypeA, "NXDOMAIN\ngone.example. 300 IN CNAME absent.example.\nauthority: example. 60 IN SOA ns.example. host.example. 1 7200 900 86400 60\n", 2},
			{"loop.example", dns.TypeA, "NOERROR\nloop.example. 300 IN CNAME loop.loop.example.\nloop.loop.example. 300 IN CNAME loop.example.\n", 1},
			{"4.2.0.203.in-addr.arpa", dns.TypePTR, "NOERROR\n4.0/26.2.0.203.in-addr.arpa. 300 IN PTR nas.example.\n4.2.0.203.in-addr.arpa. 300 IN CNAME 4.0/26.2.0.203.in-addr.arpa.\n", 1},
		} {
			before := up.Asked()
			got := resolvertest.Text(resolvertest.Ask(t, r, resolvertest.Query(tc.name, tc.typ), false))
			if asked := up.Asked() - before; got != tc.want || asked != tc.asked {
				t.Errorf("%s %s: asked %d times, want %d; got\n%s\nwant\n%s", tc.name, dns.TypeToString[tc.typ], asked, tc.asked, got, tc.want)
			}
		}
	})
}

func TestMinTTL_IsForAnswersNotForDenials_RFC2308(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := resolvertest.NewMemory()
		up.Set("www.example.", dns.TypeA, resolvertest.Rule{Records: []string{"www.example. 5 IN A 192.0.2.1"}})
		up.Set("zero.example.", dns.TypeA, resolvertest.Rule{Records: []string{"zero.example. 0 IN A 192.0.2.1"}})
		up.Set("nx.example.", dns.TypeA, resolvertest.NXDomain("example.", 5))
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}},
			func(c *resolver.Config) { c.MinTTL = time.Minute })
		for name, want := range map[string]int{"www.example": 1, "zero.example": 2, "nx.example": 2} {
			before := up.Asked()
			said(t, r, name, dns.TypeA)
			time.Sleep(10 * time.Second)
			said(t, r, name, dns.TypeA)
			if got := up.Asked() - before; got != want {
				t.Errorf("%s: asked %d times, want %d", name, got, want)
			}
		}
	})
}

func TestDenials_AreKeptAsConfigured_RFC2308_5(t *testing.T) {
	for _, tc := range []struct {
		what    string
		set     func(*resolver.Config)
		soa, no int // questions for a denial with an SOA, and for one without, asked twice
	}{
		{"the default", func(*resolver.Config) {}, 1, 2},
		{"negative_max_ttl = 0", func(c *resolver.Config) { c.NegativeMaxTTL = -1 }, 2, 2},
		{"negative_ttl = 1m", func(c *resolver.Config) { c.NegativeTTL = time.Minute }, 1, 1},
		{"both", func(c *resolver.Config) { c.NegativeMaxTTL, c.NegativeTTL = -1, time.Minute }, 2, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			up := resolvertest.NewMemory() // denies what it has no rule for without an SOA
			up.Set("soa.example.", dns.TypeA, resolvertest.NXDomain("example.", 60))
			r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}}, tc.set)
			for name, want := range map[string]int{"soa.example": tc.soa, "none.example": tc.no} {
				before := up.Asked()
				for range 2 {
					if m := resolvertest.Ask(t, r, resolvertest.Query(name, dns.TypeA), false); m.Rcode != dns.RcodeNameError {
						t.Errorf("%s: %s: %s", tc.what, name, resolvertest.Text(m))
					}
					time.Sleep(2 * time.Second)
				}
				if got := up.Asked() - before; got != want {
					t.Errorf("%s: %s was asked for %d times, want %d", tc.what, name, got, want)
				}
			}
		})
	}
}

// While the host sleeps, answers age: the clock of lives goes on (CLOCK_BOOTTIME), and that of timers does not.
func TestSuspend_AnHourAgesAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := resolvertest.NewMemory()
		up.Set("long.example.", dns.TypeA, resolvertest.Rule{Records: []string{"long.example. 7200 IN A 192.0.2.1"}})
		up.Set("short.example.", dns.TypeA, resolvertest.Rule{Records: []string{"short.example. 300 IN A 192.0.2.1"}})
		began := time.Now()
		var slept atomic.Int64
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}}, func(c *resolver.Config) {
			c.Now = func() time.Duration { return time.Since(began) + time.Duration(slept.Load()) + time.Hour }
		})
		for _, name := range []string{"long.example", "short.example"} {
			for range 5 { // hot: their refreshing sleeps too
				said(t, r, name, dns.TypeA)
			}
		}
		slept.Store(int64(time.Hour))
		if got, want := said(t, r, "long.example", dns.TypeA), "long.example. 3600 IN A 192.0.2.1"; got != want {
			t.Errorf("after an hour: %s, want %s", got, want)
		}
		before := up.Asked()
		if got, want := said(t, r, "short.example", dns.TypeA), "short.example. 300 IN A 192.0.2.1"; got != want || up.Asked() != before+1 {
			t.Errorf("after an hour: %s, asked %d times; want %s, asked for anew", got, up.Asked()-before, want)
		}
		// No upstream right after waking up: what is known stands in.
		slept.Store(int64(3 * time.Hour))
		up.SetState(resolvertest.Refused)
		m := resolvertest.Ask(t, r, resolvertest.Query("long.example", dns.TypeA), false)
		if code, _, _ := resolvertest.EDE(m); code != 3 || len(m.Answer) != 1 {
			t.Errorf("without upstreams: %s", resolvertest.Text(m))
		}
	})
}

func TestMaxClientTTL_BoundsWhatIsShownAndNotWhatIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := resolvertest.NewMemory()
		up.Set("www.example.", dns.TypeA, resolvertest.Rule{Records: []string{"www.example. 300 IN A 192.0.2.1"}})
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}},
			func(c *resolver.Config) { c.MaxClientTTL = time.Minute })
		for i, want := range []uint32{60, 60, 60, 30} {
			if i > 0 {
				time.Sleep(90 * time.Second)
			}
			m := resolvertest.Ask(t, r, resolvertest.Query("www.example", dns.TypeA), false)
			if got := m.Answer[0].Header().Ttl; got != want {
				t.Errorf("TTL %d, want %d", got, want)
			}
		}
		if got := up.Asked(); got != 1 {
			t.Errorf("asked %d times, want once", got)
		}
	})
}

func TestAD_FromATrustedRoute_RFC6840_5_8(t *testing.T) {
	up := resolvertest.NewMemory()
	up.TrustAD = true
	up.Set("www.example.", dns.TypeA, resolvertest.Rule{AD: true, Records: []string{"www.example. 300 IN A 192.0.2.1"}})
	r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}})
	for _, tc := range []struct{ ad, do, want bool }{{false, false, false}, {true, false, true}, {false, true, true}} {
		req := resolvertest.Query("www.example", dns.TypeA)
		req.AuthenticatedData = tc.ad
		if tc.do {
			req.IsEdns0().SetDo()
		}
		if m := resolvertest.Ask(t, r, req, false); m.AuthenticatedData != tc.want {
			t.Errorf("asked with AD %v and DO %v: AD %v, want %v", tc.ad, tc.do, m.AuthenticatedData, tc.want)
		}
	}
}

// denial is a zone that denies every name.
func denial() *zone {
	return &zone{answer: func(q *wire.Query) (resolver.Result, resolver.Outcome) {
		a, _ := wire.Pack(q, &wire.Reply{Rcode: wire.RcodeNXDomain})
		return resolver.Result{Answer: a}, resolver.Answered
	}}
}

// Who is not served gets nothing that was asked for others, fresh or not; own zones are for all.
func TestClients_WhoMayHaveQuestionsForwarded_RFC5358(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := resolvertest.NewMemory()
		up.Set("www.example.", dns.TypeA, resolvertest.Rule{Records: []string{"www.example. 300 IN A 192.0.2.1"}})
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root), mount("onion", resolver.RankSpecial, denial())}})
		ask := func(client, name string) *dns.Msg {
			packed, err := resolvertest.Query(name, dns.TypeA).Pack()
			if err != nil {
				t.Fatal(err)
			}
			q := &wire.Query{Client: netip.MustParseAddrPort(client)}
			v := q.Parse(packed)
			ch := make(chan *dns.Msg, 1)
			deliver := func(_ *wire.Query, msg []byte) {
				m := new(dns.Msg)
				if m.Unpack(msg) == nil {
					ch <- m
				}
			}
			if out := r.ServeDNS(q, v, nil, deliver); out != nil {
				deliver(q, out)
			}
			return <-ch
		}
		const stranger, neighbour = "203.0.113.9:4000", "10.0.0.9:4000"
		if m := ask(stranger, "www.example"); m.Rcode != dns.RcodeSuccess {
			t.Errorf("before anything was set: %s", resolvertest.Text(m))
		}
		r.SetClients([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fe80::/64")})
		for _, name := range []string{"www.example", "other.example"} { // one is in the cache
			m := ask(stranger, name)
			if code, _, ok := resolvertest.EDE(m); m.Rcode != dns.RcodeRefused || !ok || code != 18 || len(m.Answer) != 0 {
				t.Errorf("%s: %s", name, resolvertest.Text(m))
			}
		}
		if m := ask(stranger, "x.onion"); m.Rcode != dns.RcodeNameError {
			t.Errorf("an own zone: %s", resolvertest.Text(m))
		}
		for _, client := range []string{neighbour, "[::ffff:10.0.0.9]:4000", "127.0.0.1:4000", "[::1]:4000", "[fe80::7%eth0]:4000"} {
			if m := ask(client, "www.example"); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
				t.Errorf("%s: %s", client, resolvertest.Text(m))
			}
		}
		r.SetClients([]netip.Prefix{})
		if m := ask(neighbour, "www.example"); m.Rcode != dns.RcodeRefused {
			t.Errorf("none but this host: %s", resolvertest.Text(m))
		}
	})
}

// Who sends an OPT gets one, whatever else is wrong with the question.
func TestErrors_HaveAnOPTWhereTheQueryHadOne_RFC6891_6_1_1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := newResolver(t, resolver.Table{})
		ask := func(opcode, questions int, edns bool) *dns.Msg {
			req := new(dns.Msg)
			req.Id, req.Opcode = 7, opcode
			for i := range questions {
				req.Question = append(req.Question, dns.Question{Name: fmt.Sprintf("n%d.example.", i), Qtype: dns.TypeA, Qclass: dns.ClassINET})
			}
			if opcode == dns.OpcodeUpdate {
				req.Ns = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "n0.example.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(192, 0, 2, 1)}}
			}
			if edns {
				req.SetEdns0(1232, true)
			}
			return resolvertest.Ask(t, r, req, false)
		}
		for _, edns := range []bool{true, false} {
			for opcode := range 16 {
				for questions := range 3 {
					if opcode == 0 && questions == 1 {
						continue // a question
					}
					want := dns.RcodeNotImplemented
					if opcode == 0 {
						want = dns.RcodeFormatError
					}
					m := ask(opcode, questions, edns)
					if opt := m.IsEdns0(); m.Rcode != want || m.Opcode != opcode || m.Id != 7 || (opt != nil) != edns || edns && (opt.Version() != 0 || !opt.Do()) {
						t.Errorf("opcode %d, %d questions, EDNS %v: %s, OPT %v", opcode, questions, edns, resolvertest.Text(m), opt)
					}
				}
			}
		}
	})
}
