package resolver_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"meibo/cache"
	"meibo/resolver"
	"meibo/resolver/resolvertest"
	"meibo/resolver/wire"
)

// fixed is an upstream that answers everything with one TXT record.
type fixed string

func (f fixed) Exchange(_ context.Context, q *wire.Query) (resolver.Result, error) {
	a, err := wire.Pack(q, &wire.Reply{RRs: []wire.RR{{Owner: wire.Name(q.Name()), Type: q.Type, TTL: 300, Data: wire.TXT(string(f))}}})
	return resolver.Result{Answer: a, Ages: true}, err
}

// A zone whose names come and go passes a question on. What answers in its place,
// a zone or a route, must not be served once the name is there.
func TestViews5_AnAnswerInPlaceOfAZoneEndsWhenTheZoneHasTheName(t *testing.T) {
	for _, behind := range []struct {
		name  string
		mount resolver.Mount
	}{
		{"a zone", mount("10.in-addr.arpa", resolver.RankSpecial, says("nobody"))},
		{"a route", resolver.Mount{Suffix: wire.Root, Rank: resolver.RankDefault, Upstream: fixed("nobody"), Route: new(atomic.Uint64), Name: "default"}},
	} {
		t.Run(behind.name, func(t *testing.T) {
			var names atomic.Uint64
			var known atomic.Bool
			own := &zone{answer: func(q *wire.Query) (resolver.Result, resolver.Outcome) {
				dep := cache.Dep{Counter: &names, Value: names.Load()}
				if !known.Load() {
					return resolver.Result{Deps: [2]cache.Dep{dep}}, resolver.NotMine
				}
				return txt(q, "node"), resolver.Answered
			}}
			r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{mount("10.in-addr.arpa", resolver.RankOwn, own), behind.mount}})
			q := resolvertest.Query("1.0.0.10.in-addr.arpa.", wire.TypeTXT)
			for range 2 {
				if got := resolvertest.Records(resolvertest.Ask(t, r, q, false).Answer); len(got) != 1 || got[0] == "" {
					t.Fatalf("got %v", got)
				}
			}
			known.Store(true)
			names.Add(1)
			got := resolvertest.Ask(t, r, q, false)
			if s := resolvertest.Records(got.Answer); len(s) != 1 || s[0] != `1.0.0.10.in-addr.arpa. 0 IN TXT "node"` {
				t.Errorf("got %v, want the node", s)
			}
		})
	}
}

// cut is an upstream whose answers are cut over UDP, and that has no TCP.
type cut []wire.RR

func (c cut) Exchange(_ context.Context, q *wire.Query) (resolver.Result, error) {
	whole, err := wire.Pack(q, &wire.Reply{RRs: c})
	if err != nil {
		return resolver.Result{}, err
	}
	msg := whole.Append(nil, q, wire.Render{})
	msg[2] |= 0x82 // QR, TC
	a, err := wire.ParseAnswer(msg)
	return resolver.Result{Answer: a, Ages: true, Source: "upstream 192.0.2.1:53"}, err
}

// A client that asks over TCP can't do more: what is cut to nothing is no answer to it.
func TestRFC2181Section9_ACutAnswerIsNoneOverTCP(t *testing.T) {
	some := wire.RR{Owner: mustName("www.example"), Type: wire.TypeTXT, TTL: 300, Data: wire.TXT("some")}
	for _, tc := range []struct {
		name  string
		cut   cut
		tcp   bool
		rcode int
		tc    bool
		ede   bool
	}{
		{"to nothing, over UDP", nil, false, dns.RcodeSuccess, true, false},
		{"to nothing, over TCP", nil, true, dns.RcodeServerFailure, false, true},
		{"in part, over UDP", cut{some}, false, dns.RcodeSuccess, true, false},
		{"in part, over TCP", cut{some}, true, dns.RcodeSuccess, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{
				{Suffix: wire.Root, Rank: resolver.RankDefault, Upstream: tc.cut, Route: new(atomic.Uint64), Name: "default"},
			}})
			m := resolvertest.Ask(t, r, resolvertest.Query("www.example", dns.TypeTXT), tc.tcp)
			ede := false
			for _, o := range m.IsEdns0().Option {
				if e, ok := o.(*dns.EDNS0_EDE); ok {
					ede = e.InfoCode == dns.ExtendedErrorCodeNetworkError
				}
			}
			if m.Rcode != tc.rcode || m.Truncated != tc.tc || ede != tc.ede {
				t.Errorf("%s, TC %v, Extended Error %v", dns.RcodeToString[m.Rcode], m.Truncated, ede)
			}
		})
	}
}
