package control_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"meibo/cache"
	"meibo/resolver"
	"meibo/resolver/control"
	"meibo/resolver/resolvertest"
	"meibo/resolver/wire"
)

func newHandler(t *testing.T) (http.Handler, *resolvertest.Memory) {
	t.Helper()
	up := resolvertest.NewMemory()
	up.Set("www.example.", dns.TypeA, resolvertest.Rule{Records: []string{"www.example. 300 IN A 192.0.2.1"}})
	up.Set("1.2.0.192.in-addr.arpa.", dns.TypePTR, resolvertest.Rule{Records: []string{"1.2.0.192.in-addr.arpa. 300 IN PTR www.example."}})
	c, err := cache.New(cache.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := resolver.New(resolver.Config{Cache: c, Table: resolver.Table{Mounts: []resolver.Mount{up.Mount(wire.Root)}}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := control.New(control.Config{Resolver: r, Cache: c, Instances: func(_ context.Context, name string) []control.Instance {
		if name != "www.example." {
			return nil
		}
		return []control.Instance{{Node: "n1", ServiceID: "www", Status: "critical", Reason: "a check is critical", CheckID: "c1", Output: "no"}}
	}})
	if err != nil {
		t.Fatal(err)
	}
	return h, up
}

func call(h http.Handler, method, url string, into any) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, url, nil))
	if into != nil {
		json.Unmarshal(w.Body.Bytes(), into)
	}
	return w.Code, w.Body.String()
}

func TestLookup_ShowsTheAnswerAndWhereItCameFrom(t *testing.T) {
	h, up := newHandler(t)
	var l control.Lookup
	if code, body := call(h, "GET", "/v1/meibo/lookup?name=WWW.example", &l); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	if l.Rcode != "NOERROR" || l.Type != "A" || l.Source != "upstream memory" || l.Mount != "default route" || l.Cached ||
		len(l.Answer) != 1 || !strings.HasSuffix(l.Answer[0], "192.0.2.1") || !slices.Equal(l.Flags, []string{"qr", "rd", "ra"}) ||
		l.LeftSeconds == nil || *l.LeftSeconds < 299 {
		t.Errorf("got %+v", l)
	}
	call(h, "GET", "/v1/meibo/lookup?name=www.example&type=a", &l)
	if !l.Cached || len(l.Instances) != 1 || l.Instances[0].CheckID != "c1" {
		t.Errorf("again: got %+v", l)
	}
	l = control.Lookup{}
	call(h, "GET", "/v1/meibo/lookup?name=192.0.2.1", &l)
	if l.Type != "PTR" || len(l.Answer) != 1 || l.Instances != nil {
		t.Errorf("an address: got %+v", l)
	}
	up.SetState(resolvertest.Refused)
	l = control.Lookup{}
	call(h, "GET", "/v1/meibo/lookup?name=new.example&type=TYPE65280", &l)
	if l.Rcode != "SERVFAIL" || l.EDE == nil || l.EDE.Code != 23 || l.Error == "" || l.Mount != "" {
		t.Errorf("with the upstream gone: got %+v", l)
	}
}

func TestBadParametersAreNamed(t *testing.T) {
	h, _ := newHandler(t)
	for url, want := range map[string]string{
		"GET /v1/meibo/lookup":                                 "name is missing",
		"GET /v1/meibo/lookup?name=a..b":                       "empty label",
		"GET /v1/meibo/lookup?name=a&type=NOPE":                "NOPE",
		"PUT /v1/meibo/cache/flush?name=":                      "flush takes",
		"PUT /v1/meibo/cache/flush?name=a.b&suffix=c.d":        "flush takes",
		"GET /v1/meibo/lookup?name=" + strings.Repeat("a", 64): "63",
	} {
		method, path, _ := strings.Cut(url, " ")
		if code, body := call(h, method, path, nil); code != 400 || !strings.Contains(body, want) {
			t.Errorf("%s: got %d %q, want 400 that says %q", url, code, body, want)
		}
	}
	if code, _ := call(h, "GET", "/v1/meibo/cache/flush", nil); code != 405 {
		t.Errorf("flush by GET: %d", code)
	}
}

func TestCache_StatsAndFlush(t *testing.T) {
	h, up := newHandler(t)
	lookup := func() { call(h, "GET", "/v1/meibo/lookup?name=www.example", nil) }
	for i, flush := range []string{"", "?name=www.example", "?suffix=example."} {
		lookup()
		var st cache.Stats
		if call(h, "GET", "/v1/meibo/cache", &st); st.Entries != 1 || st.Bytes == 0 {
			t.Errorf("got %+v", st)
		}
		if code, body := call(h, "PUT", "/v1/meibo/cache/flush"+flush, nil); code != 200 {
			t.Errorf("flush%s: %d %s", flush, code, body)
		}
		lookup()
		if up.Asked() != i+2 {
			t.Errorf("after flush%s the upstream was asked %d times in all, want %d", flush, up.Asked(), i+2)
		}
	}
}

func TestNew_WantsAResolver(t *testing.T) {
	if _, err := control.New(control.Config{}); err == nil {
		t.Error("no error")
	}
}
