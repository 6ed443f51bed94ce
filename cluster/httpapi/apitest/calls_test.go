package apitest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// Calls for parts that don't exist: each is refused, and none is asked for further.
var absent = map[string]string{
	"Agent.ConnectAuthorize": "the mesh", "Agent.ConnectCARoots": "the mesh", "Agent.ConnectCALeaf": "the mesh",
	"Catalog.Connect": "the mesh", "Catalog.ConnectMultipleTags": "the mesh", "Catalog.GatewayServices": "the mesh",
	"Health.Connect": "the mesh", "Health.ConnectMultipleTags": "the mesh", "Health.Ingress": "the mesh",
	"Operator.AreaCreate": "the paid edition", "Operator.AreaUpdate": "the paid edition", "Operator.AreaGet": "the paid edition",
	"Operator.AreaList": "the paid edition", "Operator.AreaDelete": "the paid edition", "Operator.AreaJoin": "the paid edition",
	"Operator.AreaMembers": "the paid edition", "Operator.AuditHash": "the paid edition", "Operator.SegmentList": "the paid edition",
	"Operator.LicenseGet": "the paid edition", "Operator.LicenseGetSigned": "the paid edition",
	"Operator.LicenseReset": "the paid edition", "Operator.LicensePut": "the paid edition",
	"Agent.Leave": "the daemon would be gone for the other tests",
}

// Every call that Consul's client has for what is here is made by some test.
func TestCalls_EachIsMade(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	must(t, err)
	var source strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		must(t, err)
		source.Write(data)
	}
	for _, group := range []reflect.Type{
		reflect.TypeFor[*api.Agent](), reflect.TypeFor[*api.Catalog](), reflect.TypeFor[*api.Health](),
		reflect.TypeFor[*api.Operator](), reflect.TypeFor[*api.Status](),
	} {
		for i := range group.NumMethod() {
			area, call := group.Elem().Name(), group.Method(i).Name
			made := regexp.MustCompile(`\b` + area + `\(\)\.` + call + `\b`).MatchString(source.String())
			if _, ok := absent[area+"."+call]; made == ok {
				t.Errorf("%s.%s: made %v, absent %v", area, call, made, ok)
			}
		}
	}
}

func TestSelf_HasWhatToolsRead(t *testing.T) {
	c := connect(t)
	self, err := c.Agent().Self()
	must(t, err)
	for _, key := range []string{"EnableDebug", "SerfAdvertiseAddrLAN", "SerfBindAddrLAN", "DNSAddrs", "HTTPAddrs", "DNSPort", "GRPCPort", "ConnectEnabled", "ServerMode", "Datacenter", "NodeName", "NodeID"} {
		if self["DebugConfig"][key] == nil {
			t.Errorf("DebugConfig.%s is missing", key)
		}
	}
	if addr, _ := self["DebugConfig"]["SerfAdvertiseAddrLAN"].(string); !strings.HasPrefix(addr, "tcp://") {
		t.Errorf("SerfAdvertiseAddrLAN %q", addr)
	}
	for area, keys := range map[string][]string{
		"agent": {"checks", "services", "check_monitors", "check_ttls"}, "build": {"version", "version_metadata", "revision", "prerelease"},
		"consul": {"server", "leader", "leader_addr", "bootstrap", "known_datacenters", "acl"},
		"raft":   {"state", "term", "commit_index", "applied_index", "last_log_index", "num_peers"}, "serf_lan": {"members", "failed", "left", "encrypted"},
		"runtime": {"arch", "os", "version", "cpu_count", "goroutines", "max_procs"},
	} {
		figures, _ := self["Stats"][area].(map[string]any)
		for _, key := range keys {
			if _, ok := figures[key].(string); !ok {
				t.Errorf("Stats.%s.%s: %v", area, key, figures[key])
			}
		}
	}
	var coord struct{ Vec []float64 }
	data, err := json.Marshal(self["Coord"])
	must(t, err)
	if err := json.Unmarshal(data, &coord); err != nil || len(coord.Vec) != 8 {
		t.Errorf("Coord %s", data)
	}
	if self["Member"]["Name"] != self["Config"]["NodeName"] || self["Member"]["Status"] != 1.0 || self["Meta"]["consul-version"] == nil {
		t.Errorf("Member %v, Meta %v", self["Member"], self["Meta"])
	}
	host, err := c.Agent().Host()
	must(t, err)
	system, _ := host["Host"].(map[string]any)
	memory, _ := host["Memory"].(map[string]any)
	if host["CollectionTime"] == nil || system["hostname"] == "" || memory["total"] == 0.0 || host["Errors"] != nil {
		t.Errorf("host %v", host)
	}
}

func TestMonitor_LinesInConsulsForm(t *testing.T) {
	c := connect(t)
	_, err := c.Agent().Monitor("loud", nil, nil)
	wantCode(t, err, 400, "Unknown log level")
	stop := make(chan struct{})
	text, err := c.Agent().Monitor("debug", stop, nil)
	must(t, err)
	asJSON, err := c.Agent().MonitorJSON("debug", stop, nil)
	must(t, err)
	registered(t, c, "monitored1", "monitored")
	if line := <-text; !regexp.MustCompile(`^\d{4}-\S+ \[(DEBUG|INFO|WARN|ERROR)\] `).MatchString(line) {
		t.Errorf("got %q", line)
	}
	var line map[string]any
	if raw := <-asJSON; json.Unmarshal([]byte(raw), &line) != nil || line["@message"] == nil || line["@level"] == nil {
		t.Errorf("got %q", raw)
	}
	close(stop)
	must(t, c.Agent().FailTTL("check:monitored1", "")) // a line, for who looks at stop after one
}

func TestMetrics_Stream(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := connect(t).Agent().MetricsStream(ctx)
	must(t, err)
	defer stream.Close()
	line, err := bufio.NewReader(stream).ReadBytes('\n')
	must(t, err)
	var metrics api.MetricsInfo
	if err := json.Unmarshal(line, &metrics); err != nil || len(metrics.Gauges) == 0 || metrics.Timestamp == "" {
		t.Errorf("%v, %.200s", err, line)
	}
}

// What was answered 200 is there for who asks the catalog at once.
func TestAgent_RegistrationsAreInTheCatalogAtOnce(t *testing.T) {
	c := connect(t)
	for i := range 20 {
		id := fmt.Sprint("at-once", i)
		registered(t, c, id, id, func(r *api.AgentServiceRegistration) { r.Check.Status = "" })
		if list, _, err := c.Catalog().Service(id, "", nil); err != nil || len(list) != 1 {
			t.Errorf("%s: %v, %v", id, list, err)
		}
		must(t, c.Agent().WarnTTL("check:"+id, "now"))
		if err := checkIs(c, id, api.HealthWarning, "now"); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		must(t, c.Agent().CheckRegister(&api.AgentCheckRegistration{ID: "own:" + id, Name: "own", ServiceID: id, AgentServiceCheck: api.AgentServiceCheck{TTL: "10m"}}))
		if list, _, err := c.Health().Checks(id, nil); err != nil || len(list) != 2 {
			t.Errorf("%s: %d checks, %v", id, len(list), err)
		}
		must(t, c.Agent().ServiceDeregister(id))
		if list, _, err := c.Catalog().Service(id, "", nil); err != nil || len(list) != 0 {
			t.Errorf("%s: still there: %v", id, err)
		}
	}
}

func TestAgent_CallsWithOptions(t *testing.T) {
	c := connect(t)
	q := &api.QueryOptions{Datacenter: "dc1"}
	id := "opts1"
	reg := &api.AgentServiceRegistration{
		ID: id, Name: "opts", Locality: &api.Locality{Region: "eu", Zone: "eu-1"},
		Checks: api.AgentServiceChecks{{CheckID: "opts-a", TTL: "10m"}, {CheckID: "opts-b", TTL: "10m"}},
	}
	must(t, c.Agent().ServiceRegisterOpts(reg, api.ServiceRegisterOpts{}.WithContext(t.Context())))
	reg.Checks = api.AgentServiceChecks{{CheckID: "opts-c", TTL: "10m"}}
	must(t, c.Agent().ServiceRegister(reg))
	ids := func() (ids []string) {
		checks, err := c.Agent().ChecksWithFilterOpts(`ServiceID == "opts1"`, q)
		must(t, err)
		for id, check := range checks {
			ids = append(ids, id)
			if check.Type != "ttl" {
				t.Errorf("check %+v", check)
			}
		}
		slices.Sort(ids)
		return ids
	}
	if got := ids(); !slices.Equal(got, []string{"opts-a", "opts-b", "opts-c"}) {
		t.Errorf("checks %v", got)
	}
	must(t, c.Agent().ServiceRegisterOpts(reg, api.ServiceRegisterOpts{ReplaceExistingChecks: true}))
	if got := ids(); !slices.Equal(got, []string{"opts-c"}) {
		t.Errorf("replaced: %v", got)
	}
	must(t, c.Agent().UpdateTTLOpts("opts-c", "by options", api.HealthPassing, q))
	services, err := c.Agent().ServicesWithFilterOpts(`Service == "opts"`, q)
	must(t, err)
	if s := services[id]; len(services) != 1 || s.Locality == nil || s.Locality.Zone != "eu-1" {
		t.Errorf("services %+v", services)
	}
	if services, err = c.Agent().ServicesWithFilter(`Service == "nobody"`); err != nil || len(services) != 0 {
		t.Errorf("%v, %v", services, err)
	}
	if checks, err := c.Agent().Checks(); err != nil || checks["opts-c"].Output != "by options" {
		t.Errorf("%+v, %v", checks["opts-c"], err)
	}
	if status, _, err := c.Agent().AgentHealthServiceByIDOpts(id, q); err != nil || status != api.HealthPassing {
		t.Errorf("%s, %v", status, err)
	}
	if status, list, err := c.Agent().AgentHealthServiceByNameOpts("opts", q); err != nil || status != api.HealthPassing || len(list) != 1 {
		t.Errorf("%s, %v", status, err)
	}
	must(t, c.Agent().EnableServiceMaintenanceOpts(id, "why", q))
	if status, info, err := c.Agent().AgentHealthServiceByID(id); err != nil || status != api.HealthCritical || info.AggregatedStatus != api.HealthMaint {
		t.Errorf("%s, %+v, %v", status, info, err)
	}
	must(t, c.Agent().DisableServiceMaintenanceOpts(id, q))
	must(t, c.Agent().CheckRegisterOpts(&api.AgentCheckRegistration{ID: "opts-node", Name: "n", AgentServiceCheck: api.AgentServiceCheck{TTL: "10m"}}, q))
	must(t, c.Agent().CheckDeregisterOpts("opts-node", q))
	must(t, c.Agent().ServiceDeregisterOpts(id, q))
	wantCode(t, c.Agent().ServiceDeregisterOpts(id, q), 404, "Unknown service ID")
	must(t, c.Agent().Reload())
}

func TestAgent_NodeMaintenance(t *testing.T) {
	c := connect(t)
	node, err := c.Agent().NodeName()
	must(t, err)
	must(t, c.Agent().EnableNodeMaintenance("new disk"))
	checks, _, err := c.Health().Node(node, nil)
	if err != nil || checks.AggregatedStatus() != api.HealthMaint {
		t.Errorf("%s, %v", checks.AggregatedStatus(), err)
	}
	must(t, c.Agent().DisableNodeMaintenance())
	if checks, _, err = c.Health().Node(node, nil); err != nil || checks.AggregatedStatus() == api.HealthMaint {
		t.Errorf("%s, %v", checks.AggregatedStatus(), err)
	}
}

func TestAgent_TTLAlone(t *testing.T) {
	c := connect(t)
	registered(t, c, "ttl1", "ttl", func(r *api.AgentServiceRegistration) { r.Weights, r.Check.Status = nil, "" })
	wantCode(t, c.Agent().CheckRegister(&api.AgentCheckRegistration{Name: "x", ServiceID: "nobody", AgentServiceCheck: api.AgentServiceCheck{TTL: "1m"}}), 404, `ServiceID "nobody" does not exist`)
	wantCode(t, c.Agent().CheckRegister(&api.AgentCheckRegistration{Name: "x", AgentServiceCheck: api.AgentServiceCheck{TTL: "nope"}}), 400, "invalid duration")
	wantCode(t, c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "x", Weights: &api.AgentWeights{}}), 400, "Passing must be greater than 0")
	wantCode(t, c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "x", Meta: map[string]string{"consul-x": "y"}}), 400, "reserved")
	must(t, c.Agent().CheckRegister(&api.AgentCheckRegistration{ID: "ttl-http", Name: "x", AgentServiceCheck: api.AgentServiceCheck{HTTP: "http://127.0.0.1:9", Interval: "10s"}}))
	wantCode(t, c.Agent().PassTTL("ttl-http", ""), 500, `CheckID "ttl-http" does not have associated TTL`)
	must(t, c.Agent().CheckDeregister("ttl-http"))
}

// There are no tokens to set until there are ACLs: said as Consul does without them.
func TestAgent_TokensAreOfACLs(t *testing.T) {
	c := connect(t)
	for name, set := range map[string]func(string, *api.WriteOptions) (*api.WriteMeta, error){
		"old default": c.Agent().UpdateACLToken, "old agent": c.Agent().UpdateACLAgentToken,
		"old recovery": c.Agent().UpdateACLAgentMasterToken, "old replication": c.Agent().UpdateACLReplicationToken,
		"default": c.Agent().UpdateDefaultACLToken, "agent": c.Agent().UpdateAgentACLToken,
		"recovery": c.Agent().UpdateAgentRecoveryACLToken, "master": c.Agent().UpdateAgentMasterACLToken,
		"replication": c.Agent().UpdateReplicationACLToken, "registration": c.Agent().UpdateConfigFileRegistrationToken, "dns": c.Agent().UpdateDNSToken,
	} {
		t.Run(name, func(t *testing.T) {
			want := "ACL support disabled"
			if strings.HasPrefix(name, "old") { // asked of nobody
				want = "deprecated"
			}
			if _, err := set("secret", nil); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAgent_ForceLeaveOfTheHostThatIsAskedDoesNothing(t *testing.T) {
	c := connect(t)
	node, err := c.Agent().NodeName()
	must(t, err)
	must(t, c.Agent().ForceLeave(node))
	must(t, c.Agent().ForceLeavePrune(node))
	must(t, c.Agent().ForceLeaveOpts(node, api.ForceLeaveOpts{Prune: true}))
	must(t, c.Agent().ForceLeaveOptions(node, api.ForceLeaveOpts{}, &api.QueryOptions{}))
	members, err := c.Agent().MembersOpts(api.MembersOpts{Segment: api.AllSegments, Filter: fmt.Sprintf("Name == %q", node)})
	must(t, err)
	if len(members) != 1 || members[0].Status != 1 {
		t.Errorf("members %+v", members)
	}
}

func TestCatalog_SleepsWhileOnlyChecksChange(t *testing.T) {
	c := connect(t)
	registered(t, c, "asleep1", "asleep")
	entries, meta, err := c.Catalog().Service("asleep", "", nil)
	must(t, err)
	if len(entries) != 1 {
		t.Fatalf("entries %+v", entries)
	}
	woken := make(chan []*api.CatalogService, 1)
	go func() {
		list, _, err := c.Catalog().Service("asleep", "", &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: patience})
		if err != nil {
			t.Error(err)
		}
		woken <- list
	}()
	_, before, err := c.Health().Service("asleep", "", false, nil)
	must(t, err)
	must(t, c.Agent().FailTTL("check:asleep1", "down"))
	_, after, err := c.Health().Service("asleep", "", false, &api.QueryOptions{WaitIndex: before.LastIndex, WaitTime: patience})
	must(t, err)
	if after.LastIndex <= before.LastIndex {
		t.Errorf("health went from %d to %d", before.LastIndex, after.LastIndex)
	}
	select {
	case list := <-woken:
		// The request may have come after the check's change, which moves the index, as Consul's does.
		if len(list) != 1 {
			t.Errorf("%+v", list)
		}
		return
	case <-time.After(100 * time.Millisecond):
	}
	registered(t, c, "asleep2", "asleep")
	if list := <-woken; len(list) != 2 {
		t.Errorf("woken with %+v", list)
	}
}

func TestCached_SaysHitAndAge(t *testing.T) {
	c := connect(t)
	registered(t, c, "cached1", "cached")
	eventually(t, "a hit", func() error {
		_, meta, err := c.Health().Service("cached", "", false, &api.QueryOptions{UseCache: true})
		if err == nil && (!meta.CacheHit || meta.CacheAge != 0) {
			err = fmt.Errorf("hit %v, age %v", meta.CacheHit, meta.CacheAge)
		}
		return err
	})
	if list, meta, err := c.Catalog().Service("cached", "", &api.QueryOptions{UseCache: true}); err != nil || !meta.CacheHit || len(list) != 1 {
		t.Errorf("%v, %+v", err, meta)
	}
	if _, meta, err := c.Health().Service("cached", "", false, nil); err != nil || meta.CacheHit {
		t.Errorf("not asked for: %v, %+v", err, meta)
	}
}

func TestStatus_WithOptions(t *testing.T) {
	c := connect(t)
	for _, q := range []*api.QueryOptions{nil, {Datacenter: "dc1"}, {AllowStale: true}} {
		leader, err := c.Status().LeaderWithQueryOptions(q)
		must(t, err)
		peers, err := c.Status().PeersWithQueryOptions(q)
		must(t, err)
		if !slices.Contains(peers, leader) {
			t.Errorf("leader %q, peers %v", leader, peers)
		}
	}
	_, err := c.Status().LeaderWithQueryOptions(&api.QueryOptions{Datacenter: "nowhere"})
	wantCode(t, err, 500, "No path to datacenter")
}
