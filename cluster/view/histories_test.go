package view

import (
	"iter"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meibo/cluster/catalog"
)

// synced is the record with the mark of a full sync in a history.
func synced(history string, rec Record) Record {
	n := *rec.Node
	n.Synced = history
	rec.Node = &n
	return rec
}

func agentless(rec Record) Record {
	n := *rec.Node
	n.ID, n.Agentless = "", true
	rec.Node = &n
	return rec
}

// places renders where a service is, instance by instance; "not yet" and "no"
// as show.
func places(s *State, name string) string {
	instances, _, known := s.Service(name)
	if known != catalog.Present {
		return show(s, name)
	}
	return placesOf(instances)
}

func placesOf(instances []catalog.Instance) string {
	var out []string
	for _, in := range instances {
		place := in.Node.Node + "/" + in.Service.ID
		if in.Status() == catalog.Critical {
			place += "!"
		}
		out = append(out, place)
	}
	return strings.Join(out, " ")
}

func olderPlaces(s *State, name string) string {
	instances, ok := s.Older(name)
	if !ok {
		return "none"
	}
	return placesOf(instances)
}

func wantPlaces(t *testing.T, v *View, name, want string) {
	t.Helper()
	if got := places(v.Load(), name); got != want {
		t.Errorf("%s is at %q, want %q", name, got, want)
	}
}

func TestRule13_ALaggingServerIsHeardOnlyOncePastWhatIsKnown(t *testing.T) {
	v := mustNew(t, Config{})
	mustTake(t, v, confirmed(whole(100, node("n1", "10.0.0.1", service("web", 80)), node("n2", "10.0.0.2", service("web", 80)))))
	before := v.Load()

	// The stream breaks; the next server is behind.
	v.setSource(newScripted(0))
	mustTake(t, v, whole(90, node("n1", "10.0.0.1", service("web", 80))))
	mustTake(t, v, update(95, node("n3", "10.0.0.3", service("web", 80))), gone(98, "n1"))
	if v.Load() != before {
		t.Error("an older state of the catalog showed")
	}
	if h, index, _, _ := v.Resume(); h.ID != "h1" || index != 100 {
		t.Errorf("a stream would go on from %s %d", h.ID, index)
	}
	mustTake(t, v, update(101, node("n4", "10.0.0.4", service("web", 80))))
	wantPlaces(t, v, "web", "n3/web n4/web")
	if v.Load().Index() != 101 {
		t.Errorf("index %d, want 101", v.Load().Index())
	}
}

func TestRule13_WhatComesTwiceIsTakenOnce(t *testing.T) {
	v := mustNew(t, Config{})
	mustTake(t, v, whole(100, node("n1", "10.0.0.1", service("web", 80))), gone(99, "n1"))
	wantPlaces(t, v, "web", "n1/web")
}

func TestRule13_ALostSourceLeavesNothingPending(t *testing.T) {
	v := mustNew(t, Config{})
	mustTake(t, v, whole(100, node("n1", "10.0.0.1", service("web", 80))), whole(90))
	v.setSource(nil)
	v.setSource(newScripted(0))
	mustTake(t, v, update(101, node("n2", "10.0.0.2", service("web", 80))))
	wantPlaces(t, v, "web", "n1/web n2/web")
}

func TestRule14_AnotherHistoryCountsOnlyFromAServerWithALeader(t *testing.T) {
	var log strings.Builder
	v := mustNew(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	mustTake(t, v, confirmed(whole(100, node("n1", "10.0.0.1", service("web", 80)))))
	before := v.Load()
	for range 3 {
		mustTake(t, v, inHistory("h2", whole(500, node("n2", "10.0.0.2", service("web", 80)))))
	}
	mustTake(t, v, inHistory("h2", update(501, node("n3", "10.0.0.3", service("web", 80)))))
	if v.Load() != before {
		t.Error("an unconfirmed history showed")
	}
	if got := strings.Count(log.String(), "stays with its own"); got != 1 {
		t.Errorf("said %d times, want once:\n%s", got, &log)
	}
	mustTake(t, v, confirmed(inHistory("h2", catalog.Update{Index: 501})))
	wantPlaces(t, v, "web", "n1/web n2/web n3/web")
	if v.Load().History().ID != "h2" {
		t.Errorf("history %q", v.Load().History().ID)
	}
}

func TestRule14_AnUnconfirmedHistoryDoesNotMakeTheViewFresh(t *testing.T) {
	v := mustNew(t, Config{})
	mustTake(t, v, whole(100), inHistory("", confirmed(catalog.Update{Reset: true})))
	if v.Load().Fresh() {
		t.Error("a server without a history confirms the view")
	}
}

func TestRule14_ASourceMayNotSlipFromOneHistoryIntoAnother(t *testing.T) {
	v := mustNew(t, Config{})
	mustTake(t, v, whole(100))
	if err := v.applyUpdate(inHistory("h2", update(101))); err == nil {
		t.Error("no error")
	}
}

func TestRule16_ANewHistoryAddsAndRemovesNothingUntilANodeIsSynced(t *testing.T) {
	v := mustNew(t, Config{})
	n1, n2 := node("n1", "10.0.0.1", service("web", 80), service("db", 1), check("c", catalog.Critical, "db")), node("n2", "10.0.0.2", service("web", 80))
	mustTake(t, v, confirmed(whole(100, synced("h1", n1), synced("h1", n2))))
	next := func(u catalog.Update) { mustTake(t, v, confirmed(inHistory("h2", u))) }

	next(whole(200))
	wantPlaces(t, v, "web", "n1/web n2/web")
	wantPlaces(t, v, "db", "n1/db!")
	next(update(201, node("n1", "10.0.0.1", service("web", 81))))
	wantPlaces(t, v, "web", "n1/web n2/web")
	wantPlaces(t, v, "db", "n1/db!")
	if in, _, _ := v.Load().Service("web"); in[0].Service.Port != 81 {
		t.Errorf("what is named has not changed: port %d", in[0].Service.Port)
	}
	if !v.Load().Unconfirmed("N1", "db") || v.Load().Unconfirmed("n1", "web") || !v.Load().Unconfirmed("n2", "") {
		t.Error("what only the earlier history knows is not marked so, or more is")
	}
	next(update(202, synced("h2", node("n1", "10.0.0.1", service("web", 81)))))
	wantPlaces(t, v, "db", "no")
	wantPlaces(t, v, "web", "n1/web n2/web")
	next(update(203, synced("h2", node("n2", "10.0.0.2"))))
	wantPlaces(t, v, "web", "n1/web")
	if len(v.remembered) != 0 {
		t.Errorf("still remembered: %v", v.remembered)
	}
}

func TestRule16_InNormalRunningADeregistrationShowsAtOnce(t *testing.T) {
	v := mustNew(t, Config{})
	mustTake(t, v, whole(100, node("n1", "10.0.0.1", service("web", 80)), node("n2", "10.0.0.2", service("web", 80))),
		update(101, node("n1", "10.0.0.1")))
	wantPlaces(t, v, "web", "n2/web")
	mustTake(t, v, gone(102, "n2"))
	wantPlaces(t, v, "web", "no")
}

func TestRule16_WhatTheNewHistoryRemovedIsNotRemembered(t *testing.T) {
	removals := map[string]catalog.Update{
		"told":            update(202, node("n1", "10.0.0.1", service("db", 1))),
		"told by a Reset": whole(202, node("n1", "10.0.0.1", service("db", 1))),
	}
	for name, removal := range removals {
		t.Run(name, func(t *testing.T) {
			v := mustNew(t, Config{})
			both := node("n1", "10.0.0.1", service("web", 80), service("db", 1), service("mail", 25))
			mustTake(t, v, whole(100, both), confirmed(inHistory("h2", whole(200))),
				inHistory("h2", update(201, node("n1", "10.0.0.1", service("web", 80), service("db", 1)))))
			wantPlaces(t, v, "mail", "n1/mail")
			mustTake(t, v, inHistory("h2", removal))
			wantPlaces(t, v, "web", "no")
			wantPlaces(t, v, "mail", "n1/mail")
			mustTake(t, v, inHistory("h2", gone(203, "n1")))
			wantPlaces(t, v, "mail", "no")
		})
	}
}

func TestRule16_SeveralHistoriesInARowShrinkNothing(t *testing.T) {
	v := mustNew(t, Config{})
	mustTake(t, v, whole(100, node("n1", "10.0.0.1", service("web", 80)), node("n2", "10.0.0.2", service("web", 80))),
		confirmed(inHistory("h2", whole(200, node("n1", "10.0.0.1", service("db", 1))))),
		confirmed(inHistory("h3", whole(300))))
	wantPlaces(t, v, "web", "n1/web n2/web")
	wantPlaces(t, v, "db", "n1/db")
	mustTake(t, v, inHistory("h3", update(301, synced("h3", node("n1", "10.0.0.1", service("web", 80))))))
	wantPlaces(t, v, "web", "n1/web n2/web")
	wantPlaces(t, v, "db", "no")
}

func TestRule16_ANodeThatLeftIsForgotten(t *testing.T) {
	life := lives{}
	v := mustNew(t, Config{Liveness: life})
	mustTake(t, v, whole(100, node("n1", "10.0.0.1", service("web", 80)), node("n2", "10.0.0.2", service("web", 80))),
		confirmed(inHistory("h2", whole(200))))
	life["id-n1"] = catalog.Left
	v.OnLifeChange("id-n1")
	wantPlaces(t, v, "web", "n2/web")
	if got := showNode(v.Load(), "n1"); got != "no" {
		t.Errorf("node: %s", got)
	}
	// It had left before the history ended: the same.
	life["id-n2"] = catalog.Left
	mustTake(t, v, confirmed(inHistory("h3", whole(300))))
	wantPlaces(t, v, "web", "no")
}

func TestRule17_AgentlessNodesStayUnconfirmedUntilRegisteredAgain(t *testing.T) {
	v := mustNew(t, Config{})
	mustTake(t, v, whole(100, agentless(node("ext", "10.0.0.1", service("web", 80), service("db", 1)))),
		confirmed(inHistory("h2", whole(200))))
	wantPlaces(t, v, "web", "ext/web")
	if !v.Load().Unconfirmed("ext", "web") {
		t.Error("not marked unconfirmed")
	}
	wantUnconfirmed(t, v, "ext: all of db web")
	// That it is confirmed shows in answers, though nothing else of it changes.
	again := update(201, agentless(node("ext", "10.0.0.1", service("web", 80))))
	got := moved(v, func() { v.applyUpdate(inHistory("h2", again)) }, []string{"web", "db"}, []string{"ext"})
	if diff := cmp.Diff([]string{"any", "node ext", "service db", "service web"}, got); diff != "" {
		t.Errorf("counters moved (-want +got):\n%s", diff)
	}
	wantPlaces(t, v, "db", "ext/db")
	if v.Load().Unconfirmed("ext", "web") || !v.Load().Unconfirmed("ext", "db") {
		t.Error("the mark is not that of what was registered again")
	}
	wantUnconfirmed(t, v, "ext: db")
	mustTake(t, v, inHistory("h2", update(202, agentless(node("ext", "10.0.0.1", service("web", 80), service("db", 1))))))
	wantUnconfirmed(t, v, "")
}

func wantUnconfirmed(t *testing.T, v *View, want string) {
	t.Helper()
	var got []string
	for _, u := range v.Load().AllUnconfirmed() {
		all := ""
		if u.All {
			all = "all of "
		}
		got = append(got, u.Node.Node+": "+all+strings.Join(u.Services, " "))
	}
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("unconfirmed are %q, want %q", s, want)
	}
}

func TestRule17_TombstonesForget(t *testing.T) {
	ext := agentless(node("Ext", "10.0.0.1", service("web", 80), service("db", 1), check("c", catalog.Critical, "db"), check("d", catalog.Critical, "")))
	for _, tt := range []struct {
		name    string
		t       catalog.Tombstone
		web, db string
	}{
		{"of a service", catalog.Tombstone{Node: "ext", ServiceID: "web"}, "no", "Ext/db!"},
		{"of a check", catalog.Tombstone{Node: "EXT", CheckID: "d"}, "Ext/web", "Ext/db!"},
		{"of a node", catalog.Tombstone{Node: "ext"}, "no", "no"},
		{"of another", catalog.Tombstone{Node: "else"}, "Ext/web!", "Ext/db!"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inReset := confirmed(inHistory("h2", whole(200)))
			inReset.Tombstones = []catalog.Tombstone{tt.t}
			later := inHistory("h2", catalog.Update{Index: 201, Tombstones: []catalog.Tombstone{tt.t}})
			for _, updates := range [][]catalog.Update{{inReset}, {confirmed(inHistory("h2", whole(200))), later}} {
				v := mustNew(t, Config{})
				mustTake(t, v, whole(100, ext))
				mustTake(t, v, updates...)
				wantPlaces(t, v, "web", tt.web)
				wantPlaces(t, v, "db", tt.db)
			}
		})
	}
}

func TestRule18_WhileALivingMemberIsNotSyncedUnknownNamesAreNotDenied(t *testing.T) {
	living := []string{"id-me", "ID-n1", "id-n2"}
	v := mustNew(t, Config{NodeName: "me", NodeID: "id-me", Living: func() iter.Seq[string] { return slices.Values(living) }})
	h1 := func(u catalog.Update) { mustTake(t, v, u) }
	h1(whole(100, node("n1", "10.0.0.1", service("web", 80))))
	wait := v.Want("db")
	if got := places(v.Load(), "db"); got != "not yet" || !v.Merging() {
		t.Fatalf("unknown name: %q, merging %v", got, v.Merging())
	}
	if got := showNode(v.Load(), "n9"); got != "not yet" {
		t.Errorf("unknown node: %q", got)
	}
	wantPlaces(t, v, "web", "n1/web")
	h1(update(101, synced("h1", node("n1", "10.0.0.1", service("web", 80)))))
	if !v.Merging() {
		t.Error("n2 has not told anything yet")
	}
	names := v.Load().Names().Load()
	h1(update(102, synced("h1", node("n2", "10.0.0.2"))))
	if got := places(v.Load(), "db"); got != "no" || v.Merging() {
		t.Errorf("unknown name: %q, merging %v", got, v.Merging())
	}
	if v.Load().Names().Load() == names {
		t.Error("what rests on the names was not dropped")
	}
	select {
	case <-wait:
	default:
		t.Error("who waited for the name was not woken")
	}
	living = append(living, "id-n3")
	v.OnLifeChange("id-n3")
	if got := places(v.Load(), "db"); got != "no" {
		t.Errorf("a host that joins makes an unknown name %q", got)
	}
}

func TestRule18_AHostThatKnowsAnEarlierHistoryDenies(t *testing.T) {
	v := mustNew(t, Config{Living: func() iter.Seq[string] { return slices.Values([]string{"id-n1"}) }})
	mustTake(t, v, whole(100, synced("h1", node("n1", "10.0.0.1", service("web", 80)))), confirmed(inHistory("h2", whole(200))))
	if !v.Merging() {
		t.Error("not merging")
	}
	wantPlaces(t, v, "web", "n1/web")
	wantPlaces(t, v, "db", "no")
}

func TestRule19_ADeadNodeStaysDeadWhenItIsReaped(t *testing.T) {
	life := lives{"id-n1": catalog.Failed}
	v := mustNew(t, Config{Liveness: life})
	mustTake(t, v, whole(100, node("n1", "10.0.0.1", service("web", 80))))
	for _, l := range []catalog.Life{catalog.Failed, catalog.Left} {
		life["id-n1"] = l
		v.OnLifeChange("id-n1")
		wantPlaces(t, v, "web", "n1/web!")
	}
	for _, l := range []catalog.Life{catalog.NeverSeen, catalog.Alive, catalog.Suspect} {
		life["id-n1"] = l
		v.OnLifeChange("id-n1")
		wantPlaces(t, v, "web", "n1/web")
	}
}

func TestRule19_TheSameIDUnderAnotherNameReplacesTheOldName(t *testing.T) {
	renamed := node("new", "10.0.0.1", service("web", 80))
	renamed.Node.ID = "ID-OLD"
	for name, updates := range map[string][]catalog.Update{
		"begun with":  {inHistory("h2", whole(200, renamed))},
		"told later":  {inHistory("h2", whole(200)), inHistory("h2", update(201, renamed))},
		"in a change": {inHistory("h2", update(201, renamed))},
	} {
		t.Run(name, func(t *testing.T) {
			v := mustNew(t, Config{})
			mustTake(t, v, whole(100, node("old", "10.0.0.1", service("web", 80))))
			if !updates[0].Reset {
				mustTake(t, v, confirmed(inHistory("h2", whole(200))))
			}
			for _, u := range updates {
				mustTake(t, v, confirmed(u))
			}
			wantPlaces(t, v, "web", "new/web")
			if got := showNode(v.Load(), "old"); got != "no" {
				t.Errorf("old name: %s", got)
			}
		})
	}
}

func TestRule29_AProvisionalHistoryIsDroppedNotMerged(t *testing.T) {
	v := mustNew(t, Config{})
	alone := whole(100, node("n1", "10.0.0.1", service("web", 80)))
	alone.History.Provisional = true
	mustTake(t, v, confirmed(alone), inHistory("h2", confirmed(whole(50, node("n2", "10.0.0.2", service("db", 1))))))
	wantPlaces(t, v, "web", "no")
	wantPlaces(t, v, "db", "n2/db")
	if v.Load().Index() < 100 {
		t.Errorf("the index went back to %d", v.Load().Index())
	}
}
