package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// Two histories.
const (
	h1 = "11111111-1111-4111-8111-111111111111"
	h2 = "22222222-2222-4222-8222-222222222222"
)

// fakeCatalog is a catalog of one node. Its fields are guarded by mu.
type fakeCatalog struct {
	mu       sync.Mutex
	history  string
	node     *catalog.Node
	services map[string]*catalog.Service
	checks   map[string]*catalog.Check
	fail     error
	refuse   func(catalog.Body) error
	loads    int
	log      []string
}

func newFakeCatalog() *fakeCatalog {
	return &fakeCatalog{history: h1, services: map[string]*catalog.Service{}, checks: map[string]*catalog.Check{}}
}

func (f *fakeCatalog) Load(_ context.Context, node string) (Remote, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.loads++
	if f.fail != nil {
		return Remote{}, f.fail
	}
	if f.node == nil || f.node.Node != node {
		return Remote{History: f.history}, nil
	}
	r := Remote{History: f.history, Node: f.node}
	for _, s := range f.services {
		r.Services = append(r.Services, s)
	}
	for _, c := range f.checks {
		r.Checks = append(r.Checks, c)
	}
	return r, nil
}

func (f *fakeCatalog) Apply(_ context.Context, body catalog.Body) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	if f.refuse != nil {
		if err := f.refuse(body); err != nil {
			f.log = append(f.log, "refused")
			return err
		}
	}
	if err := body.Validate(); err != nil {
		return &catalog.Error{Text: err.Error()}
	}
	switch b := body.(type) {
	case *catalog.Register:
		f.register(b)
	case *catalog.Deregister:
		f.log = append(f.log, "-"+b.ServiceID+b.CheckID)
		delete(f.services, b.ServiceID)
		delete(f.checks, b.CheckID)
		maps.DeleteFunc(f.checks, func(_ string, c *catalog.Check) bool { return b.ServiceID != "" && c.ServiceID == b.ServiceID })
	case *catalog.MarkSynced:
		f.log = append(f.log, "synced "+b.History)
		node := *f.node
		node.Synced = b.History
		f.node = &node
	default:
		return fmt.Errorf("unexpected %T", body)
	}
	return nil
}

func (f *fakeCatalog) register(b *catalog.Register) {
	entry := "+"
	if !b.SkipNodeUpdate {
		node := b.Node
		if f.node != nil {
			node.Synced = f.node.Synced
		}
		f.node = &node
		entry += "node"
	}
	if s := b.Service; s != nil {
		f.services[s.ID] = s
		entry += s.ID
	}
	for _, c := range b.Checks {
		kept := *c
		if s := f.services[c.ServiceID]; s != nil {
			kept.ServiceName, kept.ServiceTags = s.Service, s.Tags
		}
		f.checks[c.CheckID] = &kept
		entry += " " + c.CheckID + "=" + c.Status
	}
	f.log = append(f.log, entry)
}

// loaded is how often the node was read.
func (f *fakeCatalog) loaded() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.loads
}

// service returns one of the catalog's services.
func (f *fakeCatalog) service(id string) *catalog.Service {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.services[id]
}

// take returns what happened since the last time, sorted where pushes may
// overtake one another.
func (f *fakeCatalog) take() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	got := strings.Join(f.log, "; ")
	f.log = nil
	return got
}

// change changes the catalog behind the agent's back.
func (f *fakeCatalog) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// inBubble runs the test in fake time with a running agent.
func inBubble(t *testing.T, cfg Config, test func(t *testing.T, a *Agent, f *fakeCatalog)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCatalog()
		start := time.Now()
		cfg.Catalog, cfg.Now = f, func() time.Duration { return time.Since(start) }
		a := mustNew(t, cfg)
		stop := running(t, a)
		synctest.Wait()
		test(t, a, f)
		stop()
	})
}

func wantTaken(t *testing.T, f *fakeCatalog, want string) {
	t.Helper()
	synctest.Wait()
	if got := f.take(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSync_FullAtStartThenChangesAtOnce(t *testing.T) {
	inBubble(t, Config{Services: []definition.Service{web()}}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		wantTaken(t, f, "+node; +web1 service:web1=critical; synced "+h1)
		must(t, a.UpdateTTL("service:web1", "passing", ""))
		wantTaken(t, f, "+ service:web1=passing")
		must(t, a.AddService(definition.Service{Name: "db"}, SourceAPI, false))
		wantTaken(t, f, "+db")
		must(t, a.AddService(definition.Service{Name: "db"}, SourceAPI, false))
		wantTaken(t, f, "") // nothing that the catalog lacks
		must(t, a.NodeMaintenance(true, ""))
		wantTaken(t, f, "+ _node_maintenance=critical")
		must(t, a.RemoveService("db"))
		must(t, a.NodeMaintenance(false, ""))
		synctest.Wait()
		if got := f.take(); !strings.Contains(got, "-db") || !strings.Contains(got, "-_node_maintenance") {
			t.Errorf("got %q", got)
		}
		time.Sleep(time.Hour)
		wantTaken(t, f, "+ service:web1=critical") // its TTL; nothing else in an hour
		if n := f.loaded(); n < 25 || n > 61 {
			t.Errorf("got %d full syncs in an hour", n)
		}
	})
}

func TestSync_FullRepairsWhatTheCatalogHasOtherwise(t *testing.T) {
	inBubble(t, Config{Services: []definition.Service{web()}}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		f.take()
		f.change(func() {
			f.services["web1"] = &catalog.Service{ID: "web1", Service: "web", Port: 1}
			f.checks["service:web1"] = &catalog.Check{CheckID: "service:web1", Status: "passing", ServiceID: "web1"}
			f.services["foreign"] = &catalog.Service{ID: "foreign", Service: "x"}
			f.services["consul"] = &catalog.Service{ID: "consul", Service: "consul"}
			f.checks["alien"] = &catalog.Check{CheckID: "alien"}
			f.checks["serfHealth"] = &catalog.Check{CheckID: "serfHealth"}
			node := *f.node
			node.Address, node.Agentless = "192.0.2.99", true
			f.node = &node
		})
		time.Sleep(3 * time.Minute)
		got := strings.Split(f.take(), "; ")
		slices.Sort(got)
		if diff := cmp.Diff([]string{"+node", "+web1 service:web1=critical", "-alien", "-foreign"}, got); diff != "" {
			t.Error(diff)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.services["consul"] == nil || f.checks["serfHealth"] == nil {
			t.Error("the service consul or serfHealth was taken away")
		}
	})
}

func TestSync_ANewHistoryIsFilledAndMarked(t *testing.T) {
	inBubble(t, Config{Services: []definition.Service{web()}}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		f.take()
		f.change(func() { f.history, f.node = h2, nil; clear(f.services); clear(f.checks) })
		a.Resync(0)
		wantTaken(t, f, "+node; +web1 service:web1=critical; synced "+h2)
	})
}

func TestSync_FailuresAreTriedAgainEverMoreSlowly(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		f.take()
		f.change(func() { f.fail, f.loads = errors.New("no leader"), 0 })
		must(t, a.AddService(web(), SourceAPI, false))
		time.Sleep(time.Second)
		must(t, a.UpdateTTL("service:web1", "passing", ""))
		f.change(func() { f.fail = nil })
		time.Sleep(3 * time.Second)
		wantTaken(t, f, "+web1 service:web1=passing")

		f.change(func() { f.fail, f.loads = errors.New("no leader"), 0 })
		time.Sleep(30 * time.Minute)
		if n := f.loaded(); n < 100 || n > 300 {
			t.Errorf("got %d tries in half an hour", n)
		}
		must(t, a.AddService(definition.Service{Name: "db"}, SourceAPI, false))
		f.change(func() { f.fail = nil })
		a.Resync(0) // a leader has appeared
		synctest.Wait()
		if f.service("db") == nil {
			t.Error("not pushed when the leader was back")
		}
	})
}

func TestSync_RefusalIsNotRepeatedBeforeTheNextFullSync(t *testing.T) {
	for name, refusal := range map[string]error{"denied": fmt.Errorf("web: %w", ErrDenied), "by the state machine": &catalog.Error{Text: "no"}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Config{}, func(t *testing.T, a *Agent, f *fakeCatalog) {
				f.take()
				f.change(func() { f.refuse = func(catalog.Body) error { return refusal } })
				must(t, a.AddService(definition.Service{Name: "db"}, SourceAPI, false))
				time.Sleep(30 * time.Second)
				wantTaken(t, f, "refused")
				f.change(func() { f.refuse = nil })
				time.Sleep(3 * time.Minute)
				wantTaken(t, f, "+db")
			})
		})
	}
}

func TestSync_OutputAloneWaits(t *testing.T) {
	inBubble(t, Config{CheckUpdateInterval: 5 * time.Minute}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		must(t, a.AddService(web(), SourceAPI, false))
		must(t, a.UpdateTTL("service:web1", "passing", "0"))
		synctest.Wait()
		f.take()
		changes := 0
		for i := range 60 {
			must(t, a.UpdateTTL("service:web1", "passing", fmt.Sprint(i, " of the minute")))
			if a.Checks()["service:web1"].Output != fmt.Sprint(i, " of the minute") {
				t.Error("Own does not show the output")
			}
			time.Sleep(time.Minute)
			if f.take() != "" {
				changes++
			}
		}
		if changes < 6 || changes > 25 {
			t.Errorf("got %d pushes of an output in an hour", changes)
		}
		must(t, a.UpdateTTL("service:web1", "warning", "now"))
		wantTaken(t, f, "+ service:web1=warning")
	})
}

func TestSync_OutputAtOnceWhereAskedFor(t *testing.T) {
	inBubble(t, Config{CheckUpdateInterval: -1}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		must(t, a.AddService(web(), SourceAPI, false))
		must(t, a.UpdateTTL("service:web1", "passing", "0"))
		synctest.Wait()
		f.take()
		must(t, a.UpdateTTL("service:web1", "passing", "1"))
		wantTaken(t, f, "+ service:web1=passing")
	})
}

func TestSync_ManyRegistrationsOfOneServiceGoTogether(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		f.take()
		gate := make(chan struct{})
		f.change(func() { f.refuse = func(catalog.Body) error { <-gate; return nil } })
		must(t, a.AddService(definition.Service{Name: "first"}, SourceAPI, false))
		synctest.Wait() // its push is under way
		for i := range 100 {
			must(t, a.AddService(definition.Service{Name: "db", Port: i}, SourceAPI, false))
		}
		close(gate)
		wantTaken(t, f, "+first; +db")
		if got := f.service("db").Port; got != 99 {
			t.Errorf("got port %d", got)
		}
	})
}

func TestSync_EnableTagOverride(t *testing.T) {
	def := web()
	def.EnableTagOverride = true
	other := definition.Service{Name: "db", Tags: []string{"own"}}
	inBubble(t, Config{Services: []definition.Service{def, other}}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		f.take()
		f.change(func() {
			for id, s := range f.services {
				changed := *s
				changed.Tags = []string{"theirs"}
				f.services[id] = &changed
			}
		})
		a.Resync(0)
		wantTaken(t, f, "+db")
		if got := a.Services()["web1"].Tags; !slices.Equal(got, []string{"theirs"}) {
			t.Errorf("got tags %v, want those of the catalog", got)
		}
		if got := f.service("db").Tags; !slices.Equal(got, []string{"own"}) {
			t.Errorf("got tags %v, want the agent's", got)
		}
		a.Resync(0)
		wantTaken(t, f, "")
	})
}

func TestReaper_RemovesWhatIsCriticalForTooLong(t *testing.T) {
	def := web()
	def.Checks[0].DeregisterCriticalServiceAfter = time.Second // raised to a minute
	inBubble(t, Config{}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		must(t, a.AddService(def, SourceAPI, false))
		time.Sleep(50 * time.Second)
		must(t, a.UpdateTTL("service:web1", "passing", ""))
		time.Sleep(5 * time.Minute)
		must(t, a.UpdateTTL("service:web1", "critical", ""))
		time.Sleep(55 * time.Second)
		must(t, a.UpdateTTL("service:web1", "critical", "still"))
		if serviceIDs(a) != "web1" {
			t.Fatal("removed too early")
		}
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if serviceIDs(a) != "" || f.service("web1") != nil {
			t.Errorf("still there: %s", serviceIDs(a))
		}
	})
}

func TestAlias_FollowsServiceAndNode(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		alias := definition.Check{ID: "a", Name: "a", Definition: check.Definition{AliasService: "web1"}}
		must(t, a.AddService(definition.Service{Name: "front", Checks: []definition.Check{alias}}, SourceAPI, false))
		show := func() string { synctest.Wait(); c := a.Checks()["a"]; return c.Status + " " + c.Output }
		wantShown := func(want string) {
			t.Helper()
			if got := show(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		wantShown("critical Service web1 could not be found on node n1")
		must(t, a.AddService(web(), SourceAPI, false))
		wantShown(`critical Aliased check "Service 'web' check" failing: `)
		must(t, a.UpdateTTL("service:web1", "passing", ""))
		wantShown("passing All checks passing.")
		must(t, a.NodeMaintenance(true, ""))
		wantShown(`critical Aliased check "Node Maintenance Mode" failing: `)
		must(t, a.NodeMaintenance(false, ""))
		must(t, a.UpdateTTL("service:web1", "warning", "slow"))
		wantShown(`warning Aliased check "Service 'web' check" failing: slow`)
	})
}

func TestAlias_OfAnotherNodeAsksTheCatalog(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		must(t, a.AddCheck(definition.Check{Name: "a", Definition: check.Definition{AliasNode: "n2"}}, SourceAPI))
		synctest.Wait()
		if got := a.Checks()["a"].Output; got != "Node n2 could not be found" {
			t.Errorf("got %q", got)
		}
	})
}

func TestReregistration_KeepsTheRunnerAndItsTime(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		def := web()
		def.Checks[0].TTL = 30 * time.Second
		must(t, a.AddService(def, SourceAPI, false))
		must(t, a.UpdateTTL("service:web1", "passing", ""))
		for range 5 {
			time.Sleep(5 * time.Second)
			must(t, a.AddService(def, SourceAPI, false))
		}
		wantStatuses(t, a, map[string]string{"service:web1": "passing"})
		time.Sleep(6 * time.Second)
		synctest.Wait()
		wantStatuses(t, a, map[string]string{"service:web1": "critical"})
	})
}

func TestRestart_TTLGoesOnWithWhatWasLeft(t *testing.T) {
	dir := t.TempDir()
	def := web()
	def.Checks[0].TTL = 30 * time.Second
	inBubble(t, Config{DataDir: dir}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		must(t, a.AddService(def, SourceAPI, false))
		must(t, a.UpdateTTL("service:web1", "passing", ""))
		time.Sleep(20 * time.Second)
		b := mustNew(t, Config{DataDir: dir, Now: a.cfg.Now})
		stop := running(t, b)
		defer stop()
		time.Sleep(9 * time.Second)
		wantStatuses(t, b, map[string]string{"service:web1": "passing"})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantStatuses(t, b, map[string]string{"service:web1": "critical"})
	})
}

func TestRun_MayBeCalledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCatalog()
		start := time.Now()
		def := web()
		def.Checks[0].TTL = time.Minute
		a := mustNew(t, Config{Catalog: f, Now: func() time.Duration { return time.Since(start) }, Services: []definition.Service{def}})
		running(t, a)()
		must(t, a.UpdateTTL("service:web1", "passing", ""))
		stop := running(t, a)
		time.Sleep(59 * time.Second)
		wantStatuses(t, a, map[string]string{"service:web1": "passing"})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantStatuses(t, a, map[string]string{"service:web1": "critical"})
		stop()
	})
}

func TestScale(t *testing.T) {
	for members, want := range map[int]int{0: 1, 1: 1, 128: 1, 129: 2, 256: 2, 257: 3, 512: 3, 1024: 4, 5000: 7} {
		if got := Scale(members); got != want {
			t.Errorf("%d members: got %d, want %d", members, got, want)
		}
	}
}

// Many writers at once, for the race detector; at the end the catalog is equal.
func TestConcurrentWrites_EndEqual(t *testing.T) {
	f := newFakeCatalog()
	a := mustNew(t, Config{Catalog: f, DataDir: t.TempDir()})
	var own sync.Mutex
	a.cfg.OnChange = func(Change) { own.Lock(); a.Own(); own.Unlock() }
	stop := running(t, a)
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 10 {
				id := fmt.Sprint("svc", (w+i)%5)
				c := ttl(time.Hour)
				c.TTL += time.Duration(i)
				a.AddService(definition.Service{Name: id, Port: i, Checks: []definition.Check{c}}, SourceAPI, i%2 == 0)
				a.UpdateTTL("service:"+id, []string{"passing", "warning"}[i%2], fmt.Sprint(i))
				a.ServiceMaintenance(id, i%2 == 0, "")
				if i%4 == 3 {
					a.RemoveService(id)
				}
				a.Reload([]definition.Service{{Name: "filed", Port: i}}, nil)
			}
		})
	}
	writers.Wait()
	equal := func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		own := a.Own()
		if len(own.Services) != len(f.services) || len(own.Checks) != len(f.checks) {
			return false
		}
		for _, s := range own.Services {
			if r := f.services[s.ID]; r == nil || !catalog.SameService(s, r) {
				return false
			}
		}
		for _, c := range own.Checks {
			if r := f.checks[c.CheckID]; r == nil || !sameCheck(c, r, true) {
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(10 * time.Second); !equal(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("catalog is not equal:\n%s", cmp.Diff(a.Own().Services, slices.Collect(maps.Values(f.services))))
		}
	}
	stop()
	if diff := cmp.Diff(a.Services(), mustNew(t, Config{DataDir: a.cfg.DataDir, Services: []definition.Service{{Name: "filed", Port: a.Services()["filed"].Port}}}).Services()); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
}

func TestAwaitSync_EndsOnceTheCatalogHasIt(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		has := func(is func() bool) bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return is()
		}
		await := func(most time.Duration) time.Duration {
			ctx, cancel := context.WithTimeout(t.Context(), most)
			defer cancel()
			began := time.Now()
			a.AwaitSync(ctx)
			return time.Since(began)
		}
		for i := range 20 {
			id := fmt.Sprint("s", i)
			def := definition.Service{ID: id, Name: id, Checks: []definition.Check{{ID: "c" + id, Definition: check.Definition{TTL: time.Hour}}}}
			must(t, a.AddService(def, SourceAPI, false))
			await(time.Minute)
			if !has(func() bool { return f.services[id] != nil && f.checks["c"+id] != nil }) {
				t.Fatalf("%s is missing", id)
			}
			must(t, a.UpdateTTL("c"+id, catalog.Passing, "up"))
			await(time.Minute)
			if !has(func() bool { return f.checks["c"+id].Status == catalog.Passing }) {
				t.Fatalf("the state of %s is missing", id)
			}
		}
		must(t, a.RemoveService("s0"))
		await(time.Minute)
		if has(func() bool { return f.services["s0"] != nil }) {
			t.Error("what was removed is still there")
		}
		f.change(func() { f.refuse = func(catalog.Body) error { return ErrDenied } })
		must(t, a.RemoveService("s1"))
		if took := await(time.Minute); took != 0 {
			t.Errorf("waited for %v for what is refused", took)
		}
		f.change(func() { f.refuse, f.fail = nil, errors.New("nobody leads") })
		must(t, a.RemoveService("s2"))
		if took := await(time.Second); took != time.Second {
			t.Errorf("waited for %v, want a second", took)
		}
	})
}

func TestSync_ChangesDoNotWaitForAFullSyncThatIsDueLater(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, a *Agent, f *fakeCatalog) {
		f.take()
		loads := f.loaded()
		a.Resync(time.Hour)
		synctest.Wait()
		must(t, a.AddService(definition.Service{Name: "db"}, SourceAPI, false))
		wantTaken(t, f, "+db")
		if n := f.loaded(); n != loads {
			t.Errorf("%d full syncs were made early", n-loads)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := f.loaded(); n == loads {
			t.Error("the full sync was forgotten")
		}
	})
}
