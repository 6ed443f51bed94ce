package httpapi_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"meibo/cluster/catalog"
	"meibo/cluster/catalog/state"
	"meibo/cluster/definition"
	"meibo/cluster/httpapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const historyID = "11111111-2222-3333-4444-555555555555"

// store is a backend over the real state machine, without Raft.
type store struct {
	*state.Store
	mu       sync.Mutex // guards following
	index    uint64
	noLeader atomic.Bool
	contact  time.Duration
	kept     catalog.Reader // what the host knows of every service; nil: nothing
	reads    atomic.Int64
}

func newStore(t testing.TB) *store {
	s := &store{Store: state.New()}
	s.must(t, &catalog.BeginHistory{ID: historyID, Base: 1000})
	return s
}

func (s *store) must(t testing.TB, body catalog.Body) {
	t.Helper()
	if _, err := s.Apply(context.Background(), body); err != nil {
		t.Fatalf("apply %T: %v", body, err)
	}
}

func (s *store) Read(_ context.Context, c catalog.Consistency) (catalog.Reader, catalog.ReadInfo, error) {
	s.reads.Add(1)
	led := !s.noLeader.Load()
	if !led && c != catalog.Stale {
		return nil, catalog.ReadInfo{}, catalog.ErrNoLeader
	}
	contact := s.contact
	if c != catalog.Stale {
		contact = 0
	}
	return s.Store.Read(), catalog.ReadInfo{KnownLeader: led, LastContact: contact}, nil
}

func (s *store) ReadKept(string) (catalog.Reader, catalog.ReadInfo, bool) {
	if s.kept == nil {
		return nil, catalog.ReadInfo{}, false
	}
	return s.kept, catalog.ReadInfo{KnownLeader: s.contact == 0, LastContact: s.contact, Kept: true}, true
}

func (s *store) Apply(_ context.Context, body catalog.Body) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noLeader.Load() {
		return 0, catalog.ErrNoLeader
	}
	cmd, err := catalog.Command{Time: time.Unix(1_700_000_000, 0), Body: body}.Encode()
	if err != nil {
		return 0, err
	}
	s.index++
	if reply := s.Store.Apply(s.index, cmd); reply != nil {
		return s.index, reply.(error)
	}
	return s.index, nil
}

func (s *store) AwaitView(context.Context, uint64) {}

func (s *store) Leader(context.Context) string {
	if s.noLeader.Load() {
		return ""
	}
	return "127.0.0.1:8300"
}

func (s *store) Peers(context.Context) []string { return []string{"127.0.0.1:8300"} }

// host is an agent that keeps what it is given.
type host struct {
	mu       sync.Mutex // guards following
	services map[string]*catalog.Service
	checks   map[string]*catalog.Check
	changed  chan struct{}
	calls    []string
	fail     error
	leftOut  []httpapi.LeftOut
	remark   string // of what is asked of it
}

func (h *host) Monitor(ctx context.Context, level slog.Level, json bool) <-chan []byte {
	lines := make(chan []byte, 2)
	lines <- fmt.Appendf(nil, "from %s json=%v\n", level, json)
	context.AfterFunc(ctx, func() { close(lines) })
	return lines
}

func (h *host) Host() map[string]any { return map[string]any{"CollectionTime": noon.UnixNano()} }

func (h *host) LeftOut() []httpapi.LeftOut { return h.leftOut }

func newHost() *host {
	return &host{
		services: map[string]*catalog.Service{}, checks: map[string]*catalog.Check{}, changed: make(chan struct{}),
	}
}

func (h *host) did(format string, args ...any) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
	return h.fail
}

func (h *host) touch() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *host) Services() map[string]*catalog.Service {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.services)
}

func (h *host) Checks() map[string]*catalog.Check {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.checks)
}

func (h *host) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

func (h *host) RegisterService(_ context.Context, def definition.Service, replace bool) error {
	h.mu.Lock()
	h.services[def.ID] = def.Record("")
	for i, c := range def.Checks {
		id := c.ID
		if id == "" {
			id = fmt.Sprintf("service:%s:%d", def.ID, i+1)
		}
		h.checks[id] = &catalog.Check{CheckID: id, Name: c.Name, Status: catalog.Critical, ServiceID: def.ID, ServiceName: def.Name}
	}
	h.touch()
	h.mu.Unlock()
	return h.did("register service %s token=%q checks=%d replace=%v", def.ID, def.Token, len(def.Checks), replace)
}

func (h *host) DeregisterService(_ context.Context, id string) error {
	h.mu.Lock()
	delete(h.services, id)
	h.touch()
	h.mu.Unlock()
	return h.did("deregister service %s", id)
}

func (h *host) RegisterCheck(_ context.Context, def definition.Check) error {
	h.mu.Lock()
	h.checks[def.ID] = &catalog.Check{CheckID: def.ID, Name: def.Name, Status: catalog.Critical, ServiceID: def.ServiceID}
	h.touch()
	h.mu.Unlock()
	return h.did("register check %s service=%q http=%q interval=%v ttl=%v args=%q", def.ID, def.ServiceID, def.HTTP, def.Interval, def.TTL, def.ScriptArgs)
}

func (h *host) DeregisterCheck(_ context.Context, id string) error {
	return h.did("deregister check %s", id)
}

func (h *host) UpdateTTL(_ context.Context, id, status, output string) error {
	return h.did("update %s %s %q", id, status, output)
}

func (h *host) ServiceMaintenance(_ context.Context, id string, enable bool, reason string) error {
	return h.did("maintenance of %s %v %q", id, enable, reason)
}

func (h *host) NodeMaintenance(_ context.Context, enable bool, reason string) error {
	return h.did("maintenance %v %q", enable, reason)
}

func (h *host) Self() httpapi.Self {
	return httpapi.Self{
		NodeID: "aaaaaaaa-0000-0000-0000-000000000001", NodeName: "n1", Datacenter: "dc1", Server: true,
		Member: h.Members()[0], Meta: map[string]string{"rack": "r1"},
		Stats: map[string]map[string]string{"agent": {"checks": "1"}}, Debug: map[string]any{"DNSPort": 8600},
	}
}

func (h *host) Members() []httpapi.Member {
	return []httpapi.Member{{
		Name: "n1", Addr: "127.0.0.1", Port: 8301, Tags: map[string]string{"role": "consul", "dc": "dc1"},
		Status: httpapi.MemberAlive, ProtocolMin: 1, ProtocolMax: 5, ProtocolCur: 2, DelegateMin: 2, DelegateMax: 5, DelegateCur: 4,
		Detail: httpapi.MemberDetail{
			ID: "aaaaaaaa-0000-0000-0000-000000000001", State: "alive", Since: noon, Told: "failed", ToldBy: "n2", ToldAt: noon.Add(time.Second),
			HeldUntil: noon.Add(time.Minute), Flaps: 2, RTT: 1500 * time.Microsecond, Conflict: "n9 has the same ID", History: "1111111122223333",
		},
	}}
}

func (h *host) Standing() httpapi.Standing {
	return httpapi.Standing{History: historyID, Index: 1002, Confirmed: noon, Server: "10.0.0.2:8300", ServerSince: noon.Add(-time.Hour), Merging: true}
}

func (h *host) KnowsNode(_ context.Context, name string) bool { return name != "nobody" }

func (h *host) Unconfirmed() []httpapi.UnconfirmedNode {
	return []httpapi.UnconfirmedNode{
		{Node: "n2", ID: "aaaaaaaa-0000-0000-0000-000000000002", Address: "10.0.0.2", Services: []string{"db"}, Confirmed: noon},
		{Node: "printer", Address: "192.0.2.9", All: true},
	}
}

func (h *host) Join(_ context.Context, addr string) error { return h.did("join %s", addr) }

func (h *host) Leave(context.Context) error { return h.did("leave") }

func (h *host) ForceLeave(_ context.Context, node string, prune bool) (string, error) {
	return h.remark, h.did("force-leave %s prune=%v", node, prune)
}

func (h *host) Reload(context.Context) (string, error) { return h.remark, h.did("reload") }

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// operator is a cluster of three servers, of which the last is away.
type operator struct{ *host }

func (o operator) Keyring(_ context.Context, op httpapi.KeyringOp, key string, opt httpapi.KeyringOptions) ([]httpapi.KeyringResponse, error) {
	if op != httpapi.KeyringList {
		r := httpapi.KeyringResponse{Datacenter: "dc1", NumNodes: 3}
		if key == "bad" {
			r.Messages, r.Error = map[string]string{"n2": "the disk is full", "n3": "no answer"}, "2/3 nodes reported failure"
		}
		return []httpapi.KeyringResponse{r}, o.did("keyring %s %s", op, key)
	}
	return []httpapi.KeyringResponse{{
		Datacenter: "dc1", NumNodes: 3, Keys: map[string]int{"b2xk": 3, "bmV3": 2}, PrimaryKeys: map[string]int{"b2xk": 3},
		Messages: map[string]string{"n3": "no answer"}, Error: "1/3 nodes reported failure",
	}}, o.did("keyring list local=%v", opt.LocalOnly)
}

func (o operator) RaftConfiguration(context.Context) (httpapi.RaftConfiguration, error) {
	return httpapi.RaftConfiguration{Index: 7, Servers: []httpapi.RaftServer{
		{ID: "a", Node: "n1", Address: "10.0.0.1:8300", Leader: true, Voter: true, ProtocolVersion: "3"},
		{ID: "b", Node: "n2", Address: "10.0.0.2:8300", ProtocolVersion: "3"},
	}}, o.did("configuration")
}

func (o operator) RemovePeer(_ context.Context, id, address string) error {
	if id == "nope" {
		return httpapi.ErrUnknownServer
	}
	return o.did("remove peer id=%q address=%q", id, address)
}

func (o operator) TransferLeader(_ context.Context, id string) error {
	return o.did("transfer to %q", id)
}

func (o operator) AutopilotConfig(context.Context) (*catalog.Autopilot, error) {
	return &catalog.Autopilot{
		CleanupDeadServers: true, LastContactThreshold: 200 * time.Millisecond, MaxTrailingLogs: 250, ServerStabilizationTime: 10 * time.Second,
		CreateIndex: 7, ModifyIndex: 9,
	}, nil
}

func (o operator) AutopilotHealth(context.Context) (httpapi.AutopilotHealth, error) {
	return httpapi.AutopilotHealth{FailureTolerance: 0, Servers: []httpapi.AutopilotServer{
		{ID: "a", Name: "n1", Address: "10.0.0.1:8300", SerfStatus: "alive", Version: "1.21.0", Leader: true, LastTerm: 2, LastIndex: 9, Healthy: true, Voter: true, StableSince: noon},
		{ID: "b", Name: "n2", Address: "10.0.0.2:8300", SerfStatus: "failed", Version: "1.21.0", LastContact: -1, StableSince: noon},
	}}, o.fail
}

// last is the last call that changed something.
func (h *host) last() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.calls) == 0 {
		return ""
	}
	return h.calls[len(h.calls)-1]
}

// fixture is an API over a catalog of two nodes.
type fixture struct {
	api   *httpapi.API
	store *store
	host  *host
}

func newFixture(t testing.TB, change ...func(*httpapi.Config)) *fixture {
	t.Helper()
	f := &fixture{store: newStore(t), host: newHost()}
	f.fill(t)
	cfg := httpapi.Config{
		Agent: f.host, Backend: f.store, Operator: operator{f.host}, Node: "n1", Datacenter: "dc1", Version: "0.1.0",
		Revision: "abc", BuildDate: "2026-01-02T03:04:05Z", Gatherer: prometheus.NewRegistry(), OperatorOpen: true,
	}
	for _, c := range change {
		c(&cfg)
	}
	api, err := httpapi.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.api = api
	return f
}

func (f *fixture) fill(t testing.TB) {
	f.store.must(t, &catalog.Register{
		Node: catalog.Node{
			ID: "aaaaaaaa-0000-0000-0000-000000000001", Node: "n1", Address: "10.0.0.1", Datacenter: "dc1",
			TaggedAddresses: map[string]string{"lan": "10.0.0.1"}, Meta: map[string]string{"rack": "r1"},
		},
		Service: &catalog.Service{
			ID: "web1", Service: "web", Tags: []string{"v1", "blue"}, Address: "10.0.0.11", Port: 80,
			Meta: map[string]string{"env": "qa"}, Weights: catalog.Weights{Passing: 10, Warning: 1},
			TaggedAddresses: map[string]catalog.ServiceAddress{"lan_ipv4": {Address: "10.0.0.11", Port: 80}},
		},
		Checks: []*catalog.Check{
			{CheckID: "serfHealth", Name: "Serf Health Status", Status: catalog.Passing, Output: "Agent alive and reachable"},
			{CheckID: "service:web1", Name: "Service 'web' check", Status: catalog.Warning, ServiceID: "web1", Type: "http", Interval: "10s", Timeout: "2s"},
		},
	})
	f.store.must(t, &catalog.Register{
		Node:    catalog.Node{Node: "n2", Address: "10.0.0.2", Agentless: true},
		Service: &catalog.Service{ID: "web2", Service: "web"},
		Checks: []*catalog.Check{{CheckID: "up", Status: catalog.Passing,
			Definition: catalog.Define(catalog.CheckDefinition{HTTP: "http://10.0.0.2/", Interval: "30s"})}},
	})
	f.host.services["web1"] = &catalog.Service{ID: "web1", Service: "web", Tags: []string{"v1"}, Port: 80}
	f.host.checks["service:web1"] = &catalog.Check{CheckID: "service:web1", Name: "web up", Status: catalog.Warning, ServiceID: "web1", ServiceName: "web", Type: "ttl"}
	f.host.checks["disk"] = &catalog.Check{CheckID: "disk", Name: "disk", Status: catalog.Passing, Type: "ttl"}
}

// do sends one request as a local client would.
func (f *fixture) do(t testing.TB, method, target, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:8500"
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	f.api.ServeHTTP(w, r)
	if ct := w.Header().Get("Content-Type"); ct == "" && w.Code != http.StatusOK {
		t.Errorf("%s %s: %d without a Content-Type", method, target, w.Code)
	}
	return w
}
