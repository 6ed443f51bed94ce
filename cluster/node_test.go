package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meibo/cluster/agent"
	"meibo/cluster/catalog"
	"meibo/cluster/definition"
	"meibo/cluster/gossip"
	"meibo/cluster/view"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is a node under test.
type running struct {
	*Node
	t    testing.TB
	stop context.CancelFunc
	done chan struct{}
}

func mustNew(t testing.TB, cfg Config) *Node {
	t.Helper()
	if cfg.NodeName == "" {
		cfg.NodeName = "host"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil)).With("host", cfg.NodeName)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// run starts a node; the test's end stops it.
func run(t testing.TB, cfg Config) *running {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Node: mustNew(t, cfg), t: t, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		if err := r.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	t.Cleanup(r.end)
	return r
}

func (r *running) end() {
	r.stop()
	<-r.done
}

func (r *running) context() context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	r.t.Cleanup(cancel)
	return ctx
}

// untilView waits until the view is as asked.
func (r *running) untilView(what string, is func(*view.State) bool) {
	r.t.Helper()
	ctx := r.context()
	for s := r.View().Load(); !is(s); s = r.View().Load() {
		select {
		case <-s.Superseded():
		case <-ctx.Done():
			r.t.Fatalf("view never had %s", what)
		}
	}
}

// untilStatus waits until the catalog of the host is in the state.
func (r *running) untilStatus(want State) Status {
	r.t.Helper()
	ctx := r.context()
	for {
		_, st, changed := r.running()
		if st.State == want {
			return st
		}
		select {
		case <-changed:
		case <-ctx.Done():
			r.t.Fatalf("state is %q (%v), never was %q", st.State, st.Err, want)
		}
	}
}

func (r *running) apply(body catalog.Body) uint64 {
	r.t.Helper()
	index, err := r.Apply(r.context(), body)
	if err != nil {
		r.t.Fatal(err)
	}
	r.AwaitView(r.context(), index)
	return index
}

func (r *running) read() catalog.Reader {
	r.t.Helper()
	reader, _, err := r.Read(r.context(), catalog.Default)
	if err != nil {
		r.t.Fatal(err)
	}
	return reader
}

// ports are those of a service's instances, in order.
func ports(s *view.State, service string) string {
	instances, _, known := s.Service(service)
	switch known {
	case catalog.NotYet:
		return "not yet"
	case catalog.Absent:
		return "no"
	}
	var list []string
	for _, in := range instances {
		list = append(list, fmt.Sprint(in.Service.Port))
	}
	return strings.Join(list, " ")
}

func web(port int) definition.Service { return definition.Service{Name: "web", Port: port} }

func withService(port int) agent.Config {
	return agent.Config{Services: []definition.Service{web(port)}}
}

func elsewhere(port int) *catalog.Register {
	return &catalog.Register{
		Node:    catalog.Node{Node: "db1", Address: "192.0.2.7"},
		Service: &catalog.Service{ID: "db", Service: "db", Port: port},
	}
}

func TestNew_OwnServicesAnswerBeforeAnyLeader(t *testing.T) {
	for name, cfg := range map[string]Config{
		"in memory": {}, "on disk": {DataDir: t.TempDir()}, "to join": {Gossip: gossip.Config{RetryJoin: []string{"192.0.2.1"}}},
	} {
		cfg.Agent = withService(80)
		s := mustNew(t, cfg).View().Load()
		if got := ports(s, "WEB"); got != "80" {
			t.Errorf("%s: own service: got %q, want 80", name, got)
		}
		if got := ports(s, "db"); got != "not yet" {
			t.Errorf("%s: unknown service: got %q, want it not denied", name, got)
		}
	}
}

func TestRule29_WhoBeginsAHistory(t *testing.T) {
	join := []string{"192.0.2.1"}
	for name, tt := range map[string]struct {
		cfg                 Config
		begins, provisional bool
	}{
		"-dev":                                    {Config{Dev: true, Server: true}, true, false},
		"bootstrap":                               {Config{Server: true, Bootstrap: true}, true, false},
		"bootstrap_expect 1":                      {Config{Server: true, BootstrapExpect: 1}, true, false},
		"bootstrap with somebody to join":         {Config{Server: true, Bootstrap: true, Gossip: gossip.Config{RetryJoin: join}}, true, false},
		"neither a server nor anybody to join":    {Config{}, true, true},
		"bootstrap_expect 3":                      {Config{Server: true, BootstrapExpect: 3}, false, false},
		"a server without bootstrap":              {Config{Server: true}, false, false},
		"a join key":                              {Config{Gossip: gossip.Config{RetryJoin: join}}, false, false},
		"bootstrap_expect 3 and somebody to join": {Config{Server: true, BootstrapExpect: 3, Gossip: gossip.Config{RetryJoin: join}}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.cfg.Agent, tt.cfg.HoldTime = withService(80), 50*time.Millisecond
			n := run(t, tt.cfg)
			if tt.begins {
				<-n.Ready()
				n.untilView("a history", func(s *view.State) bool { return s.History().ID != "" })
				h := n.View().Load().History()
				if h.Provisional != tt.provisional || h.Base < uint64(time.Now().Add(-time.Hour).Unix())<<20 {
					t.Errorf("history %+v, want provisional %v", h, tt.provisional)
				}
				if got := ports(n.View().Load(), "db"); got != "no" {
					t.Errorf("unknown service: got %q, want it denied", got)
				}
				return
			}
			want := Absent
			if tt.cfg.Server {
				want = Running
			}
			n.untilStatus(want)
			if _, _, err := n.Read(t.Context(), catalog.Stale); !errors.Is(err, catalog.ErrNoLeader) {
				t.Errorf("read: got %v, want %v", err, catalog.ErrNoLeader)
			}
			if _, err := n.Apply(t.Context(), elsewhere(1)); !errors.Is(err, catalog.ErrNoLeader) {
				t.Errorf("write: got %v, want %v", err, catalog.ErrNoLeader)
			}
			if own, other := ports(n.View().Load(), "web"), ports(n.View().Load(), "db"); own != "80" || other != "not yet" {
				t.Errorf("own service %q, unknown service %q, want 80 and no denial", own, other)
			}
		})
	}
}

func TestNode_RegistersItself(t *testing.T) {
	n := run(t, Config{NodeName: "one", Version: "1.21.0", Meta: map[string]string{"rack": "7"}, Address: "10.1.2.3"})
	n.untilView("itself, synced", func(s *view.State) bool {
		node, _, _ := s.Node("one")
		return node != nil && node.Synced == s.History().ID && node.Synced != "" && ports(s, "consul") == "8300"
	})
	r := n.read()
	_, node := r.Node(nil, "one")
	if node.ID != n.Record().ID || node.Address != "10.1.2.3" || node.Meta["rack"] != "7" || node.TaggedAddresses["lan_ipv4"] != "10.1.2.3" {
		t.Errorf("node %+v", node)
	}
	if v, ok := node.Meta["consul-network-segment"]; !ok || v != "" || node.Meta["consul-version"] != "1.21.0" {
		t.Errorf("metadata %q lacks what agents add", node.Meta)
	}
	want := map[string]string{"lan": "10.1.2.3", "lan_ipv4": "10.1.2.3", "wan": "10.1.2.3", "wan_ipv4": "10.1.2.3"}
	if !maps.Equal(node.TaggedAddresses, want) {
		t.Errorf("tagged addresses %q, want %q", node.TaggedAddresses, want)
	}
	_, instances := r.ServiceInstances(nil, "consul")
	if len(instances) != 1 || instances[0].Service.Meta["version"] != "1.21.0" || len(instances[0].Checks) != 1 {
		t.Fatalf("service consul: %+v", instances)
	}
	c := instances[0].Checks[0]
	if c.CheckID != catalog.SerfHealth || c.Status != catalog.Passing || c.Output != "Agent alive and reachable" {
		t.Errorf("serfHealth: %+v", c)
	}
	if l := n.Leader(); l != "10.1.2.3:8300" || fmt.Sprint(n.Peers()) != "[10.1.2.3:8300]" {
		t.Errorf("leader %q, peers %v", l, n.Peers())
	}
}

func TestNode_WithAsManyPairsAsAllowedIsRegistered(t *testing.T) {
	meta := make(map[string]string)
	for i := range catalog.MaxMetaPairs {
		meta[fmt.Sprint("k", i)] = "v"
	}
	n := run(t, Config{NodeName: "one", Meta: meta})
	n.untilView("itself, synced", func(s *view.State) bool {
		node, _, _ := s.Node("one")
		return node != nil && node.Synced != "" && len(node.Meta) == len(meta)+2
	})
	if _, node := n.read().Node(nil, "one"); len(node.Meta) != len(meta)+2 {
		t.Errorf("catalog has %d pairs, want %d", len(node.Meta), len(meta)+2)
	}
}

func TestRule9_AWriteThatWasAnsweredShowsInTheView(t *testing.T) {
	n := run(t, Config{})
	var last uint64
	for port := 1; port <= 20; port++ {
		index := n.apply(elsewhere(port))
		if got := ports(n.View().Load(), "db"); got != fmt.Sprint(port) {
			t.Fatalf("after write %d: view has %q", port, got)
		}
		if index <= last {
			t.Fatalf("index went from %d to %d", last, index)
		}
		last = index
		// One that changes nothing is waited for as well.
		began := time.Now()
		n.apply(elsewhere(port))
		if d := time.Since(began); d >= view.MaxWait {
			t.Fatalf("a write that changes nothing took %s", d)
		}
	}
	if _, err := n.Apply(n.context(), &catalog.Deregister{}); err == nil {
		t.Error("no refusal of a command without a node")
	} else if refusal := (*catalog.Error)(nil); !errors.As(err, &refusal) {
		t.Errorf("refusal is %T", err)
	}
}

func TestRule9_ALocalRegistrationShowsWhenItReturns(t *testing.T) {
	n := run(t, Config{})
	<-n.Ready()
	for port := 1; port <= 20; port++ {
		if err := n.Agent().AddService(web(port), agent.SourceAPI, false); err != nil {
			t.Fatal(err)
		}
		if got := ports(n.View().Load(), "web"); got != fmt.Sprint(port) {
			t.Fatalf("registered %d, view has %q", port, got)
		}
	}
	ctx := n.context()
	for {
		ws := make(watch, 16)
		_, instances := n.read().ServiceInstances(ws, "web")
		if len(instances) == 1 && instances[0].Service.Port == 20 {
			break
		}
		if !ws.wait(ctx) {
			t.Fatal("the registration never came to the catalog")
		}
	}
	if err := n.Agent().RemoveService("web"); err != nil {
		t.Fatal(err)
	}
	if got := ports(n.View().Load(), "web"); got != "no" {
		t.Errorf("removed, view has %q", got)
	}
}

// watch is a catalog.Watch of one read.
type watch chan (<-chan struct{})

func (w watch) Add(ch <-chan struct{}) {
	select {
	case w <- ch:
	default:
	}
}

// wait blocks until one of the channels is closed; false: ctx ended first.
func (w watch) wait(ctx context.Context) bool {
	close(w)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fired := make(chan struct{}, cap(w))
	for ch := range w {
		go func() {
			select {
			case <-ch:
				fired <- struct{}{}
			case <-ctx.Done():
			}
		}()
	}
	select {
	case <-fired:
		return true
	case <-ctx.Done():
		return false
	}
}

func TestNode_ThreeInOneProcess(t *testing.T) {
	var nodes []*running
	for i := range 3 {
		name := fmt.Sprint("n", i)
		nodes = append(nodes, run(t, Config{NodeName: name, DataDir: t.TempDir(), Agent: withService(80 + i)}))
	}
	ids := map[string]bool{}
	for i, n := range nodes {
		n.apply(elsewhere(i))
		s := n.View().Load()
		if own, other := ports(s, "web"), ports(s, "db"); own != fmt.Sprint(80+i) || other != fmt.Sprint(i) {
			t.Errorf("node %d: web %q, db %q", i, own, other)
		}
		ids[n.Record().ID] = true
	}
	if len(ids) != 3 {
		t.Errorf("node IDs %v", ids)
	}
}

func TestNode_StartsAndStops20Times(t *testing.T) {
	dir := t.TempDir()
	var history, id string
	for i := range 20 {
		n := run(t, Config{NodeName: "host", DataDir: dir})
		n.apply(elsewhere(i + 1))
		if i == 0 {
			history, id = n.View().Load().History().ID, n.Record().ID
		}
		if h := n.View().Load().History().ID; h != history || n.Record().ID != id {
			t.Fatalf("start %d: history %s and ID %s, were %s and %s", i, h, n.Record().ID, history, id)
		}
		n.end()
		if st := n.Status(); st.State != Stopped || st.Err != nil {
			t.Fatalf("stopped: %+v", st)
		}
		if got := ports(n.View().Load(), "db"); got != fmt.Sprint(i+1) {
			t.Fatalf("stopped, view has %q", got)
		}
	}
	info, err := os.Stat(filepath.Join(dir, nodeIDFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("node ID file: %v %v", info, err)
	}
}

func TestNode_KeepsItsServicesAcrossARestart(t *testing.T) {
	dir := t.TempDir()
	n := run(t, Config{DataDir: dir})
	if err := n.Agent().AddService(web(80), agent.SourceAPI, false); err != nil {
		t.Fatal(err)
	}
	n.apply(elsewhere(5432))
	n.end()

	again := run(t, Config{DataDir: dir})
	if got := ports(again.View().Load(), "web"); got != "80" {
		t.Errorf("own service at once: %q", got)
	}
	again.untilView("what the catalog had", func(s *view.State) bool { return ports(s, "db") == "5432" })
}
