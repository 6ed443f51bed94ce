package resolver_test

import (
	"context"
	"sync/atomic"
	"testing"

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
