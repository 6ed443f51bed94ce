package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"meibo/cluster/catalog"
	"meibo/cluster/httpapi"
	"meibo/cluster/httpapi/client"
)

// serve runs the fixture on real sockets until the test ends.
func (f *fixture) serve(t *testing.T, cfg httpapi.ServerConfig) []net.Addr {
	t.Helper()
	cfg.Handler = f.api
	s, err := httpapi.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s.Addrs()
}

func newClient(t *testing.T, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestServer_SaysWhichAddressItCannotHave(t *testing.T) {
	f := newFixture(t)
	addr := f.serve(t, httpapi.ServerConfig{Addrs: []string{"127.0.0.1:0"}})[0].String()
	_, err := httpapi.NewServer(httpapi.ServerConfig{Handler: f.api, Addrs: []string{"127.0.0.1:0", addr}})
	if err == nil || !strings.Contains(err.Error(), "listen for http on "+addr) {
		t.Errorf("got %v", err)
	}
}

func TestServer_BothUnspecifiedAddressesStandBesideEachOther(t *testing.T) {
	f := newFixture(t)
	for attempt := range 20 { // somebody else may take the port meanwhile
		free, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		port := free.Addr().(*net.TCPAddr).Port
		_ = free.Close()
		s, err := httpapi.NewServer(httpapi.ServerConfig{Handler: f.api, Addrs: []string{fmt.Sprintf("0.0.0.0:%d", port), fmt.Sprintf("[::]:%d", port)}})
		if err == nil {
			_ = s.Close()
			return
		}
		if attempt == 19 {
			t.Error(err)
		}
	}
}

func TestServer_SocketFileIsTakenOverFromTheDeadOnly(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(t.TempDir(), "http.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if _, err := httpapi.NewServer(httpapi.ServerConfig{Handler: f.api, Addrs: []string{"unix://" + path}}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a live socket was taken: %v", err)
	}
	dead.Close()
	f.serve(t, httpapi.ServerConfig{Addrs: []string{"unix://" + path}, SocketMode: 0o600})
	c := newClient(t, client.Config{Address: "unix://" + path})
	if self, err := c.Self(t.Context()); err != nil || self.Config.NodeName != "n1" {
		t.Errorf("over the socket file: %+v, %v", self, err)
	}
}

func TestServer_BoundsTheConnectionsOfOneClient(t *testing.T) {
	f := newFixture(t)
	addr := f.serve(t, httpapi.ServerConfig{Addrs: []string{"127.0.0.1:0"}, ConnsPerClient: 3})[0].String()
	var conns []net.Conn
	for range 3 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := ask(t, conn); !strings.HasPrefix(got, "HTTP/1.1 200") {
			t.Fatalf("within the bound: %s", got)
		}
		conns = append(conns, conn)
	}
	over, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	refusal, _ := io.ReadAll(over) // may end in a reset
	if !strings.HasPrefix(string(refusal), "HTTP/1.1 429") {
		t.Errorf("over the bound: %q", refusal)
	}
	conns[0].Close()
	eventually(t, "a place to become free", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		defer conn.Close()
		return strings.HasPrefix(ask(t, conn), "HTTP/1.1 200")
	})
}

// ask sends one request on the connection and returns the status line.
func ask(t *testing.T, conn net.Conn) string {
	t.Helper()
	_, _ = fmt.Fprintf(conn, "GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\n\r\n")
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return line
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for tick := time.NewTicker(10 * time.Millisecond); !ok(); {
		select {
		case <-deadline:
			tick.Stop()
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}

func TestServer_StopAnswersBlockingQueries(t *testing.T) {
	f := newFixture(t)
	s, err := httpapi.NewServer(httpapi.ServerConfig{Handler: f.api, Addrs: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	c := newClient(t, client.Config{Address: s.Addrs()[0].String()})
	answered := make(chan error, 1)
	reads := f.store.reads.Load()
	go func() {
		nodes, meta, err := c.Nodes(t.Context(), &client.Query{Index: 1003})
		if err == nil && (len(nodes) != 2 || meta.Index != 1003) {
			err = fmt.Errorf("%d nodes at %d", len(nodes), meta.Index)
		}
		answered <- err
	}()
	eventually(t, "the query to wait", func() bool { return f.store.reads.Load() > reads })
	cancel()
	if err := <-answered; err != nil {
		t.Errorf("the blocked query: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestServer_RefusesLargeHeaders(t *testing.T) {
	f := newFixture(t)
	addr := f.serve(t, httpapi.ServerConfig{Addrs: []string{"127.0.0.1:0"}})[0].String()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+"/v1/status/leader", nil)
	req.Header.Set("X-Large", strings.Repeat("x", 64<<10))
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return // cut while we were still sending: refused as well
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %s", resp.Status)
	}
}

// The bound is that of the whole header, to the octet.
func TestServer_TakesHeadersUpToTheBound(t *testing.T) {
	addr := newFixture(t).serve(t, httpapi.ServerConfig{Addrs: []string{"127.0.0.1:0"}})[0].String()
	const begin, end = "GET /v1/status/leader HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Large: ", "\r\n\r\n"
	for size, want := range map[int]string{httpapi.DefaultHeaderBytes: "HTTP/1.1 200 ", httpapi.DefaultHeaderBytes + 1: "HTTP/1.1 431 "} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(conn, begin+strings.Repeat("x", size-len(begin)-len(end))+end)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
			t.Errorf("a header of %d octets: %q, %v, want %q", size, got, err, want)
		}
		_ = conn.Close()
	}
}

type panicking struct{ *store }

func (panicking) Leader(context.Context) string { panic("boom") }

func TestPanic_IsAnsweredAndCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	f := newFixture(t, func(c *httpapi.Config) { c.Backend, c.Gatherer = panicking{c.Backend.(*store)}, reg })
	w := f.do(t, "GET", "/v1/status/leader", "")
	if w.Code != 500 || !strings.Contains(w.Body.String(), "internal error") || strings.Contains(w.Body.String(), "boom") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	reg.MustRegister(f.api)
	if got := f.do(t, "GET", "/metrics", "").Body.String(); !strings.Contains(got, "\nmeibo_http_panics_total 1\n") {
		t.Errorf("not counted: %s", got)
	}
	if w := f.do(t, "GET", "/v1/catalog/nodes", ""); w.Code != 200 {
		t.Errorf("afterwards: %d", w.Code)
	}
}

func TestMetrics_AreShownInBothForms(t *testing.T) {
	reg := prometheus.NewRegistry()
	f := newFixture(t, func(c *httpapi.Config) { c.Gatherer = reg })
	reg.MustRegister(f.api)
	f.do(t, "GET", "/v1/catalog/nodes", "")
	for target, want := range map[string]string{
		"/metrics":                            `meibo_http_requests_total{code="200",route="/v1/catalog/nodes"} 1`,
		"/v1/agent/metrics?format=prometheus": `meibo_http_requests_total{code="200",route="/v1/catalog/nodes"} 1`,
		"/v1/agent/metrics": `{"Name":"meibo_http_requests_total","Count":1,"Rate":0,"Sum":1,"Min":1,"Max":1,"Mean":1,"Stddev":0,` +
			`"Labels":{"code":"200","route":"/v1/catalog/nodes"}}`,
	} {
		if w := f.do(t, "GET", target, ""); w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	f.do(t, "GET", "/v1/kv/"+strings.Repeat("x", 100), "")
	f.do(t, "GET", "/made/up", "")
	if got := f.do(t, "GET", "/metrics", "").Body.String(); strings.Contains(got, "xxxx") || strings.Contains(got, "made/up") {
		t.Error("a label holds what a client sent")
	}
}

func TestMetrics_PrefixAndFormat(t *testing.T) {
	for prefix, want := range map[string]string{
		"": "meibo_http_requests_total", "meibo": "meibo_http_requests_total", "consul": "consul_http_requests_total",
		"my.app-1": "my_app_1_http_requests_total", "1": "_1_http_requests_total",
	} {
		reg := prometheus.NewRegistry()
		f := newFixture(t, func(c *httpapi.Config) { c.Gatherer, c.MetricsPrefix = reg, prefix })
		reg.MustRegister(f.api)
		f.do(t, "GET", "/v1/catalog/nodes", "")
		for target, form := range map[string]string{"/metrics": "\n%s{", "/v1/agent/metrics?format=prometheus": "\n%s{", "/v1/agent/metrics": `"Name":"%s"`} {
			if w := f.do(t, "GET", target, ""); w.Code != 200 || !strings.Contains(w.Body.String(), strings.Replace(form, "%s", want, 1)) {
				t.Errorf("%q, %s: %d %s", prefix, target, w.Code, w.Body)
			}
		}
	}
	f := newFixture(t, func(c *httpapi.Config) { c.NoPrometheus = true })
	for target, want := range map[string]int{"/v1/agent/metrics?format=prometheus": 415, "/v1/agent/metrics": 200, "/metrics": 200} {
		if w := f.do(t, "GET", target, ""); w.Code != want {
			t.Errorf("%s without a retention time: %d %s", target, w.Code, w.Body)
		}
	}
}

// cut is a client that takes so many bytes and is gone then.
type cut struct {
	*httptest.ResponseRecorder
	takes int
}

func (c *cut) Write(p []byte) (int, error) {
	if c.takes -= len(p); c.takes < 0 {
		return 0, syscall.ECONNRESET
	}
	return c.ResponseRecorder.Write(p)
}

// A client that goes away in the midst of an answer is no line in the log, whatever it asked.
func TestAPI_ClientThatGoesIsNoWarning(t *testing.T) {
	var log bytes.Buffer
	var broken error
	reg := prometheus.NewRegistry()
	f := newFixture(t, func(c *httpapi.Config) {
		c.Gatherer = prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
			families, err := reg.Gather()
			return families, errors.Join(err, broken)
		})
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	reg.MustRegister(f.api, collectors.NewGoCollector())
	for _, path := range f.api.Paths() {
		for _, query := range []string{"", "?format=prometheus", "?pretty"} {
			for _, takes := range []int{0, 1000} {
				r := httptest.NewRequest(http.MethodGet, path+query, nil).WithContext(canceled(t))
				r.Host = "127.0.0.1:8500"
				f.api.ServeHTTP(&cut{httptest.NewRecorder(), takes}, r)
			}
		}
	}
	if log.Len() > 0 {
		t.Errorf("log: %s", log.String())
	}
	broken = errors.New("no figure")
	f.do(t, "GET", "/metrics", "")
	if got := log.String(); strings.Count(got, "gather metrics") != 1 || !strings.Contains(got, "no figure") {
		t.Errorf("a collector that is broken is said in: %q", got)
	}
}

// canceled is the context of a request whose client is gone.
func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestServer_SocketFileIsGivenAway(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(t.TempDir(), "http.sock")
	mine := func(user, group string, mode os.FileMode) httpapi.ServerConfig {
		return httpapi.ServerConfig{Handler: f.api, Addrs: []string{"unix://" + path}, SocketUser: user, SocketGroup: group, SocketMode: mode}
	}
	for _, cfg := range []httpapi.ServerConfig{mine("nobody-of-this-name", "", 0), mine("", "nobody-of-this-name", 0)} {
		if _, err := httpapi.NewServer(cfg); err == nil || !strings.Contains(err.Error(), "nobody-of-this-name") {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("the socket file is left behind")
		}
	}
	uid, gid := os.Getuid(), os.Getgid()
	user, group := strconv.Itoa(uid), strconv.Itoa(gid)
	if uid == 0 { // only root may give files away
		uid, gid, user, group = 1, 65534, "daemon", "65534"
	}
	f.serve(t, mine(user, group, 0o660))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Sys().(*syscall.Stat_t); int(got.Uid) != uid || int(got.Gid) != gid || info.Mode().Perm() != 0o660 {
		t.Errorf("got %d:%d %v, want %d:%d", got.Uid, got.Gid, info.Mode(), uid, gid)
	}
}

func TestMounts_StandBehindTheGuard(t *testing.T) {
	f := newFixture(t, func(c *httpapi.Config) {
		c.Mounts = map[string]http.Handler{"/v1/meibo/": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "mounted "+r.URL.Path) })}
	})
	if w := f.do(t, "GET", "/v1/meibo/top", ""); w.Body.String() != "mounted /v1/meibo/top" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	if w := f.do(t, "GET", "/v1/meibo/top", "", "Host", "attacker.example"); w.Code != 403 {
		t.Errorf("a foreign host reached it: %d", w.Code)
	}
}

// TestClient_SpeaksEveryEndpoint drives the handlers with the client, over a socket.
func TestClient_SpeaksEveryEndpoint(t *testing.T) {
	f := newFixture(t)
	addr := f.serve(t, httpapi.ServerConfig{Addrs: []string{"127.0.0.1:0"}})[0].String()
	c, ctx := newClient(t, client.Config{Address: addr}), t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	is := func(what string, ok bool) {
		t.Helper()
		if !ok {
			t.Errorf("wrong: %s", what)
		}
	}

	self, err := c.Self(ctx)
	must(err)
	is("self", self.Config.NodeName == "n1" && self.Config.Version == "1.21.0+meibo0.1.0" && self.Member.Status == 1)
	members, err := c.Members(ctx, true)
	must(err)
	is("members", len(members) == 1 && members[0].Name == "n1.dc1")

	must(c.RegisterService(ctx, client.ServiceRegistration{ID: "a/b", Name: "db", Port: 5432,
		Checks: []client.CheckRegistration{{TTL: "10s"}}}, true))
	is("register: "+f.host.last(), f.host.last() == `register service a/b token="" checks=1 replace=true`)
	services, err := c.AgentServices(ctx, "")
	must(err)
	is("services", len(services) == 2 && services["a/b"].Port == 5432)
	service, meta, err := c.AgentService(ctx, "a/b", nil)
	must(err)
	is("service", service.Service == "db" && meta.Hash != "")
	checks, err := c.AgentChecks(ctx, "ServiceID == `a/b`")
	must(err)
	is("checks", len(checks) == 1)
	must(c.ServiceMaintenance(ctx, "a/b", true, "why"))
	must(c.DeregisterService(ctx, "a/b"))
	must(c.NodeMaintenance(ctx, false, ""))
	must(c.RegisterCheck(ctx, client.CheckRegistration{CheckID: "mem", Name: "mem", TTL: "10s"}))
	must(c.UpdateTTL(ctx, "mem", catalog.Passing, "fine"))
	must(c.DeregisterCheck(ctx, "mem"))
	f.host.remark = "ports.dns waits"
	remark, err := c.Reload(ctx)
	must(err)
	is("reload", f.host.last() == "reload" && remark == "ports.dns waits")

	dcs, err := c.Datacenters(ctx)
	must(err)
	is("datacenters", len(dcs) == 1 && dcs[0] == "dc1")
	nodes, meta, err := c.Nodes(ctx, &client.Query{NodeMeta: map[string]string{"rack": "r1"}})
	must(err)
	is("nodes", len(nodes) == 1 && nodes[0].Address == "10.0.0.1" && meta.Index == 1003 && meta.KnownLeader)
	names, _, err := c.Services(ctx, nil)
	must(err)
	is("names", len(names["web"]) == 2)
	flat, _, err := c.Service(ctx, "web", &client.Query{Tags: []string{"v1", "blue"}})
	must(err)
	is("catalog service", len(flat) == 1 && flat[0].ServicePort == 80)
	node, _, err := c.Node(ctx, "n1", nil)
	must(err)
	is("node", node.Node.Node == "n1" && node.Services["web1"].Port == 80)
	node, _, err = c.Node(ctx, "nope", nil)
	must(err)
	is("no node", node == nil)
	instances, _, err := c.Health(ctx, "web", &client.Query{Passing: true, Stale: true, Filter: "Node.Node == n2"})
	must(err)
	is("health", len(instances) == 1 && instances[0].Status() == catalog.Passing && instances[0].Node.Node == "n2")
	list, _, err := c.NodeChecks(ctx, "n1", nil)
	must(err)
	is("node checks", len(list) == 2)
	list, _, err = c.ServiceChecks(ctx, "web", nil)
	must(err)
	is("service checks", len(list) == 1)
	list, _, err = c.ChecksInState(ctx, "any", nil)
	must(err)
	is("checks in state", len(list) == 3)

	meta, err = c.Register(ctx, client.Registration{Node: "n1", Address: "10.0.0.1",
		Service: &catalog.Service{Service: "x"}, Checks: []*catalog.Check{{CheckID: "c", Status: catalog.Passing}}})
	must(err)
	is("warning", strings.Contains(meta.Warning, "agent"))
	_, err = c.Deregister(ctx, client.Deregistration{Node: "n1", ServiceID: "x"})
	must(err)
	leader, err := c.Leader(ctx)
	must(err)
	peers, err := c.Peers(ctx)
	must(err)
	is("leader", leader == "127.0.0.1:8300" && len(peers) == 1)

	_, err = c.Get(ctx, "/v1/kv/a", nil, nil)
	is(fmt.Sprint("not there yet: ", err), err != nil && strings.Contains(err.Error(), "not there yet") && strings.Contains(err.Error(), "501"))
	_, _, err = c.AgentService(ctx, "nope", nil)
	is(fmt.Sprint("not found: ", err), client.IsNotFound(err))
	_, _, err = c.Nodes(ctx, &client.Query{Datacenter: "dc9"})
	is(fmt.Sprint("datacenter: ", err), err != nil && strings.Contains(err.Error(), "No path to datacenter"))
}

// What an operator alone may do: over the control socket, and nowhere else unless that is configured.
func TestControl_OperatorsAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	f := newFixture(t, func(c *httpapi.Config) { c.OperatorOpen, c.Control = false, func() string { return path } })
	f.serve(t, httpapi.ServerConfig{Addrs: []string{"unix://" + path}, Control: true})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	control := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	const key = `{"Key":"MDEyMzQ1Njc4OWFiY2RlZg=="}`
	for _, tc := range []struct{ method, target, body string }{
		{"PUT", "/v1/agent/leave", ""},
		{"PUT", "/v1/agent/force-leave/n2", ""},
		{"PUT", "/v1/agent/force-leave/n2?prune=1", ""},
		{"PUT", "/v1/meibo/forget/n2", ""},
		{"DELETE", "/v1/operator/raft/peer?id=b", ""},
		{"POST", "/v1/operator/keyring", key},
		{"PUT", "/v1/operator/keyring", key},
		{"DELETE", "/v1/operator/keyring", key},
	} {
		w := f.do(t, tc.method, tc.target, tc.body)
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), path) || !strings.Contains(w.Body.String(), `operator = "open"`) {
			t.Errorf("%s %s: %d %s", tc.method, tc.target, w.Code, w.Body)
		}
		if did := f.host.last(); did != "" {
			t.Errorf("%s %s: refused, and did %s", tc.method, tc.target, did)
		}
	}
	for _, tc := range []struct{ method, target, body string }{{"PUT", "/v1/agent/leave", ""}, {"PUT", "/v1/meibo/forget/n2", ""}, {"POST", "/v1/operator/keyring", key}} {
		r, err := http.NewRequest(tc.method, "http://anything"+tc.target, strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := control.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("over the socket: %s %s: %d %s", tc.method, tc.target, resp.StatusCode, text)
		}
	}
	if err := f.api.SetAccess(httpapi.Config{OperatorOpen: true}); err != nil {
		t.Fatal(err)
	}
	if w := f.do(t, "PUT", "/v1/agent/leave", ""); w.Code != http.StatusOK {
		t.Errorf("opened: %d %s", w.Code, w.Body)
	}
}

// Any local user reaches the API: none may read a key there.
func TestControl_KeysAreShownAsFingerprints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	f := newFixture(t, func(c *httpapi.Config) { c.OperatorOpen, c.Control = false, func() string { return path } })
	f.serve(t, httpapi.ServerConfig{Addrs: []string{"unix://" + path}, Control: true})
	open := newFixture(t).do(t, "GET", "/v1/operator/keyring", "").Body.String()
	var rings []client.Keyring
	if err := json.Unmarshal([]byte(open), &rings); err != nil || len(rings) == 0 || len(rings[0].Keys) == 0 {
		t.Fatalf("%v: %s", err, open)
	}
	closed := f.do(t, "GET", "/v1/operator/keyring", "")
	if closed.Code != http.StatusOK || strings.Count(closed.Body.String(), "sha256:") == 0 {
		t.Errorf("%d %s", closed.Code, closed.Body)
	}
	for key := range rings[0].Keys {
		if strings.Contains(closed.Body.String(), key) {
			t.Errorf("the key is shown: %s", closed.Body)
		}
	}
	over, err := newClient(t, client.Config{Address: "unix://" + path}).Keyring(t.Context(), false)
	if err != nil || !reflect.DeepEqual(over, rings) {
		t.Errorf("over the socket: %v, %v", over, err)
	}
}

func TestControl_OtherUsersAreCutOff(t *testing.T) {
	if path := os.Getenv("MEIBO_TEST_CONTROL"); path != "" { // as another user, below
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "GET /v1/agent/self HTTP/1.1\r\nHost: x\r\n\r\n")
		text, _ := io.ReadAll(conn)
		fmt.Printf("got: %s", text)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	dir, err := os.MkdirTemp("", "control") // that others may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "control.sock")
	f := newFixture(t)
	f.serve(t, httpapi.ServerConfig{Addrs: []string{"unix://" + path}, Control: true})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []error{os.Chmod(dir, 0o755), os.Chmod(path, 0o666), copyFile(self, filepath.Join(dir, "other"), 0o755)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	cmd := exec.Command(filepath.Join(dir, "other"), "-test.run", "^TestControl_OtherUsersAreCutOff$")
	cmd.Env, cmd.Dir = append(os.Environ(), "MEIBO_TEST_CONTROL="+path), dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "403 Forbidden") || strings.Contains(string(out), "NodeName") {
		t.Errorf("%v: %s", err, out)
	}
}

func copyFile(from, to string, mode os.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, mode)
}
