package resolver_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"meibo/resolver"
	"meibo/resolver/resolvertest"
	"meibo/resolver/wire"
)

func TestHotNamesAreRefreshedAtTheirEnd(t *testing.T) {
	for _, tc := range []struct {
		name  string
		ttl   int
		asked int // times in the first life
		want  int // questions to the upstream when that and the next life are over
	}{
		{"asked often", 60, 4, 2},  // then nobody asks, and it is left
		{"asked seldom", 60, 3, 1}, // the first was no hit
		{"too short a life", 4, 9, 1},
		{"no life", 0, 4, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := resolvertest.NewMemory()
				up.Set("www.example.", dns.TypeA, resolvertest.Rule{Records: []string{fmt.Sprintf("www.example. %d IN A 192.0.2.1", tc.ttl)}})
				r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}})
				for range tc.asked {
					said(t, r, "www.example", dns.TypeA)
				}
				time.Sleep(3*time.Duration(tc.ttl)*time.Second + time.Second)
				if got := up.Asked(); got != tc.want {
					t.Errorf("asked %d times, want %d", got, tc.want)
				}
			})
		})
	}
}

// What is refreshed is never an older answer given first (RFC 8767 section 5), and a client finds it there.
func TestHotName_IsThereWhenItIsAskedForNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := resolvertest.NewMemory()
		set := func(addr string) {
			up.Set("www.example.", dns.TypeA, resolvertest.Rule{Records: []string{"www.example. 60 IN A " + addr}})
		}
		set("192.0.2.1")
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}})
		for range 4 {
			said(t, r, "www.example", dns.TypeA)
		}
		set("192.0.2.2")
		time.Sleep(61 * time.Second)
		before := up.Asked()
		if got, want := said(t, r, "www.example", dns.TypeA), "www.example. 59 IN A 192.0.2.2"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if up.Asked() != before {
			t.Error("a client had to wait")
		}
		// While upstreams are gone, it is asked for once at its end, and not again and again.
		for range 4 {
			said(t, r, "www.example", dns.TypeA)
		}
		up.SetState(resolvertest.Refused)
		before = up.Asked()
		time.Sleep(10 * time.Minute)
		if got := up.Asked() - before; got != 1 {
			t.Errorf("asked %d times, want once", got)
		}
	})
}

// Refreshing is a tenth of what clients cause, and a little.
func TestHotNames_AreNotTheMostOfTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const names = 300
		up := resolvertest.NewMemory()
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}})
		for i := range names {
			name := fmt.Sprintf("n%d.example.", i)
			up.Set(name, dns.TypeA, resolvertest.Rule{Records: []string{name + " 60 IN A 192.0.2.1"}})
			for range 4 {
				said(t, r, name, dns.TypeA)
			}
		}
		time.Sleep(61 * time.Second)
		// 64 free, a tenth of the 300 clients' questions, and of the refreshes themselves.
		if got := up.Asked() - names; got < 64 || got > 64+(names+120)/10 {
			t.Errorf("%d refreshes of %d names", got, names)
		}
	})
}
