package apitest

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/consul/api/watch"
)

const addrVariable = "MEIBO_TEST_HTTP_ADDR"

// patience is how long a condition may take; its absence is a failure, its time is not.
const patience = 30 * time.Second

func connect(t *testing.T) *api.Client {
	t.Helper()
	addr := os.Getenv(addrVariable)
	if addr == "" {
		if testing.Short() {
			t.Skip(addrVariable + " is not set")
		}
		t.Fatalf("set %s to the HTTP address of a running daemon", addrVariable)
	}
	cfg := api.DefaultConfig()
	cfg.Address = addr
	c, err := api.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually retries until ok returns nil.
func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// wantCode wants the client to have got this status, and a text that says something.
func wantCode(t *testing.T, err error, code int, text string) {
	t.Helper()
	var status api.StatusError
	if !errors.As(err, &status) || status.Code != code || !strings.Contains(status.Body, text) {
		t.Errorf("got %v, want %d with %q", err, code, text)
	}
}

// registered registers a service with a TTL check and removes it at the end.
func registered(t *testing.T, c *api.Client, id, name string, mods ...func(*api.AgentServiceRegistration)) {
	t.Helper()
	reg := &api.AgentServiceRegistration{
		ID: id, Name: name, Port: 8080, Address: "127.0.0.9", Tags: []string{"v1", "blue"}, Meta: map[string]string{"env": "qa"},
		Weights: &api.AgentWeights{Passing: 10, Warning: 2},
		Check:   &api.AgentServiceCheck{CheckID: "check:" + id, TTL: "10m", Status: api.HealthPassing},
	}
	for _, m := range mods {
		m(reg)
	}
	must(t, c.Agent().ServiceRegister(reg))
	t.Cleanup(func() {
		if err := c.Agent().ServiceDeregister(id); err != nil && !strings.Contains(err.Error(), "404") {
			t.Errorf("deregister %s: %v", id, err)
		}
	})
}

// inCatalog waits until the service shows n instances in the catalog.
func inCatalog(t *testing.T, c *api.Client, name string, n int) []*api.ServiceEntry {
	t.Helper()
	var got []*api.ServiceEntry
	eventually(t, fmt.Sprintf("%d instances of %s", n, name), func() error {
		entries, _, err := c.Health().Service(name, "", false, nil)
		if err == nil && len(entries) != n {
			err = fmt.Errorf("%d instances", len(entries))
		}
		got = entries
		return err
	})
	return got
}

func TestAgent_SelfTellsWhatClientsRead(t *testing.T) {
	c := connect(t)
	self, err := c.Agent().Self()
	must(t, err)
	for _, key := range []string{"Datacenter", "NodeName", "NodeID", "Version"} {
		if v, _ := self["Config"][key].(string); v == "" {
			t.Errorf("Config.%s is missing: %v", key, self["Config"])
		}
	}
	if v := self["Config"]["Version"].(string); !strings.HasPrefix(v, "1.") || !strings.Contains(v, "+meibo") {
		t.Errorf("Version %q", v)
	}
	name, err := c.Agent().NodeName()
	must(t, err)
	members, err := c.Agent().Members(false)
	must(t, err)
	if !slices.ContainsFunc(members, func(m *api.AgentMember) bool { return m.Name == name && m.Status == 1 && m.Tags["dc"] != "" }) {
		t.Errorf("%s is not among the living members: %+v", name, members)
	}
	if _, err := c.Agent().Members(true); err != nil {
		t.Error(err)
	}
	v, err := c.Agent().Version()
	must(t, err)
	if h, _ := v["HumanVersion"].(string); !strings.Contains(h, "+meibo") {
		t.Errorf("version: %v", v)
	}
	metrics, err := c.Agent().Metrics()
	must(t, err)
	if metrics.Timestamp == "" || len(metrics.Gauges) == 0 {
		t.Errorf("metrics: %+v", metrics)
	}
}

func TestAgent_ServiceLifeFromRegistrationToRemoval(t *testing.T) {
	c := connect(t)
	id := "life/1" // a slash, as Patroni's IDs have
	registered(t, c, id, "life")
	services, err := c.Agent().Services()
	must(t, err)
	s := services[id]
	if s == nil || s.Service != "life" || s.Port != 8080 || s.Weights.Passing != 10 || s.Meta["env"] != "qa" || !slices.Equal(s.Tags, []string{"v1", "blue"}) {
		t.Fatalf("in agent/services: %+v", s)
	}
	one, meta, err := c.Agent().Service(id, nil)
	must(t, err)
	if one.ContentHash == "" || meta.LastContentHash != one.ContentHash {
		t.Errorf("hash %q, header %q", one.ContentHash, meta.LastContentHash)
	}

	entry := inCatalog(t, c, "life", 1)[0]
	if entry.Service.ID != id || entry.Service.Address != "127.0.0.9" || entry.Service.TaggedAddresses["lan_ipv4"].Address != "127.0.0.9" {
		t.Errorf("in the catalog: %+v", entry.Service)
	}
	// In an order in which each status is another than the one before: a change of the output alone may take minutes.
	for _, step := range []struct {
		status string
		update func(id, note string) error
	}{
		{api.HealthCritical, c.Agent().FailTTL}, {api.HealthWarning, c.Agent().WarnTTL}, {api.HealthPassing, c.Agent().PassTTL},
	} {
		must(t, step.update("check:"+id, "now "+step.status))
		eventually(t, step.status, func() error { return checkIs(c, "life", step.status, "now "+step.status) })
	}
	must(t, c.Agent().UpdateTTL("check:"+id, "by update", api.HealthWarning))
	eventually(t, "update", func() error { return checkIs(c, "life", api.HealthWarning, "by update") })
	status, info, err := c.Agent().AgentHealthServiceByID(id)
	must(t, err)
	if status != api.HealthWarning || info.Service.ID != id || len(info.Checks) == 0 {
		t.Errorf("health by ID: %s %+v", status, info)
	}
	status, infos, err := c.Agent().AgentHealthServiceByName("life")
	must(t, err)
	if status != api.HealthWarning || len(infos) != 1 {
		t.Errorf("health by name: %s %+v", status, infos)
	}

	must(t, c.Agent().EnableServiceMaintenance(id, "new disk"))
	eventually(t, "maintenance", func() error {
		entries, _, err := c.Health().Service("life", "", false, nil)
		if err == nil && (len(entries) != 1 || entries[0].Checks.AggregatedStatus() != api.HealthMaint) {
			err = fmt.Errorf("%+v", entries)
		}
		return err
	})
	must(t, c.Agent().DisableServiceMaintenance(id))
	must(t, c.Agent().ServiceDeregister(id))
	inCatalog(t, c, "life", 0)
	if services, err = c.Agent().Services(); err != nil || services[id] != nil {
		t.Errorf("after deregistering: %v %v", services[id], err)
	}
}

// checkIs wants the one check of the service to say this.
func checkIs(c *api.Client, service, status, output string) error {
	checks, _, err := c.Health().Checks(service, nil)
	if err != nil {
		return err
	}
	if len(checks) != 1 || checks[0].Status != status || !strings.Contains(checks[0].Output, output) {
		return fmt.Errorf("%+v", checks)
	}
	return nil
}

func TestAgent_ChecksOfTheNode(t *testing.T) {
	c := connect(t)
	must(t, c.Agent().CheckRegister(&api.AgentCheckRegistration{ID: "apitest-disk", Name: "disk", AgentServiceCheck: api.AgentServiceCheck{TTL: "10m"}}))
	defer func() { must(t, c.Agent().CheckDeregister("apitest-disk")) }()
	must(t, c.Agent().PassTTL("apitest-disk", ""))
	checks, err := c.Agent().ChecksWithFilter("CheckID == `apitest-disk`")
	must(t, err)
	if len(checks) != 1 || checks["apitest-disk"].Status != api.HealthPassing {
		t.Errorf("%+v", checks)
	}
	node, err := c.Agent().NodeName()
	must(t, err)
	eventually(t, "the check in the catalog", func() error {
		list, _, err := c.Health().Node(node, nil)
		if err == nil && !slices.ContainsFunc(list, func(h *api.HealthCheck) bool { return h.CheckID == "apitest-disk" && h.Status == api.HealthPassing }) {
			err = fmt.Errorf("%d checks without it", len(list))
		}
		return err
	})
}

func TestAgent_RefusalsReachTheClient(t *testing.T) {
	c := connect(t)
	wantCode(t, c.Agent().ServiceRegister(&api.AgentServiceRegistration{Port: 1}), 400, "Missing service name")
	wantCode(t, c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "x", Address: "0.0.0.0"}), 400, "Invalid service address")
	wantCode(t, c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "x", Check: &api.AgentServiceCheck{HTTP: "http://127.0.0.1"}}), 400, "Interval")
	wantCode(t, c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "x", Check: &api.AgentServiceCheck{Args: []string{"/bin/true"}, Interval: "10s"}}), 400, "cript")
	wantCode(t, c.Agent().ServiceDeregister("no-such-service"), 404, "Unknown service ID")
	wantCode(t, c.Agent().PassTTL("no-such-check", ""), 404, "Unknown check ID")
	wantCode(t, c.Agent().EnableServiceMaintenance("no-such-service", ""), 404, "Unknown service ID")
	_, _, err := c.Agent().Service("no-such-service", nil)
	wantCode(t, err, 404, "unknown service ID")
	_, _, err = c.Catalog().Nodes(&api.QueryOptions{Datacenter: "no-such-dc"})
	wantCode(t, err, 500, "No path to datacenter")
	_, _, err = c.Catalog().Nodes(&api.QueryOptions{Namespace: "team"})
	wantCode(t, err, 400, "Enterprise")
	// A 404 would mean "no such key" to the client, which then goes on as if it were so.
	if pair, _, err := c.KV().Get("some/key", nil); err == nil {
		t.Errorf("the KV store, which is not there, answered %v", pair)
	}
}

func TestCatalog_ReadsAgree(t *testing.T) {
	c := connect(t)
	registered(t, c, "agree1", "agree")
	inCatalog(t, c, "agree", 1)
	dcs, err := c.Catalog().Datacenters()
	must(t, err)
	node, err := c.Agent().NodeName()
	must(t, err)
	nodes, meta, err := c.Catalog().Nodes(nil)
	must(t, err)
	i := slices.IndexFunc(nodes, func(n *api.Node) bool { return n.Node == node })
	if i < 0 || nodes[i].Address == "" || nodes[i].Datacenter != dcs[0] || nodes[i].ID == "" {
		t.Fatalf("nodes: %+v", nodes)
	}
	if meta.LastIndex == 0 || !meta.KnownLeader {
		t.Errorf("meta: %+v", meta)
	}
	services, _, err := c.Catalog().Services(nil)
	must(t, err)
	if _, ok := services["consul"]; !ok || !slices.Equal(slices.Sorted(slices.Values(services["agree"])), []string{"blue", "v1"}) {
		t.Errorf("services: %v", services)
	}
	flat, _, err := c.Catalog().ServiceMultipleTags("agree", []string{"v1", "blue"}, nil)
	must(t, err)
	if len(flat) != 1 || flat[0].Node != node || flat[0].ServiceID != "agree1" || flat[0].ServicePort != 8080 || flat[0].ServiceMeta["env"] != "qa" {
		t.Errorf("service: %+v", flat)
	}
	whole, _, err := c.Catalog().Node(node, nil)
	must(t, err)
	if whole.Services["agree1"] == nil {
		t.Errorf("node: %+v", whole)
	}
	list, _, err := c.Catalog().NodeServiceList(node, &api.QueryOptions{Filter: `Service == "agree"`})
	must(t, err)
	if len(list.Services) != 1 || list.Node.Node != node {
		t.Errorf("node services: %+v", list)
	}
	none, _, err := c.Catalog().Node("no-such-node", nil)
	if err != nil || none != nil {
		t.Errorf("a node that isn't there: %+v, %v", none, err)
	}
	leader, err := c.Status().Leader()
	must(t, err)
	peers, err := c.Status().Peers()
	must(t, err)
	if leader == "" || !slices.Contains(peers, leader) {
		t.Errorf("leader %q, peers %v", leader, peers)
	}
}

func TestCatalog_ExternalServices(t *testing.T) {
	c := connect(t)
	reg := &api.CatalogRegistration{
		Node: "apitest-ext", Address: "192.0.2.7", NodeMeta: map[string]string{"external-node": "true"},
		Service: &api.AgentService{ID: "ext1", Service: "ext", Port: 443, Tags: []string{"x"}},
		Checks: api.HealthChecks{{Node: "apitest-ext", CheckID: "ext-up", Name: "up", Status: api.HealthPassing, ServiceID: "ext1",
			Definition: api.HealthCheckDefinition{TCP: "192.0.2.7:443", IntervalDuration: 30 * time.Second}}},
	}
	_, err := c.Catalog().Register(reg, nil)
	must(t, err)
	defer func() {
		_, err := c.Catalog().Deregister(&api.CatalogDeregistration{Node: "apitest-ext"}, nil)
		must(t, err)
		inCatalog(t, c, "ext", 0)
	}()
	e := inCatalog(t, c, "ext", 1)[0]
	if e.Node.Address != "192.0.2.7" || e.Node.Meta["external-node"] != "true" || e.Service.Port != 443 ||
		e.Checks.AggregatedStatus() != api.HealthPassing || e.Checks[0].Definition.IntervalDuration != 30*time.Second {
		t.Errorf("%+v %+v %+v", e.Node, e.Service, e.Checks[0])
	}
	nodes, _, err := c.Catalog().Nodes(&api.QueryOptions{NodeMeta: map[string]string{"external-node": "true"}})
	must(t, err)
	if len(nodes) != 1 {
		t.Errorf("by node-meta: %+v", nodes)
	}
	_, err = c.Catalog().Register(&api.CatalogRegistration{Address: "192.0.2.8"}, nil)
	wantCode(t, err, 400, "Must provide node")
}

func TestHealth_FiltersAndConsistency(t *testing.T) {
	c := connect(t)
	registered(t, c, "f1", "filtered")
	registered(t, c, "f2", "filtered", func(r *api.AgentServiceRegistration) {
		r.Tags, r.Meta = nil, nil
		r.Check.Status = api.HealthCritical
	})
	inCatalog(t, c, "filtered", 2)
	for _, tc := range []struct {
		name    string
		tags    []string
		passing bool
		q       *api.QueryOptions
		want    int
	}{
		{"all", nil, false, nil, 2},
		{"passing", nil, true, nil, 1},
		{"tag", []string{"v1"}, false, nil, 1},
		{"tags", []string{"v1", "green"}, false, nil, 0},
		{"stale", nil, false, &api.QueryOptions{AllowStale: true}, 2},
		{"consistent", nil, false, &api.QueryOptions{RequireConsistent: true}, 2},
		{"cached", nil, false, &api.QueryOptions{UseCache: true}, 2},
		{"near", nil, false, &api.QueryOptions{Near: "_agent"}, 2},
		{"filter", nil, false, &api.QueryOptions{Filter: `Service.Meta.env == "qa"`}, 1},
		{"filter checks", nil, false, &api.QueryOptions{Filter: `Checks.Status == "critical"`}, 1},
	} {
		entries, _, err := c.Health().ServiceMultipleTags("filtered", tc.tags, tc.passing, tc.q)
		if err != nil || len(entries) != tc.want {
			t.Errorf("%s: %d, %v; want %d", tc.name, len(entries), err, tc.want)
		}
	}
	_, _, err := c.Health().Service("filtered", "", false, &api.QueryOptions{Filter: "Nope == 1"})
	wantCode(t, err, 400, "Nope")
	critical, _, err := c.Health().State(api.HealthCritical, nil)
	must(t, err)
	if !slices.ContainsFunc(critical, func(h *api.HealthCheck) bool { return h.ServiceID == "f2" }) {
		t.Errorf("state critical: %+v", critical)
	}
}

func TestBlocking_WakesOnChangeAndReturnsAfterTheWait(t *testing.T) {
	c := connect(t)
	_, meta, err := c.Health().Service("blocked", "", false, nil)
	must(t, err)
	type answer struct {
		entries []*api.ServiceEntry
		meta    *api.QueryMeta
		err     error
	}
	answered := make(chan answer, 1)
	go func() {
		// As long as the service doesn't exist, another one's end may wake the query with nothing new: clients ask again.
		a := answer{meta: meta}
		for a.err == nil && len(a.entries) == 0 {
			a.entries, a.meta, a.err = c.Health().Service("blocked", "", false, &api.QueryOptions{WaitIndex: a.meta.LastIndex, WaitTime: patience})
		}
		answered <- a
	}()
	registered(t, c, "blocked1", "blocked")
	a := <-answered
	if a.err != nil || len(a.entries) != 1 || a.meta.LastIndex <= meta.LastIndex {
		t.Fatalf("after a change: %d entries at %d, was %d: %v", len(a.entries), a.meta.LastIndex, meta.LastIndex, a.err)
	}
	began := time.Now()
	_, again, err := c.Catalog().Service("blocked", "", &api.QueryOptions{WaitIndex: a.meta.LastIndex, WaitTime: 300 * time.Millisecond})
	must(t, err)
	if again.LastIndex == a.meta.LastIndex && time.Since(began) < 300*time.Millisecond {
		t.Errorf("the same index came back after %v", time.Since(began))
	}
	began = time.Now()
	if _, _, err = c.Health().Service("blocked", "", false, &api.QueryOptions{WaitIndex: a.meta.LastIndex + 1<<40, WaitTime: patience}); err != nil || time.Since(began) > patience/2 {
		t.Errorf("an index from the future: %v after %v", err, time.Since(began))
	}
}

func TestWatch_PlansOfConsulsWatcherFire(t *testing.T) {
	c := connect(t)
	registered(t, c, "watched1", "watched")
	inCatalog(t, c, "watched", 1)
	for _, params := range []map[string]any{
		{"type": "service", "service": "watched"},
		{"type": "services"},
		{"type": "nodes"},
		{"type": "checks", "service": "watched"},
		{"type": "checks", "state": "any"},
		{"type": "agent_service", "service_id": "watched1"},
	} {
		t.Run(fmt.Sprint(params["type"], params["state"]), func(t *testing.T) {
			plan, err := watch.Parse(params)
			must(t, err)
			fired := make(chan any, 16)
			plan.Handler = func(_ uint64, v any) { fired <- v }
			plan.HybridHandler = func(_ watch.BlockingParamVal, v any) { fired <- v }
			ended := make(chan error, 1)
			go func() { ended <- plan.RunWithClientAndHclog(c, nil) }()
			select {
			case <-fired:
			case <-time.After(patience):
				t.Error("it did not fire")
			}
			plan.Stop()
			must(t, <-ended)
		})
	}
}
