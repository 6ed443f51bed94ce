package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meibo/cluster/check"
	"meibo/cluster/definition"
)

func TestReload_ChangesOnlyWhatFilesDefine(t *testing.T) {
	keep := definition.Service{Name: "keep", Checks: []definition.Check{ttl(time.Hour)}}
	gone := definition.Service{Name: "gone", Checks: []definition.Check{ttl(time.Hour)}}
	disk := definition.Check{Name: "disk", Definition: check.Definition{TTL: time.Hour}}
	a := mustNew(t, Config{Services: []definition.Service{keep, gone}, Checks: []definition.Check{disk}})
	must(t, a.AddService(web(), SourceAPI, false))
	for _, id := range []string{"service:keep", "service:web1", "disk"} {
		must(t, a.UpdateTTL(id, "passing", "was here"))
	}
	runner := a.checks["service:keep"].runner

	changed := keep
	changed.Port = 99
	added := definition.Service{Name: "added"}
	must(t, a.Reload([]definition.Service{changed, added}, []definition.Check{disk}))
	if got := serviceIDs(a); got != "added keep web1" {
		t.Errorf("got services %s", got)
	}
	wantStatuses(t, a, map[string]string{"service:keep": "passing", "service:web1": "passing", "disk": "passing"})
	if a.Services()["keep"].Port != 99 || a.checks["service:keep"].runner != runner {
		t.Error("the change is missing, or the runner was changed for it")
	}

	must(t, a.Reload([]definition.Service{changed}, nil))
	wantStatuses(t, a, map[string]string{"service:keep": "passing", "service:web1": "passing"})
	before := a.own.Load()
	must(t, a.Reload([]definition.Service{changed}, nil))
	if a.own.Load() != before {
		t.Error("a reload without a change changed something")
	}
	must(t, a.Reload(nil, nil))
	if got := serviceIDs(a); got != "web1" {
		t.Errorf("got services %s", got)
	}
}

func TestReload_ACheckThatLeavesItsServiceGoes(t *testing.T) {
	def := web()
	a := mustNew(t, Config{Services: []definition.Service{def}})
	def.Checks = nil
	must(t, a.Reload([]definition.Service{def}, nil))
	wantStatuses(t, a, map[string]string{})
}

func TestReload_BadDefinitionsAreAllNamedAndChangeNothing(t *testing.T) {
	a := mustNew(t, Config{Services: []definition.Service{web()}})
	before := a.Own()
	err := a.Reload([]definition.Service{{Name: "new"}, {Name: "bad", Address: "0.0.0.0"}, {}},
		[]definition.Check{{Name: "c"}, {Name: "d", ServiceID: "none", Definition: check.Definition{TTL: 1}},
			{Name: "s", Definition: check.Definition{ScriptArgs: []string{"x"}, Interval: 1}}})
	for _, want := range []string{"Invalid service address", "Missing service name", "TTL must be > 0", `ServiceID "none" does not exist`, "Scripts are disabled"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	if diff := cmp.Diff(before, a.Own()); diff != "" {
		t.Error(diff)
	}
}

func TestNew_LeavesOutWhatIsUnfitAndTakesTheRest(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a node without a name was taken")
	}
	hour := check.Definition{TTL: time.Hour}
	a := mustNew(t, Config{
		MaxServices: 3, MaxChecks: 3,
		Services: []definition.Service{
			{}, {Name: "any", Address: "0.0.0.0"}, {Name: "port", Port: 70000}, {Name: "twice", Checks: []definition.Check{{ID: "c", Definition: hour}, {ID: "c", Definition: hour}}},
			{Name: "script", Checks: []definition.Check{{Definition: check.Definition{ScriptArgs: []string{"x"}, Interval: time.Minute}}}},
			{Name: "full", Checks: []definition.Check{ttl(1), ttl(1), ttl(1), ttl(1)}},
			{Name: "a", Checks: []definition.Check{ttl(time.Hour)}}, {Name: "b"}, {Name: "c"}, {Name: "d"},
		},
		Checks: []definition.Check{
			{}, {Name: "none"}, {Name: "of nobody", ServiceID: "nobody", Definition: hour}, {Name: "of any", ServiceID: "any", Definition: hour},
			{Name: "node", Definition: hour}, {Name: "of b", ServiceID: "b", Definition: hour}, {Name: "too many", Definition: hour},
		},
	})
	if got := serviceIDs(a); got != "a b c" {
		t.Errorf("got services %s", got)
	}
	wantStatuses(t, a, map[string]string{"service:a": "critical", "node": "critical", "of b": "critical"})
	var left []string
	for _, u := range a.LeftOut() {
		left = append(left, u.ID+": "+u.Err.Error())
	}
	want := []string{
		`: Missing service name`, `any: Invalid service address`, `port: `, `twice: Service "twice" has two checks of the ID "c"`,
		`script: Scripts are disabled`, `full: service "full" is refused: with its checks files would define more than 3`, `d: service "d" is refused: files define 3 services`,
		`: Missing check name`, `none: Invalid check "none": TTL must be > 0`, `of nobody: check "of nobody": ServiceID "nobody" does not exist`,
		`of any: check "of any": service "any", which it is a check of, is left out`, `too many: check "too many" is refused: files define 3 checks`,
	}
	if len(left) != len(want) {
		t.Fatalf("left out:\n%s", strings.Join(left, "\n"))
	}
	for _, w := range want {
		if !slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, w) }) {
			t.Errorf("%q is not in:\n%s", w, strings.Join(left, "\n"))
		}
	}
	// A reload takes all or nothing, and ends what the start left out.
	must(t, a.Reload([]definition.Service{{Name: "a"}}, nil))
	if left := a.LeftOut(); len(left) != 0 {
		t.Errorf("still left out: %v", left)
	}
}

func TestFindUnfit_SaysWhatNewLeavesOut(t *testing.T) {
	cfg := Config{
		Node: testNode, Services: []definition.Service{{Name: "any", Address: "::"}, {Name: "web"}},
		Checks: []definition.Check{{Name: "1", ServiceID: "web", Definition: check.Definition{TTL: 1}}, {Name: "2", ServiceID: "kept", Definition: check.Definition{TTL: 1}}},
	}
	unfit, err := FindUnfit(cfg, func(id string) bool { return id == "kept" })
	must(t, err)
	if len(unfit) != 1 || unfit[0].Check || unfit[0].ID != "any" {
		t.Errorf("got %+v", unfit)
	}
	unfit, err = FindUnfit(cfg, func(string) bool { return false })
	must(t, err)
	if len(unfit) != 2 || !unfit[1].Check || unfit[1].ID != "2" || unfit[1].ServiceID != "kept" {
		t.Errorf("got %+v", unfit)
	}
}

func TestReload_FileTakesOverAndTheAPIsOwnStay(t *testing.T) {
	dir := t.TempDir()
	a := mustNew(t, Config{DataDir: dir})
	must(t, a.AddService(web(), SourceAPI, false))
	must(t, a.UpdateTTL("service:web1", "passing", ""))
	filed := web()
	filed.Port = 8080
	must(t, a.Reload([]definition.Service{filed}, nil))
	wantStatuses(t, a, map[string]string{"service:web1": "passing"})
	must(t, a.Reload(nil, nil))
	if got := serviceIDs(a) + serviceIDs(mustNew(t, Config{DataDir: dir})); got != "" {
		t.Errorf("got %s", got)
	}
}

func TestSetNodeMeta_ShowsAtOnceAndReachesTheCatalog(t *testing.T) {
	var told []Change
	a := mustNew(t, Config{OnChange: func(c Change) { told = append(told, c) }})
	told = nil
	a.SetNodeMeta(map[string]string{"rack": "r2"})
	if got := a.Own().Node.Meta["rack"]; got != "r2" || len(told) != 1 || !told[0].Node {
		t.Errorf("own node has rack %q, told %v", got, told)
	}
	if node, _, _ := a.steps(); len(node) != 1 {
		t.Errorf("%d steps for the node, want 1", len(node))
	}
	a.SetNodeMeta(map[string]string{"rack": "r2"})
	if len(told) != 1 {
		t.Error("the same again was told")
	}
}

func TestSetDiscardCheckOutput_LaterResultsHaveNone(t *testing.T) {
	a := mustNew(t, Config{})
	must(t, a.AddService(web(), SourceAPI, false))
	must(t, a.UpdateTTL("service:web1", "passing", "kept"))
	a.SetDiscardCheckOutput(true)
	must(t, a.UpdateTTL("service:web1", "warning", "dropped"))
	if got := a.Checks()["service:web1"].Output; got != "" {
		t.Errorf("output %q", got)
	}
}
