package view

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"meibo/cluster/catalog"
)

func TestRule1_AChangeMovesTheCountersOfWhatItTouches(t *testing.T) {
	web, db := service("web", 80), service("db", 5432)
	webUp, webDown := check("c", catalog.Passing, "web"), check("c", catalog.Critical, "web")
	serf, serfDown := check(catalog.SerfHealth, catalog.Passing, ""), check(catalog.SerfHealth, catalog.Critical, "")
	noisy := *webUp
	noisy.Output = "HTTP GET: 200 OK"
	synced := node("n1", "10.0.0.1", web, db, webUp, serf)
	renumbered := synced
	n := *synced.Node
	n.Synced, n.ModifyIndex = "h1", 7
	renumbered.Node = &n

	start := whole(1, node("n1", "10.0.0.1", web, db, webUp, serf), node("n2", "10.0.0.2", web))
	tests := []struct {
		name   string
		change catalog.Update
		want   []string
	}{
		{"a check of a service turns critical", update(2, node("n1", "10.0.0.1", web, db, webDown, serf)),
			[]string{"any", "service web"}},
		{"a check's output changes", update(2, node("n1", "10.0.0.1", web, db, &noisy, serf)), nil},
		{"a node is synced", update(2, renumbered), nil},
		{"nothing changes", update(2, node("n1", "10.0.0.1", web, db, webUp, serf)), nil},
		{"a service changes its port", update(2, node("n1", "10.0.0.1", service("web", 81), db, webUp, serf)),
			[]string{"any", "service web"}},
		{"a node changes its address", update(2, node("n1", "10.0.0.9", web, db, webUp, serf)),
			[]string{"addresses", "any", "node n1", "service db", "service web"}},
		{"a node's own check changes", update(2, node("n1", "10.0.0.1", web, db, webUp, serfDown)),
			[]string{"any", "node n1", "service db", "service web"}},
		{"an instance comes", update(2, node("n2", "10.0.0.2", web, db)), []string{"any", "service db"}},
		{"an instance goes, others stay", update(2, node("n2", "10.0.0.2")), []string{"any", "service web"}},
		{"a name begins", update(2, node("n2", "10.0.0.2", web, service("mail", 25))), []string{"any", "names"}},
		{"a node begins", update(2, node("n3", "10.0.0.3", web)),
			[]string{"addresses", "any", "names", "service web"}},
		{"a name ends", update(2, node("n1", "10.0.0.1", web, webUp, serf)), []string{"any", "names", "service db"}},
		{"a node ends", gone(2, "n1"),
			[]string{"addresses", "any", "names", "node n1", "service db", "service web"}},
		{"a whole tells the difference only", whole(2, node("n1", "10.0.0.1", web, db, webUp, serf)),
			[]string{"addresses", "any", "names", "node n2", "service web"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := mustNew(t, Config{})
			mustTake(t, v, start)
			got := moved(v, func() { v.applyUpdate(tt.change) }, []string{"web", "db"}, []string{"n1", "n2"})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("counters moved (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRule1_LivenessMovesTheServicesOfTheNode(t *testing.T) {
	life := lives{}
	v := mustNew(t, Config{Liveness: life})
	mustTake(t, v, whole(1, node("n1", "10.0.0.1", service("web", 80), check(catalog.SerfHealth, catalog.Passing, "")),
		node("n2", "10.0.0.2", service("db", 80))))
	got := moved(v, func() {
		life["id-n1"] = catalog.Failed
		v.OnLifeChange("ID-N1")
	}, []string{"web", "db"}, []string{"n1", "n2"})
	if diff := cmp.Diff([]string{"any", "node n1", "service web"}, got); diff != "" {
		t.Errorf("counters moved (-want +got):\n%s", diff)
	}
	if got := show(v.Load(), "web"); !strings.Contains(got, "serfHealth=critical") {
		t.Errorf("instance of a dead node: %s", got)
	}
	life["id-n1"] = catalog.Alive
	v.OnLifeChange("id-n1")
	if got := show(v.Load(), "web"); !strings.Contains(got, "serfHealth=passing") {
		t.Errorf("instance of a node that came back: %s", got)
	}
}

func TestRule1_CheckOutputIsInTheState(t *testing.T) {
	v := mustNew(t, Config{})
	web := service("web", 80)
	mustTake(t, v, whole(1, node("n1", "10.0.0.1", web, check("c", catalog.Passing, "web"))))
	noisy := check("c", catalog.Passing, "web")
	noisy.Output = "pong"
	mustTake(t, v, update(2, node("n1", "10.0.0.1", web, noisy)))
	instances, _, _ := v.Load().Service("web")
	if got := instances[0].Checks[0].Output; got != "pong" {
		t.Errorf("output %q, want %q", got, "pong")
	}
}

func TestRule1_StateIsPublishedBeforeWatchersWake(t *testing.T) {
	v := mustNew(t, Config{})
	old := v.Load()
	mustTake(t, v, whole(1, node("n1", "10.0.0.1", service("web", 80))))
	select {
	case <-old.Superseded():
	default:
		t.Fatal("the old state is not marked superseded")
	}
	if v.Load() == old {
		t.Error("no new state")
	}
	if old.HasBase() || show(old, "web") != "not yet" {
		t.Error("the old state has changed")
	}
}

func TestRule3_EpochMovesByConfigurationAndStaleness(t *testing.T) {
	v := mustNew(t, Config{})
	before := v.Load()
	epoch := before.Epoch().Load()
	got := moved(v, v.BumpEpoch, nil, nil)
	if diff := cmp.Diff([]string{"epoch"}, got); diff != "" {
		t.Errorf("counters moved (-want +got):\n%s", diff)
	}
	if v.Load() == before {
		t.Error("no new state: a reader that read old settings could take the new epoch for theirs")
	}
	if v.Load().Epoch().Load() != epoch+1 {
		t.Error("the epoch is not the same counter in each state")
	}
}

func TestRule3_FreshTurnsStaleByTimerAloneAndMovesTheEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := mustNew(t, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		src := newScripted(0)
		done := make(chan error, 2)
		go func() { done <- v.Run(ctx) }()
		go func() { done <- v.Follow(ctx, src) }()
		beat := catalog.Update{History: catalog.History{ID: "h1"}, Index: 1, Confirmed: true}
		first := beat
		first.Reset, first.Whole = true, true
		src.updates <- first
		synctest.Wait()
		s := v.Load()
		if !s.Fresh() {
			t.Fatal("stale though confirmed")
		}
		epoch := s.Epoch().Load()
		for range 10 {
			time.Sleep(time.Second)
			src.updates <- beat
		}
		synctest.Wait()
		if v.Load() != s || s.Epoch().Load() != epoch {
			t.Error("heartbeats that change nothing published something")
		}
		time.Sleep(StaleAfter - time.Millisecond)
		if !v.Load().Fresh() {
			t.Error("stale too early")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if v.Load().Fresh() || s.Epoch().Load() != epoch+1 {
			t.Errorf("after %s: fresh %v, epoch moved by %d", StaleAfter, v.Load().Fresh(), s.Epoch().Load()-epoch)
		}
		src.updates <- beat
		synctest.Wait()
		if !v.Load().Fresh() || s.Epoch().Load() != epoch+2 {
			t.Error("not fresh again, or the epoch did not move")
		}
		cancel()
		<-done
		<-done
	})
}

func TestRule4_ARetiredNamesCounterMovesOnceAndIsNotUsedAgain(t *testing.T) {
	v := mustNew(t, Config{})
	rec := node("n1", "10.0.0.1", service("web", 80), service("db", 1))
	mustTake(t, v, whole(1, rec))
	_, web, _ := v.Load().Service("web")
	_, n1, _ := v.Load().Node("n1")
	mustTake(t, v, gone(2, "n1"))
	if web.Load() != 1 || n1.Load() != 1 {
		t.Errorf("retired counters moved by %d and %d, want once each", web.Load(), n1.Load())
	}
	mustTake(t, v, update(3, rec))
	_, again, _ := v.Load().Service("web")
	_, n1Again, _ := v.Load().Node("n1")
	if again == web || n1Again == n1 {
		t.Error("a retired counter is used again")
	}
	mustTake(t, v, update(4, node("n1", "10.0.0.2")))
	if again.Load() != 1 || n1Again.Load() != 1 {
		t.Error("the new counters did not move")
	}
	if web.Load() != 1 || n1.Load() != 1 {
		t.Error("a retired counter moved again")
	}
}

func TestRule9_TheAgentsWordReplacesTheCatalogs(t *testing.T) {
	catalogs := node("me", "10.0.0.1", service("old", 1), service("web", 80), service("consul", 8300),
		check(catalog.SerfHealth, catalog.Passing, ""), check("c", catalog.Critical, "web"))
	kept := service("tagged", 2, "catalog")
	catalogs.Services = append(catalogs.Services, kept)
	mine := service("tagged", 3, "agent")
	mine.EnableTagOverride = true
	agent := &agentDouble{}
	agent.set(node("me", "10.0.0.5", service("web", 81), mine,
		check("c", catalog.Passing, "web"), check("disk", catalog.Warning, "")))
	v := mustNew(t, Config{NodeName: "Me", NodeID: "id-me", Local: agent})
	mustTake(t, v, whole(1, catalogs, node("other", "10.0.0.2", service("web", 82))))

	s := v.Load()
	for name, want := range map[string]string{
		"web": "me@10.0.0.5 web :81 [] disk=warning,serfHealth=passing,c=passing\n" +
			"other@10.0.0.2 web :82 [] ",
		"old":    "no",
		"consul": "me@10.0.0.5 consul :8300 [] disk=warning,serfHealth=passing",
		"tagged": "me@10.0.0.5 tagged :3 [catalog] disk=warning,serfHealth=passing",
	} {
		if diff := cmp.Diff(want, show(s, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestRule9_ALocalChangeShowsWhenOnLocalChangeReturns(t *testing.T) {
	agent := &agentDouble{}
	agent.set(node("me", "10.0.0.1"))
	v := mustNew(t, Config{NodeName: "me", NodeID: "id-me", Local: agent})
	mustTake(t, v, whole(1))
	for port := 1; port <= 3; port++ {
		agent.set(node("me", "10.0.0.1", service("web", port)))
		v.OnLocalChange()
		if got, want := show(v.Load(), "WEB"), fmt.Sprintf("me@10.0.0.1 web :%d [] ", port); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	agent.set(node("me", "10.0.0.1"))
	v.OnLocalChange()
	if got := show(v.Load(), "web"); got != "no" {
		t.Errorf("after removal: %q", got)
	}
}

func TestRule9_ThisHostUnderItsOldNameDoesNotShow(t *testing.T) {
	agent := &agentDouble{}
	me := node("new", "10.0.0.1", service("web", 80))
	me.Node.ID = "id-old"
	agent.set(me)
	v := mustNew(t, Config{NodeName: "new", NodeID: "ID-OLD", Local: agent})
	mustTake(t, v, whole(1, node("old", "10.0.0.1", service("web", 79))))
	if got, want := show(v.Load(), "web"), "new@10.0.0.1 web :80 [] "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := showNode(v.Load(), "old"); got != "no" {
		t.Errorf("old name: %q", got)
	}
}

func TestRule9_WaitReturnsWhenTheWriteShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := mustNew(t, Config{})
		start := time.Now()
		done := make(chan error)
		go func() { done <- v.Wait(t.Context(), 7) }()
		mustTake(t, v, whole(3))
		synctest.Wait()
		mustTake(t, v, update(8))
		if err := <-done; err != nil || time.Since(start) != 0 {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
		err := v.Wait(t.Context(), 9)
		if err == nil || time.Since(start) != MaxWait {
			t.Errorf("got %v after %s, want an error after %s", err, time.Since(start), MaxWait)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := v.Wait(ctx, 9); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
}

func TestRule12_BeforeABaseSetNothingIsDeniedAndOwnServicesAnswer(t *testing.T) {
	agent := &agentDouble{}
	agent.set(node("me", "10.0.0.1", service("web", 80)))
	v := mustNew(t, Config{NodeName: "me", NodeID: "id-me", Local: agent})
	s := v.Load()
	if got, want := show(s, "web"), "me@10.0.0.1 web :80 [] "; got != want {
		t.Errorf("own service: got %q, want %q", got, want)
	}
	for name, got := range map[string]string{"service": show(s, "db"), "node": showNode(s, "other")} {
		if got != "not yet" {
			t.Errorf("unknown %s: got %q, want %q", name, got, "not yet")
		}
	}
	ready := s.Ready("db")
	select {
	case <-ready:
		t.Fatal("ready before a base set came")
	default:
	}
	names := s.Names().Load()
	mustTake(t, v, whole(1))
	<-ready
	if s.Names().Load() == names {
		t.Error("the base set came and what rests on the names was not dropped")
	}
	if got := show(v.Load(), "db"); got != "no" {
		t.Errorf("unknown service: got %q, want %q", got, "no")
	}
}

func TestRule29_AnEmptyHistoryIsABaseSet(t *testing.T) {
	v := mustNew(t, Config{})
	if v.Load().HasBase() || v.Load().History().ID != "" {
		t.Fatal("a base set before any history")
	}
	mustTake(t, v, whole(1))
	if s := v.Load(); !s.HasBase() || s.History().ID != "h1" || show(s, "web") != "no" {
		t.Errorf("base %v, history %q, web %q", s.HasBase(), s.History().ID, show(s, "web"))
	}
}

func TestState_LooksUpInAnyLetterCase(t *testing.T) {
	v := mustNew(t, Config{})
	n1 := node("Node-One", "10.0.0.1", service("Web", 80))
	n1.Node.ID = "4b1d3ff3-0000-4000-8000-000000000001"
	n2 := node("n2", "10.0.0.2", service("wEB", 81))
	n2.Node.ID = "4B1D3AAA-0000-4000-8000-000000000002"
	mustTake(t, v, whole(1, n1, n2))
	s := v.Load()
	if got, want := show(s, "WEB"), "n2@10.0.0.2 wEB :81 [] \nNode-One@10.0.0.1 Web :80 [] "; got != want {
		t.Errorf("service: got %q, want %q", got, want)
	}
	if got := showNode(s, "node-ONE"); !strings.HasPrefix(got, "Node-One ") {
		t.Errorf("node: got %q", got)
	}
	for prefix, want := range map[string]string{
		"4B1d3F": "Node-One", "4b1d3a": "n2", "4b1d3": "", "": "", "ff": "",
		"4b1d3ff3-0000-4000-8000-000000000001": "Node-One",
	} {
		n, ok := s.NodeByIDPrefix(prefix)
		if ok != (want != "") || ok && n.Node != want {
			t.Errorf("ID prefix %q: got %v %v, want %q", prefix, n, ok, want)
		}
	}
}

func TestState_AddressOwnerIsTheNodeFirst(t *testing.T) {
	own := service("aaa", 1)
	own.Address = "10.0.0.1"
	second, first := service("vip2", 1), service("vip1", 1)
	second.Address, first.Address = "192.0.2.1", "192.0.2.1"
	six := service("six", 1)
	six.Address = "2001:db8::1"
	named := service("named", 1)
	named.Address = "www.example.com"
	v := mustNew(t, Config{})
	mustTake(t, v, whole(1, node("n2", "10.0.0.2", own, second, six, named), node("n1", "10.0.0.1", first),
		node("n0", "host.example.com")))
	for addr, want := range map[string]string{
		"10.0.0.1": "n1", "10.0.0.2": "n2", "192.0.2.1": "n1/vip1", "2001:db8::1": "n2/six",
		"::ffff:10.0.0.2": "n2", "10.0.0.3": "",
	} {
		got := ""
		if o, ok := v.Load().AddressOwner(netip.MustParseAddr(addr)); ok {
			got = o.Node.Node
			if o.Service != nil {
				got += "/" + o.Service.Service
			}
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
	}
	got := moved(v, func() { v.applyUpdate(update(2, node("n1", "10.0.0.1"))) }, nil, nil)
	if diff := cmp.Diff([]string{"addresses", "any", "names"}, got); diff != "" {
		t.Errorf("counters moved (-want +got):\n%s", diff)
	}
	if o, ok := v.Load().AddressOwner(netip.MustParseAddr("192.0.2.1")); !ok || o.Service == nil || o.Service.Service != "vip2" {
		t.Errorf("owner after the first went: %v %v", o, ok)
	}
}

func TestFollow_SaysHowASourceEnded(t *testing.T) {
	v := mustNew(t, Config{})
	src := newScripted(2)
	src.updates <- update(1)
	if err := v.Follow(t.Context(), src); err == nil || v.Load().HasBase() {
		t.Errorf("a source that begins with a part: got %v, base %v", err, v.Load().HasBase())
	}
	src.updates <- whole(1, node("n1", "10.0.0.1", service("web", 80)))
	close(src.updates)
	if err := v.Follow(t.Context(), src); err == nil || !strings.Contains(err.Error(), "connection lost") {
		t.Errorf("a lost source: got %v", err)
	}
	if got := show(v.Load(), "web"); got == "no" {
		t.Error("what was known is gone with its source")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := v.Follow(ctx, newScripted(0)); err != nil {
		t.Errorf("stopped: got %v", err)
	}
}

func TestNew_RefusesAnAgentWithoutANodeName(t *testing.T) {
	if _, err := New(Config{Local: &agentDouble{}}); err == nil {
		t.Error("no error")
	}
}
