package httpapi_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meibo/cluster/acl"
	"meibo/cluster/catalog"
	"meibo/cluster/httpapi"
)

// ask sends a request in the background, as a watcher would, and returns its answer.
func (f *fixture) ask(ctx context.Context, target string) <-chan *httptest.ResponseRecorder {
	answered := make(chan *httptest.ResponseRecorder, 1)
	go func() {
		r := httptest.NewRequestWithContext(ctx, "GET", target, nil)
		r.Host = "localhost"
		w := httptest.NewRecorder()
		f.api.ServeHTTP(w, r)
		answered <- w
	}()
	return answered
}

func TestBlocking_WaitsForAChangeOfItsOwnResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		first := f.do(t, "GET", "/v1/health/service/web", "")
		answer := f.ask(t.Context(), "/v1/health/service/web?index="+first.Header().Get("X-Consul-Index"))
		synctest.Wait()

		f.store.must(t, &catalog.Register{Node: catalog.Node{Node: "n3", Address: "10.0.0.3"}, Service: &catalog.Service{Service: "other"}})
		synctest.Wait()
		select {
		case w := <-answer:
			t.Fatalf("a change of another service woke it: index %s", w.Header().Get("X-Consul-Index"))
		default:
		}

		began := time.Now()
		f.store.must(t, &catalog.Register{Node: catalog.Node{Node: "n3", Address: "10.0.0.3"}, Service: &catalog.Service{ID: "web3", Service: "web"}})
		w := <-answer
		if !strings.Contains(w.Body.String(), `"ID":"web3"`) || time.Since(began) != 0 {
			t.Errorf("after %v: %s", time.Since(began), w.Body)
		}
		if w.Header().Get("X-Consul-Index") == first.Header().Get("X-Consul-Index") {
			t.Error("the index did not move")
		}
	})
}

// What lists instances without their checks sleeps while only these change.
func TestBlocking_ChecksWakeWhoSeesThem(t *testing.T) {
	for path, wakes := range map[string]bool{
		"/v1/catalog/service/web?":                        false,
		"/v1/catalog/service/web?filter=ServicePort==80&": false,
		"/v1/catalog/node/n1?":                            false,
		"/v1/catalog/node-services/n1?":                   false,
		"/v1/catalog/nodes?":                              false,
		"/v1/catalog/services?":                           false,
		"/v1/catalog/services?node-meta=rack:1&":          false,
		"/v1/catalog/services?filter=ServicePort==80&":    false,
		"/v1/operator/usage?":                             false,
		"/v1/health/service/web?":                         true,
		"/v1/health/service/web?passing&":                 true,
		"/v1/health/service/web?filter=Node.Node==n1&":    true,
		"/v1/health/node/n1?":                             true,
		"/v1/health/checks/web?":                          true,
		"/v1/health/state/any?":                           true,
		"/v1/health/state/" + catalog.Warning + "?":       true,
	} {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				set := func(status string) {
					f.store.must(t, &catalog.Register{Node: catalog.Node{Node: "n1"}, SkipNodeUpdate: true, Checks: []*catalog.Check{
						{CheckID: "of-web", ServiceID: "web1", Status: status}, {CheckID: "of-node", Status: status},
					}})
				}
				set(catalog.Critical)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				answer := f.ask(ctx, path+"index="+f.do(t, "GET", strings.TrimRight(path, "?&"), "").Header().Get("X-Consul-Index"))
				synctest.Wait()
				set(catalog.Warning)
				synctest.Wait()
				select {
				case w := <-answer:
					if !wakes || w.Code != 200 {
						t.Fatalf("woke: %d %s", w.Code, w.Body)
					}
					return
				default:
				}
				if wakes {
					t.Fatal("slept")
				}
				f.store.must(t, &catalog.Register{
					Node:    catalog.Node{Node: "n1", Address: "10.0.0.9", Datacenter: "dc1", Meta: map[string]string{"rack": "1"}},
					Service: &catalog.Service{ID: "web1", Service: "web", Port: 80, Tags: []string{"new"}},
				})
				<-answer // of what it does see
			})
		})
	}
}

func TestCached_IsWhatThisHostKnowsAndSaysSo(t *testing.T) {
	f := newFixture(t)
	older := f.store.Store.Read()
	for _, tt := range []struct {
		name, target, control string
		kept                  bool
		want                  []string // X-Cache, Age
	}{
		{"nothing known", "/v1/health/service/web?cached", "", false, []string{"MISS", ""}},
		{"known", "/v1/health/service/web?cached", "", true, []string{"HIT", "3"}},
		{"of the catalog", "/v1/catalog/service/web?cached", "", true, []string{"HIT", "3"}},
		{"young enough", "/v1/catalog/service/web?cached", "max-age=3", true, []string{"HIT", "3"}},
		{"too old", "/v1/catalog/service/web?cached", "stale-if-error=9, max-age=2", true, []string{"MISS", ""}},
		{"to be checked", "/v1/catalog/service/web?cached", "must-revalidate", true, []string{"MISS", ""}},
		{"not asked for", "/v1/health/service/web", "", true, []string{"", ""}},
		{"refused", "/v1/health/service/web?cached=false", "", true, []string{"", ""}},
		{"at an index", "/v1/health/service/web?cached&index=1", "", true, []string{"MISS", ""}},
		{"at none", "/v1/health/service/web?cached&index=0", "", true, []string{"HIT", "3"}},
		{"what isn't kept", "/v1/health/node/n1?cached", "", true, []string{"MISS", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.store.kept, f.store.contact = nil, 2900*time.Millisecond
			if tt.kept {
				f.store.kept = older
			}
			w := f.do(t, "GET", tt.target, "", "Cache-Control", tt.control)
			if got := []string{w.Header().Get("X-Cache"), w.Header().Get("Age")}; w.Code != 200 || !slices.Equal(got, tt.want) {
				t.Errorf("got %d %q, want %q", w.Code, got, tt.want)
			}
		})
	}
	f.store.contact = 0
	f.store.must(t, &catalog.Deregister{Node: "n2"})
	if w := f.do(t, "GET", "/v1/health/service/web?cached", ""); !strings.Contains(w.Body.String(), `"n2"`) || w.Header().Get("Age") != "0" {
		t.Errorf("not from what is kept: %s", w.Body)
	}
}

func TestBlocking_EndsWhenTheWaitIsOver(t *testing.T) {
	tests := []struct {
		wait     string
		from, to time.Duration
	}{
		{"10s", 10 * time.Second, 10625 * time.Millisecond},
		{"60000ms", time.Minute, 64 * time.Second},
		{"", 300 * time.Second, 319 * time.Second},
		{"0s", 300 * time.Second, 319 * time.Second},
		{"2h", 600 * time.Second, 638 * time.Second},
		{"1ns", time.Nanosecond, time.Nanosecond},
	}
	for _, tc := range tests {
		t.Run(tc.wait, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				began := time.Now()
				w := <-f.ask(t.Context(), "/v1/health/service/web?index=1003&wait="+tc.wait)
				if took := time.Since(began); took < tc.from || took > tc.to {
					t.Errorf("answered after %v, want %v to %v", took, tc.from, tc.to)
				}
				if w.Code != 200 || w.Header().Get("X-Consul-Index") != "1003" {
					t.Errorf("got %d, index %s", w.Code, w.Header().Get("X-Consul-Index"))
				}
			})
		})
	}
}

func TestBlocking_AnswersAtOnce(t *testing.T) {
	f := newFixture(t)
	for _, q := range []string{"index=0&wait=1h", "index=1&wait=1h", "index=99999&wait=1h", "wait=1h"} {
		if w := f.do(t, "GET", "/v1/health/service/web?"+q, ""); w.Header().Get("X-Consul-Index") != "1003" {
			t.Errorf("%s: index %s", q, w.Header().Get("X-Consul-Index"))
		}
	}
	for q, want := range map[string]string{
		"index=x": "Invalid index", "wait=10": "Invalid wait time", "index=-1": "Invalid index",
		"max_stale=soon": `Invalid max_stale value "soon"`, "passing=perhaps": "Invalid value for ?passing",
		"stale&consistent":  "Cannot specify ?stale with ?consistent, conflicting semantics.",
		"cached&consistent": "Cannot specify ?cached with ?consistent, conflicting semantics.",
	} {
		if w := f.do(t, "GET", "/v1/health/service/web?"+q, ""); w.Code != 400 || w.Body.String() != want {
			t.Errorf("%s: %d %s, want %s", q, w.Code, w.Body, want)
		}
	}
}

func TestBlocking_WhatIsMissingSleepsThroughOtherRemovals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		index := f.do(t, "GET", "/v1/health/service/later", "").Header().Get("X-Consul-Index")
		answer := f.ask(t.Context(), "/v1/health/service/later?index="+index)
		synctest.Wait()
		f.store.must(t, &catalog.Register{Node: catalog.Node{Node: "n3", Address: "10.0.0.3"}, Service: &catalog.Service{Service: "brief"}})
		f.store.must(t, &catalog.Deregister{Node: "n3"})
		synctest.Wait()
		select {
		case <-answer:
			t.Fatal("the removal of another service woke it")
		default:
		}
		f.store.must(t, &catalog.Register{Node: catalog.Node{Node: "n3", Address: "10.0.0.3"}, Service: &catalog.Service{Service: "later"}})
		if w := <-answer; !strings.Contains(w.Body.String(), `"Service":"later"`) {
			t.Errorf("got %s", w.Body)
		}
	})
}

func TestBlocking_ANewHistoryWakesAndIndexesMayGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		answer := f.ask(t.Context(), "/v1/catalog/nodes?index=1003")
		synctest.Wait()
		f.store.must(t, &catalog.BeginHistory{ID: "99999999-2222-3333-4444-555555555555", Base: 5000})
		if w := <-answer; w.Header().Get("X-Consul-Index") <= "1003" {
			t.Errorf("index %s", w.Header().Get("X-Consul-Index"))
		}
	})
}

func TestBlocking_ALeaderLostMeanwhileIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		byDefault := f.ask(t.Context(), "/v1/catalog/nodes?index=1003&wait=5s")
		stale := f.ask(t.Context(), "/v1/catalog/nodes?index=1003&wait=5s&stale")
		synctest.Wait()
		f.store.noLeader.Store(true)
		if w := <-byDefault; w.Code != 500 || w.Body.String() != "No cluster leader" {
			t.Errorf("default: %d %s", w.Code, w.Body)
		}
		if w := <-stale; w.Code != 200 || w.Header().Get("X-Consul-KnownLeader") != "false" {
			t.Errorf("stale: %d, headers %v", w.Code, w.Header())
		}
	})
}

func TestBlocking_EndsWhenTheClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ctx, cancel := context.WithCancel(t.Context())
		answer := f.ask(ctx, "/v1/catalog/nodes?index=1003")
		synctest.Wait()
		cancel()
		<-answer // synctest fails if it hangs
	})
}

func TestBlocking_IsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(c *httpapi.Config) { c.MaxBlocking = 2 })
		one := f.ask(t.Context(), "/v1/catalog/nodes?index=1003&wait=5s")
		two := f.ask(t.Context(), "/v1/catalog/services?index=1003&wait=5s")
		synctest.Wait()
		w := <-f.ask(t.Context(), "/v1/catalog/nodes?index=1003")
		if w.Code != 429 || !strings.Contains(w.Body.String(), "2 are waiting") {
			t.Errorf("the third: %d %s", w.Code, w.Body)
		}
		if w := <-f.ask(t.Context(), "/v1/catalog/nodes"); w.Code != 200 {
			t.Errorf("one that does not wait: %d", w.Code)
		}
		<-one
		<-two
		if w := <-f.ask(t.Context(), "/v1/catalog/nodes?index=1003&wait=1s"); w.Code != 200 {
			t.Errorf("after the others ended: %d %s", w.Code, w.Body)
		}
	})
}

func TestHashBlocking_WaitsForAChangeOfTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		hash := f.do(t, "GET", "/v1/agent/service/web1", "").Header().Get("X-Consul-ContentHash")
		answer := f.ask(t.Context(), "/v1/agent/service/web1?hash="+hash)
		synctest.Wait()
		f.do(t, "PUT", "/v1/agent/service/register", `{"Name":"other"}`)
		synctest.Wait()
		select {
		case <-answer:
			t.Fatal("another service woke it")
		default:
		}
		f.do(t, "PUT", "/v1/agent/service/register", `{"ID":"web1","Name":"web","Port":81}`)
		w := <-answer
		if w.Header().Get("X-Consul-ContentHash") == hash || !strings.Contains(w.Body.String(), `"Port":81`) {
			t.Errorf("got %s", w.Body)
		}
		gone := f.ask(t.Context(), "/v1/agent/service/web1?wait=10s&hash="+w.Header().Get("X-Consul-ContentHash"))
		synctest.Wait()
		f.do(t, "PUT", "/v1/agent/service/deregister/web1", "")
		if w := <-gone; w.Code != 404 {
			t.Errorf("after its removal: %d %s", w.Code, w.Body)
		}
	})
}

func TestConsistency_FollowsTheRequest(t *testing.T) {
	f := newFixture(t)
	f.store.contact = 5 * time.Second
	tests := []struct{ query, consistency, contact string }{
		{"", "leader", "0"},
		{"?stale", "stale", "5000"},
		{"?stale=", "stale", "5000"},
		{"?consistent", "consistent", "0"},
		{"?leader&stale", "leader", "0"},
		{"?cached", "leader", "0"},
		{"?max_stale=10s", "stale", "5000"},
		{"?max_stale=2s", "stale", "0"},
	}
	for _, tc := range tests {
		h := f.do(t, "GET", "/v1/catalog/nodes"+tc.query, "").Header()
		if h.Get("X-Consul-Effective-Consistency") != tc.consistency || h.Get("X-Consul-LastContact") != tc.contact {
			t.Errorf("%q: %v", tc.query, h)
		}
	}
	f.store.noLeader.Store(true)
	if w := f.do(t, "GET", "/v1/catalog/nodes", ""); w.Code != 500 || w.Body.String() != "No cluster leader" {
		t.Errorf("no leader, default: %d %s", w.Code, w.Body)
	}
	if w := f.do(t, "GET", "/v1/catalog/nodes?stale", ""); w.Code != 200 || w.Header().Get("X-Consul-KnownLeader") != "false" {
		t.Errorf("no leader, stale: %d %v", w.Code, w.Header())
	}
	if w := f.do(t, "GET", "/v1/agent/services", ""); w.Code != 200 {
		t.Errorf("no leader, own services: %d", w.Code)
	}
	if w := f.do(t, "GET", "/v1/status/leader", ""); w.Body.String() != `""` {
		t.Errorf("no leader, status: %s", w.Body)
	}
}

func TestConsistency_DiscoveryMaxStale(t *testing.T) {
	f := newFixture(t, func(c *httpapi.Config) { c.DiscoveryMaxStale = 10 * time.Second })
	for _, tc := range []struct {
		age                          time.Duration
		target, consistency, contact string
	}{
		{5 * time.Second, "/v1/catalog/nodes", "stale", "5000"},
		{5 * time.Second, "/v1/health/service/web", "stale", "5000"},
		{5 * time.Second, "/v1/catalog/nodes?leader", "leader", "0"},
		{5 * time.Second, "/v1/catalog/nodes?consistent", "consistent", "0"},
		{5 * time.Second, "/v1/catalog/nodes?max_stale=1s", "stale", "0"},
		{11 * time.Second, "/v1/catalog/nodes", "stale", "0"}, // too old: asked for again
		{11 * time.Second, "/v1/catalog/nodes?stale", "stale", "11000"},
	} {
		f.store.contact = tc.age
		h := f.do(t, "GET", tc.target, "").Header()
		if h.Get("X-Consul-Effective-Consistency") != tc.consistency || h.Get("X-Consul-LastContact") != tc.contact {
			t.Errorf("%s at %v: %v", tc.target, tc.age, h)
		}
	}
	f.store.contact = 5 * time.Second
	f.store.noLeader.Store(true)
	if w := f.do(t, "GET", "/v1/catalog/nodes", ""); w.Code != 200 {
		t.Errorf("no leader: %d %s", w.Code, w.Body)
	}
}

func TestLists_Narrow(t *testing.T) {
	f := newFixture(t)
	tests := []struct{ target, want string }{
		{"/v1/health/service/web?tag=v1", "web1"},
		{"/v1/health/service/web?tag=V1&tag=BLUE", "web1"},
		{"/v1/health/service/web?tag=v1&tag=green", ""},
		{"/v1/health/service/WEB", "web1 web2"},
		{"/v1/health/service/web?passing=true", "web2"},
		{"/v1/health/service/web?passing=0", "web1 web2"},
		{"/v1/health/service/web?near=_agent", "web1 web2"},
		{"/v1/health/service/web?node-meta=rack:r1", "web1"},
		{"/v1/health/service/web?node-meta=rack:r1&node-meta=x:y", ""},
		{`/v1/health/service/web?filter=Service.Meta.env+==+qa`, "web1"},
		{`/v1/health/service/web?filter=Service.Meta.env+!=+qa`, "web2"},
		{`/v1/health/service/web?filter="v1"+in+Service.Tags`, "web1"},
		{`/v1/health/service/web?filter=Service.Tags+contains+"v1"`, "web1"},
		{`/v1/health/service/web?filter=Service.Tags+is+empty`, "web2"},
		{`/v1/health/service/web?filter=Checks.Status+==+warning`, "web1"},
		{`/v1/health/service/web?filter=Checks.Status+==+"passing"+and+Service.Meta.env+==+"qa"`, "web1"},
		{`/v1/health/service/web?filter=not+Checks.Status+==+warning`, "web2"},
		{`/v1/health/service/web?filter=Node.Node+matches+"^n[2]$"+or+(Service.Port+==+80)`, "web1 web2"},
		{`/v1/health/service/web?filter=Checks.CheckID+==+"up"`, "web2"},
		{`/v1/health/service/web?filter=Checks.ServiceTags+is+empty`, "web1 web2"},
		{`/v1/health/service/web?filter=Checks.Definition.HTTP+==+x`, ""},
		{`/v1/health/service/web?filter=Checks.Definition.HTTP+is+empty`, "web1"},
		{`/v1/health/service/web?filter=Service.Meta.nope+==+x`, ""},
		{`/v1/health/service/web?filter=Service.Meta.nope+!=+x`, "web1 web2"},
		{`/v1/health/service/web?filter=Service.Meta.nope+is+empty`, "web1 web2"},
		{`/v1/health/service/web?filter=Service.Meta.nope+matches+x`, ""},
		{`/v1/health/service/web?filter=Service.TaggedAddresses.wan.Port+==+1`, ""},
		{`/v1/health/service/web?filter=Service.Weights.Passing+==+1`, "web2"},
		{`/v1/health/service/web?filter="env"+in+Service.Meta`, "web1"},
		{`/v1/health/service/web?filter=Service.Connect.Native+==+true`, ""},
		{`/v1/health/service/web?filter=not+Service.Connect.Native+==+true`, "web1 web2"},
		{`/v1/health/service/web?filter=Service.Proxy.Upstreams.DestinationName+==+db`, ""},
		{`/v1/health/service/web?filter=Service.PeerName+is+empty`, "web1 web2"},
		{`/v1/health/service/web?filter=Service.PeerName+==+""`, "web1 web2"},
		{`/v1/health/service/web?filter=Node.PeerName+==+""+and+Checks.PeerName+!=+x`, "web1 web2"},
		{`/v1/health/service/web?filter=Node.PeerName+==+x`, ""},
		{`/v1/catalog/service/web?filter=PeerName+==+""`, "web1 web2"},
		{`/v1/health/service/web?filter=Node.TaggedAddresses.lan+==+"10.0.0.1"`, "web1"},
		{`/v1/health/service/web?filter=Service.EnableTagOverride+==+false+and+Node.Meta["rack"]+==+r1`, "web1"},
		{"/v1/health/service/web?tag=", ""},
		{"/v1/health/service/web?tag=v1&tag=", ""},
		{"/v1/catalog/service/web?tag", ""},
		{`/v1/catalog/service/web?filter=NodeMeta.rack+==+r1`, "web1"},
		{"/v1/catalog/service/web?tag=blue", "web1"},
		{`/v1/catalog/service/web?filter=ServiceMeta.env+is+not+empty`, "web1"},
		{`/v1/catalog/service/web?filter=ServicePort+==+80`, "web1"},
	}
	for _, tc := range tests {
		w := f.do(t, "GET", tc.target, "")
		if got := instanceIDs(t, w.Body.String()); w.Code != 200 || got != tc.want {
			t.Errorf("%s: %d [%s], want [%s]", tc.target, w.Code, got, tc.want)
		}
	}
	for target, want := range map[string]string{
		`/v1/catalog/nodes?filter=Meta.rack+==+r1`:                    `"Node":"n1"`,
		`/v1/catalog/services?filter=ServiceName+==+web`:              `{"web":["blue","v1"]}`,
		`/v1/catalog/services?filter=ServiceName+==+db`:               `{}`,
		`/v1/catalog/services?node-meta=rack:r1`:                      `{"web":["blue","v1"]}`,
		`/v1/catalog/services?filter=NodeMeta.rack+==+r1`:             `{"web":["blue","v1"]}`,
		`/v1/catalog/services?filter=NodeMeta.rack+!=+r1`:             `{"web":[]}`,
		`/v1/catalog/services?filter=ServiceMeta.env+==+qa`:           `{"web":["blue","v1"]}`,
		`/v1/catalog/services?filter=ServicePort+==+1`:                `{}`,
		`/v1/catalog/services?filter=Node+==+n2+or+Address+==+x`:      `{"web":[]}`,
		`/v1/catalog/node/aaaaaaaa-0000-0000-0000-000000000001`:       `"Node":"n1"`,
		`/v1/catalog/node/AAAA`:                                       `"ID":"web1"`,
		`/v1/catalog/node/a`:                                          `null`,
		`/v1/catalog/node-services/aaaa`:                              `"ID":"web1"`,
		`/v1/health/service/web?passing=false&filter=Node.Node+==+n1`: `"n1"`,
		`/v1/catalog/services?node-meta=rack:r9`:                      `{}`,
		`/v1/agent/services?filter=Service+==+db`:                     `{}`,
		`/v1/agent/checks?filter=Status+==+passing`:                   `"CheckID":"disk"`,
		`/v1/health/state/any?filter=ServiceName+==+web`:              `"CheckID":"service:web1"`,
		`/v1/agent/members?filter=Name+==+n1`:                         `"Name":"n1"`,
		`/v1/health/state/passing?node-meta=rack:r1`:                  `"CheckID":"serfHealth"`,
		`/v1/catalog/node/n1?filter=Service+==+nope`:                  `"Services":{}`,
		`/v1/catalog/node-services/n1?filter=Service+==+"nope"`:       `"Services":[]`,
	} {
		if w := f.do(t, "GET", target, ""); !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s, want %s", target, w.Code, w.Body, want)
		}
	}
}

func TestFilter_IsCheckedAndBounded(t *testing.T) {
	f := newFixture(t)
	for _, expr := range []string{
		"Nope+==+1", "Service.Nope+==+1", "==", `Node.Node+matches+"("`,
		strings.Repeat("(", 40) + "Node.Node==x" + strings.Repeat(")", 40),
		"Node.Node==" + strings.Repeat("x", 5000),
	} {
		began := time.Now()
		w := f.do(t, "GET", "/v1/health/service/web?filter="+expr, "")
		if w.Code != 400 {
			t.Errorf("%.40s: %d %s", expr, w.Code, w.Body)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%.40s took %v", expr, took)
		}
	}
	if w := f.do(t, "GET", "/v1/health/service/none?filter=Service.Nope+==+1", ""); w.Code != 400 {
		t.Errorf("a selector that cannot exist was taken where nothing is listed: %d", w.Code)
	}
}

func instanceIDs(t *testing.T, body string) string {
	var list []struct {
		ServiceID string
		Service   struct{ ID string }
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Errorf("%v in %s", err, body)
	}
	var ids []string
	for _, i := range list {
		ids = append(ids, i.ServiceID+i.Service.ID)
	}
	return strings.Join(ids, " ")
}

func TestAnswers_AreCompressedWhenLargeAndWanted(t *testing.T) {
	f := newFixture(t)
	plain := f.do(t, "GET", "/v1/health/service/web?pretty", "")
	for accept, want := range map[string]string{"gzip": "gzip", "deflate, gzip;q=0.5": "gzip", "*": "gzip", "gzip;q=0": "", "": "", "br": ""} {
		w := f.do(t, "GET", "/v1/health/service/web?pretty", "", "Accept-Encoding", accept)
		if got := w.Header().Get("Content-Encoding"); got != want {
			t.Errorf("Accept-Encoding %q: %q", accept, got)
		}
		if want == "" {
			continue
		}
		z, err := gzip.NewReader(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(z)
		if err != nil || string(data) != plain.Body.String() {
			t.Errorf("decompressed: %v, %d bytes of %d", err, len(data), plain.Body.Len())
		}
	}
	if w := f.do(t, "GET", "/v1/status/leader", "", "Accept-Encoding", "gzip"); w.Header().Get("Content-Encoding") != "" {
		t.Error("a short answer was compressed")
	}
}

// rules grants what it lists ("service:web:read"), to the token "t".
type rules map[string]bool

func (r rules) Resolve(_ context.Context, secret string) (acl.Authorizer, error) {
	switch secret {
	case "t":
		return r, nil
	case "":
		return rules{}, nil
	}
	return nil, acl.ErrNotFound
}

func (r rules) Authorize(res acl.Resource, name string, a acl.Access) error {
	if r[fmt.Sprintf("%s:%s:%s", res, name, a)] {
		return nil
	}
	return &acl.Denied{Resource: res, Name: name, Access: a}
}

func TestACL_EachEndpointAsksAndSaysWhatIsMissing(t *testing.T) {
	tests := []struct{ target, body, grant, missing string }{
		{"GET /v1/agent/self", "", "agent:n1:read", `'agent:read' on "n1"`},
		{"GET /metrics", "", "agent:n1:read", `'agent:read' on "n1"`},
		{"GET /v1/agent/metrics", "", "agent:n1:read", `'agent:read' on "n1"`},
		{"GET /v1/agent/service/web1", "", "service:web:read", `'service:read' on "web"`},
		{"GET /v1/agent/health/service/name/web", "", "service:web:read", `'service:read' on "web"`},
		{"PUT /v1/agent/reload", "", "agent:n1:write", `'agent:write' on "n1"`},
		{"PUT /v1/agent/maintenance?enable=true", "", "node:n1:write", `'node:write' on "n1"`},
		{"PUT /v1/agent/service/register", `{"Name":"db"}`, "service:db:write", `'service:write' on "db"`},
		{"PUT /v1/agent/service/deregister/web1", "", "service:web:write", `'service:write' on "web"`},
		{"PUT /v1/agent/service/maintenance/web1?enable=true", "", "service:web:write", `'service:write' on "web"`},
		{"PUT /v1/agent/check/register", `{"Name":"x","TTL":"1s"}`, "node:n1:write", `'node:write' on "n1"`},
		{"PUT /v1/agent/check/register", `{"Name":"x","TTL":"1s","ServiceID":"web1"}`, "service:web:write", `'service:write' on "web"`},
		{"PUT /v1/agent/check/pass/service:web1", "", "service:web:write", `'service:write' on "web"`},
		{"PUT /v1/agent/check/deregister/disk", "", "node:n1:write", `'node:write' on "n1"`},
		{"PUT /v1/agent/check/update/disk", `{"Status":"passing"}`, "node:n1:write", `'node:write' on "n1"`},
		{"PUT /v1/catalog/register", `{"Node":"x","Address":"1.1.1.1"}`, "node:x:write", `'node:write' on "x"`},
		{"PUT /v1/catalog/register", `{"Node":"n2","SkipNodeUpdate":true,"Service":{"Service":"db"}}`, "service:db:write", `'service:write' on "db"`},
		{"PUT /v1/catalog/register", `{"Node":"n2","SkipNodeUpdate":true,"Check":{"CheckID":"c","ServiceID":"web2","ServiceName":"mine"}}`, "service:web:write", `'service:write' on "web"`},
		{"PUT /v1/catalog/deregister", `{"Node":"n2"}`, "node:n2:write", `'node:write' on "n2"`},
		{"PUT /v1/catalog/deregister", `{"Node":"n2","ServiceID":"web2"}`, "service:web:write", `'service:write' on "web"`},
	}
	for _, tc := range tests {
		t.Run(tc.target+tc.body, func(t *testing.T) {
			method, target, _ := strings.Cut(tc.target, " ")
			granted := rules{}
			f := newFixture(t, func(c *httpapi.Config) { c.ACL = granted })
			w := f.do(t, method, target, tc.body, "X-Consul-Token", "t")
			if w.Code != 403 || !strings.HasPrefix(w.Body.String(), "Permission denied") || !strings.Contains(w.Body.String(), tc.missing) {
				t.Errorf("without the permission: %d %s", w.Code, w.Body)
			}
			if f.host.last() != "" {
				t.Errorf("a refused request did: %s", f.host.last())
			}
			granted[tc.grant] = true
			if w := f.do(t, method, target, tc.body, "X-Consul-Token", "t"); w.Code == 403 {
				t.Errorf("with %s: %d %s", tc.grant, w.Code, w.Body)
			}
		})
	}
}

func TestACL_ListsLeaveOutWhatTheTokenMayNotSee(t *testing.T) {
	f := newFixture(t, func(c *httpapi.Config) { c.ACL = rules{"service:web:read": true, "node:n1:read": true} })
	for target, want := range map[string][2]string{
		"/v1/catalog/nodes":       {`"Node":"n1"`, `"Node":"n2"`},
		"/v1/health/service/web":  {`"web1"`, `"web2"`},
		"/v1/catalog/service/web": {`"web1"`, `"web2"`},
		"/v1/health/state/any":    {`"service:web1"`, `"up"`},
		"/v1/agent/checks":        {`"disk"`, `"never"`},
	} {
		w := f.do(t, "GET", target, "", "Authorization", "Bearer t")
		if !strings.Contains(w.Body.String(), want[0]) || strings.Contains(w.Body.String(), want[1]) {
			t.Errorf("%s with a token: %s", target, w.Body)
		}
		if filtered := w.Header().Get("X-Consul-Results-Filtered-By-ACLs"); (filtered == "true") != (target != "/v1/agent/checks") {
			t.Errorf("%s: filtered header %q", target, filtered)
		}
		w = f.do(t, "GET", target, "")
		if strings.Contains(w.Body.String(), want[0]) || w.Header().Get("X-Consul-Results-Filtered-By-ACLs") != "" {
			t.Errorf("%s without: %s %v", target, w.Body, w.Header())
		}
	}
	if w := f.do(t, "GET", "/v1/catalog/nodes?token=wrong", ""); w.Code != 403 || w.Body.String() != "ACL not found" {
		t.Errorf("unknown token: %d %s", w.Code, w.Body)
	}
}

func TestToken_OrderIsParameterHeaderBearerDefault(t *testing.T) {
	f := newFixture(t, func(c *httpapi.Config) { c.DefaultToken = func() string { return "default" } })
	for want, req := range map[string][]string{
		"a": {"?token=a", "X-Consul-Token", "b", "Authorization", "Bearer c"},
		"b": {"", "X-Consul-Token", "b", "Authorization", "Bearer c"},
		"c": {"", "Authorization", "bearer c"},
		"":  {""}, // the agent's default is not kept with the service: it is the agent's anyway
	} {
		f.do(t, "PUT", "/v1/agent/service/register"+req[0], `{"Name":"db"}`, req[1:]...)
		if got := f.host.last(); !strings.Contains(got, fmt.Sprintf("token=%q", want)) {
			t.Errorf("want token %q: %s", want, got)
		}
	}
}

func TestCatalogHandler_NeedsAScopeAndLooksAtNoHost(t *testing.T) {
	f := newFixture(t)
	r := httptest.NewRequest("GET", "/v1/catalog/nodes", nil)
	r.Host = "attacker.example" // carried requests were judged where they came in
	w := httptest.NewRecorder()
	f.api.Catalog().ServeHTTP(w, r)
	if w.Code != 500 || !strings.Contains(w.Body.String(), "scope") {
		t.Errorf("without a scope: %d %s", w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	f.api.Catalog().ServeHTTP(w, r.WithContext(httpapi.WithScope(r.Context(), httpapi.Scope{Node: "far", Datacenter: "dc1"})))
	if w.Code != 200 || w.Header().Get("X-Consul-Index") != "1003" {
		t.Errorf("with one: %d %s", w.Code, w.Body)
	}
	r = httptest.NewRequest("GET", "/v1/agent/self", nil)
	w = httptest.NewRecorder()
	f.api.Catalog().ServeHTTP(w, r.WithContext(httpapi.WithScope(r.Context(), httpapi.Scope{Datacenter: "dc1"})))
	if w.Code != 404 {
		t.Errorf("a host's own endpoint was carried: %d", w.Code)
	}
}

// A service that this host's files define with a fault isn't there, and is critical: 503,
// as for one whose check fails, with the reason where Consul's clients look.
func TestAgentHealth_TellsWhatIsLeftOut(t *testing.T) {
	f := newFixture(t)
	f.fill(t)
	f.host.leftOut = []httpapi.LeftOut{
		{ID: "any1", Name: "any", What: `service "any1"`, Why: `x.hcl:2: key "service.address": no`},
		{ID: "web9", Name: "web", What: `service "web9"`, Why: `x.hcl:3: no`},
		{Check: true, ID: "c", Name: "c", ServiceID: "web1", What: `check "c"`, Why: `x.hcl:4: no`},
		{What: "service", Why: "x.hcl:5: without a name"},
	}
	for path, want := range map[string]struct {
		code int
		in   []string
	}{
		"name/any":              {503, []string{`"AggregatedStatus":"critical"`, `"ID":"any1"`, `"Service":"any"`, `"Output":"service \"any1\" is left out: x.hcl:2: key`}},
		"name/ANY":              {503, []string{`"ID":"any1"`}},
		"id/any1":               {503, []string{`"AggregatedStatus":"critical"`, `x.hcl:2`}},
		"id/any1?format=text":   {503, []string{`critical: service "any1" is left out: x.hcl:2: key "service.address": no`}},
		"name/any?format=text":  {503, []string{`critical: service "any1" is left out: x.hcl:2: key "service.address": no`}},
		"name/web":              {503, []string{`"ID":"web1"`, `"ID":"web9"`, `x.hcl:3`, `"LeftOut":["check \"c\" is left out: x.hcl:4: no"]`}},
		"id/":                   {404, []string{"not found"}},
		"name/?format=text":     {404, []string{"Not Found"}},
		"name/none?format=text": {404, []string{"ServiceName none Not Found"}},
	} {
		w := f.do(t, "GET", "/v1/agent/health/service/"+path, "")
		for _, in := range want.in {
			if w.Code != want.code || !strings.Contains(w.Body.String(), in) {
				t.Errorf("%s: %d %s; want %d with %s", path, w.Code, w.Body, want.code, in)
			}
		}
	}
}
