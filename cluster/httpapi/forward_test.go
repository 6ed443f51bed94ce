package httpapi_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/httpapi"
)

// elsewhere is a forwarder that notes what it is asked for, and answers if it is told to.
type elsewhere struct {
	answers     bool
	asked       []string
	token, node string
	body        [2]string
	entered     chan struct{} // if not nil: a word for each that came, which then waits
	hold        chan struct{}
}

func (e *elsewhere) Forward(w http.ResponseWriter, r *http.Request, c catalog.Consistency, effect catalog.Effect) bool {
	kind := map[catalog.Effect]string{catalog.Reads: "read ", catalog.Writes: "write ", catalog.Acts: "act "}[effect]
	if effect != catalog.Reads {
		for i := range e.body {
			data, _ := io.ReadAll(r.Body)
			e.body[i] = string(data)
			r.Body, _ = r.GetBody()
		}
	}
	scope, _ := httpapi.ScopeFrom(r.Context())
	e.asked, e.token, e.node = append(e.asked, kind+c.String()), r.Header.Get("X-Consul-Token"), scope.Node
	if e.hold != nil {
		e.entered <- struct{}{}
		<-e.hold
	}
	if e.answers {
		w.Header().Set("X-Consul-Index", "77")
		_, _ = io.WriteString(w, "from elsewhere")
	}
	return e.answers
}

func TestForward_AsksForEachReadAndWriteOfTheCatalog(t *testing.T) {
	const register = `{"Node":"x","Address":"10.0.0.9"}`
	tests := []struct{ method, target, body, want string }{
		{"GET", "/v1/catalog/nodes", "", "read leader"},
		{"HEAD", "/v1/catalog/nodes", "", "read leader"},
		{"GET", "/v1/catalog/services?stale", "", "read stale"},
		{"GET", "/v1/catalog/service/web?consistent", "", "read consistent"},
		{"GET", "/v1/health/service/web?max_stale=10s", "", "read stale"},
		{"GET", "/v1/health/service/web?max_stale=1ms", "", "read leader"},
		{"GET", "/v1/health/state/any?index=5", "", "read leader"},
		{"GET", "/v1/status/leader", "", "read leader"},
		{"PUT", "/v1/catalog/register", register, "write leader"},
		{"PUT", "/v1/catalog/register?stale", register, "write leader"},
		{"PUT", "/v1/catalog/deregister", `{"Node":"n2"}`, "write leader"},
		{"PUT", "/v1/meibo/forget/n2", "", "write leader"},
		{"GET", "/v1/operator/raft/configuration?stale", "", "read stale"},
		{"DELETE", "/v1/operator/raft/peer?id=b", "", "act leader"},
		{"PUT", "/v1/operator/raft/transfer-leader", "", "act leader"},
		{"POST", "/v1/operator/raft/transfer-leader?id=b", "", "act leader"},
		{"GET", "/v1/operator/autopilot/health", "", "read leader"},

		{"GET", "/v1/catalog/datacenters", "", ""},
		{"GET", "/v1/agent/services", "", ""},
		{"GET", "/v1/agent/members", "", ""},
		{"PUT", "/v1/agent/service/register", `{"Name":"db"}`, ""},
		{"GET", "/v1/operator/keyring", "", ""},
		{"GET", "/v1/nope", "", ""},
		{"GET", "/v1/catalog/nodes?stale&consistent", "", ""},
		{"GET", "/v1/catalog/nodes?index=x", "", ""},
		{"GET", "/v1/catalog/nodes?dc=dc9", "", ""},
		{"GET", "/v1/catalog/nodes?ns=other", "", ""},
		{"DELETE", "/v1/catalog/nodes", "", ""},
	}
	for _, tc := range tests {
		e := &elsewhere{answers: true}
		f := newFixture(t, func(c *httpapi.Config) { c.Forwarder = e })
		f.store.contact = time.Second
		w := f.do(t, tc.method, tc.target, tc.body)
		if got := strings.Join(e.asked, ", "); got != tc.want {
			t.Errorf("%s %s: asked for %q, want %q", tc.method, tc.target, got, tc.want)
		}
		if fromThere := w.Body.String() == "from elsewhere"; fromThere != (tc.want != "") {
			t.Errorf("%s %s: %d %q", tc.method, tc.target, w.Code, w.Body)
		}
		if e.body != [2]string{tc.body, tc.body} && strings.HasPrefix(tc.want, "write") {
			t.Errorf("%s %s: the body reads %q", tc.method, tc.target, e.body)
		}
	}
}

func TestForward_AnswersHereWhatNobodyElseDoes(t *testing.T) {
	e := &elsewhere{}
	f := newFixture(t, func(c *httpapi.Config) {
		c.Forwarder = e
		c.DefaultToken = func() string { return "this host's" }
	})
	w := f.do(t, "PUT", "/v1/catalog/register", `{"Node":"x","Address":"10.0.0.9"}`)
	if w.Code != 200 || w.Body.String() != "true" {
		t.Errorf("write: %d %s", w.Code, w.Body)
	}
	if w = f.do(t, "GET", "/v1/catalog/node/x", ""); !strings.Contains(w.Body.String(), "10.0.0.9") {
		t.Errorf("read: %d %s", w.Code, w.Body)
	}
	if e.token != "this host's" || e.node != "n1" {
		t.Errorf("forwarded with token %q of node %q", e.token, e.node)
	}
	if f.do(t, "GET", "/v1/catalog/nodes", "", "X-Consul-Token", "own"); e.token != "own" {
		t.Errorf("forwarded with token %q", e.token)
	}
}

func TestForward_BoundsBodiesAndWaits(t *testing.T) {
	e := &elsewhere{answers: true, entered: make(chan struct{}), hold: make(chan struct{})}
	f := newFixture(t, func(c *httpapi.Config) { c.Forwarder, c.MaxBody, c.MaxBlocking = e, 100, 1 })
	if w := f.do(t, "PUT", "/v1/catalog/register", strings.Repeat(" ", 101)); w.Code != http.StatusRequestEntityTooLarge || e.asked != nil {
		t.Errorf("a large body: %d, asked %v", w.Code, e.asked)
	}
	first := make(chan struct{})
	go func() {
		defer close(first)
		f.do(t, "GET", "/v1/catalog/nodes?index=5", "")
	}()
	<-e.entered
	if w := f.do(t, "GET", "/v1/catalog/nodes?index=5", ""); w.Code != http.StatusTooManyRequests {
		t.Errorf("one blocking query too many: %d %s", w.Code, w.Body)
	}
	close(e.hold)
	<-first
}

func TestCatalog_GoesByWhatACarriedRequestSays(t *testing.T) {
	e := &elsewhere{answers: true}
	f := newFixture(t, func(c *httpapi.Config) { c.Forwarder = e })
	carried := func(target string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", target, nil)
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		f.api.Catalog().ServeHTTP(w, r.WithContext(httpapi.WithScope(context.Background(), httpapi.Scope{Node: "n7", Datacenter: "dc1"})))
		return w
	}
	if w := carried("/v1/catalog/nodes", "X-Consul-Token", "t"); w.Code != 200 || e.token != "t" || e.node != "n7" {
		t.Errorf("%d, token %q of node %q", w.Code, e.token, e.node)
	}
	if w := carried("/v1/catalog/nodes?dc=dc9"); w.Code != 500 || w.Body.String() != "No path to datacenter" {
		t.Errorf("another datacenter: %d %s", w.Code, w.Body)
	}
	e.asked = nil
	if w := carried("/v1/operator/raft/configuration"); w.Code != 200 || len(e.asked) != 1 {
		t.Errorf("the servers' endpoints: %d, asked %v", w.Code, e.asked)
	}
	for _, target := range []string{"/v1/operator/keyring", "/v1/agent/leave", "/v1/agent/self", "/v1/meibo/members"} {
		if w := carried(target); w.Code/100 == 2 {
			t.Errorf("%s may be carried here", target)
		}
	}
}
