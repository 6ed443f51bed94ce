package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"meibo/cluster/catalog"
	"meibo/cluster/check"
	"meibo/cluster/definition"
)

var testNode = catalog.Node{ID: "8f1f4a5c-9a4d-4b8e-8f0e-0d3a5f6b7c81", Node: "n1", Address: "192.0.2.1", Datacenter: "dc1"}

func mustNew(t testing.TB, cfg Config) *Agent {
	t.Helper()
	if cfg.Node.Node == "" {
		cfg.Node = testNode
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func ttl(d time.Duration) definition.Check {
	return definition.Check{Definition: check.Definition{TTL: d}}
}

func web() definition.Service {
	return definition.Service{Name: "web", ID: "web1", Port: 80, Tags: []string{"v1"}, Token: "hush", Checks: []definition.Check{ttl(time.Hour)}}
}

func statuses(a *Agent) map[string]string {
	m := map[string]string{}
	for id, c := range a.Checks() {
		m[id] = c.Status
	}
	return m
}

func wantStatuses(t *testing.T, a *Agent, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, statuses(a)); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
}

func serviceIDs(a *Agent) string {
	return strings.Join(slices.Sorted(maps.Keys(a.Services())), " ")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// running runs the agent until the test or stop ends it.
func running(t testing.TB, a *Agent) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestAddService_FillsInDefaults(t *testing.T) {
	a := mustNew(t, Config{})
	must(t, a.AddService(definition.Service{Name: "db", Address: "192.0.2.7", Port: 5432, Checks: []definition.Check{ttl(time.Minute), {Name: "mine", ID: "own", Definition: check.Definition{TTL: time.Minute}}}}, SourceAPI, false))
	s := a.Services()["db"]
	want := &catalog.Service{
		Node: "n1", ID: "db", Service: "db", Address: "192.0.2.7", Port: 5432, Weights: catalog.Weights{Passing: 1, Warning: 1},
		TaggedAddresses: map[string]catalog.ServiceAddress{"lan_ipv4": {Address: "192.0.2.7", Port: 5432}, "wan_ipv4": {Address: "192.0.2.7", Port: 5432}},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("service (-want +got):\n%s", diff)
	}
	c := a.Checks()["service:db:1"]
	wantCheck := &catalog.Check{Node: "n1", CheckID: "service:db:1", Name: "Service 'db' check", Status: "critical", ServiceID: "db", ServiceName: "db", Type: "ttl"}
	if diff := cmp.Diff(wantCheck, c); diff != "" {
		t.Errorf("check (-want +got):\n%s", diff)
	}
	if a.Checks()["own"] == nil {
		t.Error("check with an ID of its own is missing")
	}
	must(t, a.AddService(definition.Service{Name: "v6", Address: "2001:db8::1"}, SourceAPI, false))
	if got := a.Services()["v6"].TaggedAddresses; got["lan_ipv6"].Address != "2001:db8::1" || len(got) != 2 {
		t.Errorf("got %v", got)
	}
	must(t, a.AddService(definition.Service{Name: "cname", Address: "db.example.com"}, SourceAPI, false))
	if got := a.Services()["cname"].TaggedAddresses; len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestAddService_Refusals(t *testing.T) {
	def := func(change func(*definition.Service)) definition.Service {
		d := definition.Service{Name: "web", Port: 80}
		change(&d)
		return d
	}
	for name, c := range map[string]struct {
		def  definition.Service
		want string
	}{
		"no name":     {def(func(d *definition.Service) { d.Name = "" }), "Missing service name"},
		"any address": {def(func(d *definition.Service) { d.Address = "0.0.0.0" }), "Invalid service address"},
		"any v6":      {def(func(d *definition.Service) { d.Address = "::" }), "Invalid service address"},
		"port":        {def(func(d *definition.Service) { d.Port = 65536 }), "Invalid service port"},
		"server's ID": {def(func(d *definition.Service) { d.ID = "consul" }), "kept for the servers"},
		"weights":     {def(func(d *definition.Service) { d.Weights = &catalog.Weights{Warning: 1} }), "Passing must be greater than 0"},
		"control":     {def(func(d *definition.Service) { d.ID = "a\r\nb" }), "control characters"},
		"tag control": {def(func(d *definition.Service) { d.Tags = []string{"a\x00"} }), "control characters"},
		"tags":        {def(func(d *definition.Service) { d.Tags = []string{strings.Repeat("a", 65536)} }), "at most 65536 bytes"},
		"own meta":    {def(func(d *definition.Service) { d.Meta = map[string]string{"consul-x": ""} }), "is reserved for internal use"},
		"meta":        {def(func(d *definition.Service) { d.Meta = map[string]string{"a b": ""} }), "invalid characters"},
		"socket":      {def(func(d *definition.Service) { d.SocketPath = "/s" }), "together with SocketPath"},
		"check":       {def(func(d *definition.Service) { d.Checks = []definition.Check{{}} }), "TTL must be > 0"},
		"interval, ttl": {def(func(d *definition.Service) {
			d.Checks = []definition.Check{{Definition: check.Definition{TCP: "h:1", TTL: 1, Interval: 1}}}
		}), "Interval and TTL cannot both be specified"},
		"status": {def(func(d *definition.Service) { c := ttl(1); c.Status = "up"; d.Checks = []definition.Check{c} }), "Status for checks must"},
		"script": {def(func(d *definition.Service) {
			d.Checks = []definition.Check{{Definition: check.Definition{ScriptArgs: []string{"true"}, Interval: 1}}}
		}), "Scripts are disabled on this agent"},
		"two checks": {def(func(d *definition.Service) { c := ttl(1); c.ID = "x"; d.Checks = []definition.Check{c, c} }), "two checks of the ID"},
		"reserved":   {def(func(d *definition.Service) { c := ttl(1); c.ID = "serfHealth"; d.Checks = []definition.Check{c} }), "kept for meibo"},
		"tagged v4": {def(func(d *definition.Service) {
			d.TaggedAddresses = map[string]catalog.ServiceAddress{"lan_ipv4": {Address: "::1"}}
		}), "must be a valid ipv4"},
	} {
		t.Run(name, func(t *testing.T) {
			a := mustNew(t, Config{})
			err := a.AddService(c.def, SourceAPI, false)
			if err == nil || !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an ErrInvalid with %q", err, c.want)
			}
			if own := a.Own(); len(own.Services)+len(own.Checks) != 0 {
				t.Errorf("something of it is there: %v", own)
			}
		})
	}
}

// Nobody looks, so that nobody may think it healthy; and nobody takes it away for having been ill for long.
func TestChecksThatCannotRun_AreCriticalFromEverySource(t *testing.T) {
	docker := definition.Check{Status: catalog.Passing, DeregisterCriticalServiceAfter: time.Minute, Definition: check.Definition{DockerContainerID: "x", ScriptArgs: []string{"true"}, Interval: time.Second}}
	for _, source := range []Source{SourceFile, SourceAPI} {
		t.Run(source.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				cfg := Config{DataDir: dir}
				a := mustNew(t, cfg)
				must(t, a.AddService(definition.Service{Name: "web", Port: 80, Checks: []definition.Check{docker}}, source, false))
				for turn := range 2 {
					c := a.Checks()["service:web"]
					if c == nil || c.Status != catalog.Critical || c.Type != "docker" || !strings.Contains(c.Output, "docker checks are not run") {
						t.Fatalf("turn %d: got %+v", turn, c)
					}
					if err := a.UpdateTTL("service:web", catalog.Passing, ""); !errors.Is(err, ErrNotTTL) {
						t.Errorf("got %v", err)
					}
					stop := running(t, a)
					time.Sleep(time.Hour)
					stop()
					if a.Services()["web"] == nil {
						t.Fatal("the service was removed")
					}
					if source == SourceFile {
						cfg.Services = []definition.Service{{Name: "web", Port: 80, Checks: []definition.Check{docker}}}
					}
					a = mustNew(t, cfg)
				}
			})
		})
	}
}

// What doesn't fit a label is no DNS name; proxies keep whole rules in tags.
func TestAddService_ManyAndLongTags(t *testing.T) {
	a := mustNew(t, Config{})
	tags := append(make([]string, 0, 101), strings.Repeat("x", 1500))
	for i := range 100 {
		tags = append(tags, fmt.Sprintf("urlprefix-%d.example/", i))
	}
	must(t, a.AddService(definition.Service{Name: "web", Tags: tags}, SourceAPI, false))
	if got := a.Services()["web"].Tags; !slices.Equal(got, tags) {
		t.Errorf("%d tags", len(got))
	}
}

func TestScripts_PermissionBySource(t *testing.T) {
	def := definition.Service{Name: "web", Checks: []definition.Check{{Definition: check.Definition{ScriptArgs: []string{"true"}, Interval: time.Hour}}}}
	for _, c := range []struct {
		any, local bool
		source     Source
		want       bool
	}{
		{false, false, SourceFile, false}, {false, true, SourceFile, true}, {false, true, SourceAPI, false},
		{true, false, SourceFile, true}, {true, false, SourceAPI, true},
	} {
		a := mustNew(t, Config{EnableScriptChecks: c.any, EnableLocalScriptChecks: c.local})
		if err := a.AddService(def, c.source, false); (err == nil) != c.want {
			t.Errorf("%+v: got %v", c, err)
		}
	}
}

func TestUnknownIDs_InConsulsWords(t *testing.T) {
	a := mustNew(t, Config{})
	for _, c := range []struct {
		err  error
		kind error
		text string
	}{
		{a.RemoveService("x"), ErrUnknownService, `Unknown service ID "x". Ensure that the service ID is passed, not the service name.`},
		{a.RemoveCheck("x"), ErrUnknownCheck, `Unknown check ID "x". Ensure that the check ID is passed, not the check name.`},
		{a.UpdateTTL("x", "passing", ""), ErrUnknownCheck, `Unknown check ID "x". Ensure that the check ID is passed, not the check name.`},
		{a.ServiceMaintenance("x", true, ""), ErrUnknownService, `Unknown service ID "x". Ensure that the service ID is passed, not the service name.`},
		{a.AddCheck(definition.Check{Name: "c", ServiceID: "x", Definition: check.Definition{TTL: 1}}, SourceAPI), ErrUnknownService, `ServiceID "x" does not exist`},
		{a.AddCheck(definition.Check{Definition: check.Definition{TTL: 1}}, SourceAPI), ErrInvalid, `Missing check name`},
	} {
		if !errors.Is(c.err, c.kind) || c.err.Error() != c.text {
			t.Errorf("got %v, want %s", c.err, c.text)
		}
	}
	must(t, a.AddCheck(definition.Check{Name: "net", Definition: check.Definition{TCP: "h:1", Interval: time.Hour}}, SourceAPI))
	if err := a.UpdateTTL("net", "passing", ""); !errors.Is(err, ErrNotTTL) {
		t.Errorf("got %v", err)
	}
}

func TestAddService_AgainKeepsWhatChecksShow(t *testing.T) {
	a := mustNew(t, Config{})
	must(t, a.AddService(web(), SourceAPI, false))
	must(t, a.UpdateTTL("service:web1", "passing", "fine"))
	again := web()
	again.Tags = []string{"v2"}
	again.Checks[0].TTL = 2 * time.Hour
	must(t, a.AddService(again, SourceAPI, false))
	c := a.Checks()["service:web1"]
	if c.Status != "passing" || c.Output != "fine" || !slices.Equal(c.ServiceTags, []string{"v2"}) {
		t.Errorf("got %+v", c)
	}
	must(t, a.UpdateTTL("service:web1", "warning", "")) // the new runner reports
	wantStatuses(t, a, map[string]string{"service:web1": "warning"})
}

func TestAddService_ReplaceExistingChecks(t *testing.T) {
	a := mustNew(t, Config{})
	must(t, a.AddService(web(), SourceAPI, false))
	must(t, a.AddCheck(definition.Check{Name: "extra", ServiceID: "web1", Definition: check.Definition{TTL: time.Hour}}, SourceAPI))
	must(t, a.ServiceMaintenance("web1", true, ""))
	bare := web()
	bare.Checks = nil
	must(t, a.AddService(bare, SourceAPI, false))
	wantStatuses(t, a, map[string]string{"service:web1": "critical", "extra": "critical", "_service_maintenance:web1": "critical"})
	must(t, a.AddService(web(), SourceAPI, true))
	wantStatuses(t, a, map[string]string{"service:web1": "critical", "_service_maintenance:web1": "critical"})
}

func TestRemoveService_TakesItsChecks(t *testing.T) {
	a := mustNew(t, Config{})
	must(t, a.AddService(web(), SourceAPI, false))
	must(t, a.ServiceMaintenance("web1", true, ""))
	must(t, a.RemoveService("web1"))
	if own := a.Own(); len(own.Services)+len(own.Checks) != 0 {
		t.Errorf("left over: %v %v", own.Services, own.Checks)
	}
}

func TestMaintenance(t *testing.T) {
	a := mustNew(t, Config{})
	must(t, a.AddService(web(), SourceAPI, false))
	must(t, a.ServiceMaintenance("web1", true, "upgrade"))
	must(t, a.ServiceMaintenance("web1", true, "again"))
	c := a.Checks()["_service_maintenance:web1"]
	if c.Notes != "upgrade" || c.Name != "Service Maintenance Mode" || c.Type != "maintenance" || c.ServiceName != "web" {
		t.Errorf("got %+v", c)
	}
	must(t, a.ServiceMaintenance("web1", false, ""))
	must(t, a.ServiceMaintenance("web1", false, ""))
	must(t, a.NodeMaintenance(true, ""))
	if c := a.Checks()["_node_maintenance"]; c.ServiceID != "" || !strings.HasPrefix(c.Notes, "Maintenance mode is enabled for this node") {
		t.Errorf("got %+v", c)
	}
	must(t, a.NodeMaintenance(false, ""))
	wantStatuses(t, a, map[string]string{"service:web1": "critical"})
}

// VIEWS.md, rule 9.
func TestRule9_OwnShowsARegistrationBeforeAddServiceReturns(t *testing.T) {
	var a *Agent
	var got []string
	a = mustNew(t, Config{OnChange: func(c Change) {
		if a != nil {
			got = append(got, strings.Join(c.Services, ",")+" "+serviceIDs(a))
		}
	}})
	must(t, a.AddService(web(), SourceAPI, false))
	must(t, a.UpdateTTL("service:web1", "passing", ""))
	renamed := web()
	renamed.Name = "www"
	must(t, a.AddService(renamed, SourceAPI, false))
	must(t, a.RemoveService("web1"))
	want := []string{"web web1", "web web1", "web,www web1", "www "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOwn_IsOrderedAndUnchangedByWhatComesLater(t *testing.T) {
	a := mustNew(t, Config{})
	for _, id := range []string{"c", "a", "d", "b"} {
		must(t, a.AddService(definition.Service{Name: id}, SourceAPI, false))
	}
	before := a.Own()
	ids := func(r Record) (s string) {
		for _, x := range r.Services {
			s += x.ID
		}
		return s
	}
	changed := a.Changed()
	must(t, a.AddService(definition.Service{Name: "bb"}, SourceAPI, false))
	must(t, a.RemoveService("a"))
	select {
	case <-changed:
	default:
		t.Error("Changed was not closed")
	}
	if ids(before) != "abcd" || ids(a.Own()) != "bbbcd" {
		t.Errorf("got %s, %s", ids(before), ids(a.Own()))
	}
}

func TestLimits_NameWhatIsFull(t *testing.T) {
	a := mustNew(t, Config{MaxServices: 1, MaxChecks: 2})
	must(t, a.AddService(web(), SourceAPI, false))
	must(t, a.AddService(web(), SourceAPI, false))
	if err := a.AddService(definition.Service{Name: "db"}, SourceAPI, false); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "1 services") {
		t.Errorf("got %v", err)
	}
	must(t, a.AddCheck(definition.Check{Name: "x", Definition: check.Definition{TTL: 1}}, SourceAPI))
	if err := a.AddCheck(definition.Check{Name: "y", Definition: check.Definition{TTL: 1}}, SourceAPI); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestTokens_AreKeptButNeverLogged(t *testing.T) {
	var log bytes.Buffer
	dir := t.TempDir()
	a := mustNew(t, Config{DataDir: dir, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	def := web()
	def.Name = "a.b"
	must(t, a.AddService(def, SourceAPI, false))
	must(t, a.UpdateTTL("service:web1", "passing", ""))
	if strings.Contains(log.String(), "hush") {
		t.Errorf("token in the log:\n%s", log.String())
	}
	data, err := os.ReadFile(filepath.Join(dir, name(servicesDir, "web1")))
	must(t, err)
	if !bytes.Contains(data, []byte("hush")) {
		t.Errorf("token not kept: %s", data)
	}
}
