package view

import (
	"bytes"
	"iter"
	"reflect"
	"slices"
	"testing"
	"time"

	"meibo/cluster/catalog"
)

// older renders what is known of a service from before.
func older(s *State, name string) string {
	instances, ok := s.Older(name)
	if !ok {
		return "none"
	}
	return showInstances(instances)
}

// exportAfter is what a view knows after the updates, as it comes out of a file.
func exportAfter(t *testing.T, cfg Config, updates ...catalog.Update) *Export {
	t.Helper()
	v := mustNew(t, cfg)
	mustTake(t, v, updates...)
	return throughBytes(t, v.Export())
}

func throughBytes(t *testing.T, e *Export) *Export {
	t.Helper()
	out, err := readExport(bytes.NewReader(mustEncode(t, e)))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func subscribed(u catalog.Update, complete ...string) catalog.Update {
	u.Whole, u.Complete = false, complete
	u.Parts = slices.DeleteFunc(u.Parts, func(p catalog.Part) bool { return !slices.Contains(complete, p.Service) })
	return u
}

func TestImport_AFileIsAnsweredFromUntilAServerSpeaks(t *testing.T) {
	n1, n2 := node("n1", "10.0.0.1", service("web", 80)), node("n2", "10.0.0.2", service("db", 1))
	img := exportAfter(t, Config{}, confirmed(subscribed(whole(5, n1, n2), "web")))
	v := mustNew(t, Config{})
	epoch := v.Load().Epoch().Load()
	if !v.Import(img, FromDisk) {
		t.Fatal("nothing came of it")
	}
	s := v.Load()
	if !s.HasBase() || s.Fresh() || s.Index() != 5 || s.History().ID != "h1" || v.Confirmed().IsZero() || s.Epoch().Load() != epoch {
		t.Errorf("base %v, fresh %v, index %d, history %q, confirmed %v", s.HasBase(), s.Fresh(), s.Index(), s.History().ID, v.Confirmed())
	}
	if got := show(s, "web"); got != "not yet" {
		t.Errorf("web is %q, want not yet: no server vouches for it", got)
	}
	if got := older(s, "web"); got != "n1@10.0.0.1 web :80 [] " {
		t.Errorf("older web %q", got)
	}
	if from, at := s.Provenance("web"); from != FromDisk || at.IsZero() {
		t.Errorf("web is from %q, confirmed %v", from, at)
	}
	if show(s, "db") != "not yet" || older(s, "db") != "none" || show(s, "nobody") != "no" || showNode(s, "n2") == "no" {
		t.Error("the base set is not as it was")
	}
	if h, index, all, names := v.Resume(); h.ID != "h1" || index != 5 || all || !slices.Equal(names, []string{"web"}) {
		t.Errorf("resumes at %v %d %v %v", h, index, all, names)
	}
	mustTake(t, v, confirmed(subscribed(whole(9, n2), "web")))
	if got := show(v.Load(), "web"); got != "no" {
		t.Errorf("web is %q after a server said that it is no more", got)
	}
}

func TestImport_AWholeFileIsWhole(t *testing.T) {
	img := exportAfter(t, Config{}, confirmed(whole(5, node("n1", "10.0.0.1", service("web", 80)))))
	v := mustNew(t, Config{})
	v.Import(img, FromDisk)
	if _, _, all, _ := v.Resume(); !all || older(v.Load(), "web") == "none" {
		t.Errorf("whole %v, web %q", all, older(v.Load(), "web"))
	}
	if again := throughBytes(t, v.Export()); !reflect.DeepEqual(again.Current, img.Current) {
		t.Errorf("kept again as %+v\nwant %+v", again.Current, img.Current)
	}
	mustTake(t, v, confirmed(catalog.Update{Whole: true, Index: 6, History: catalog.History{ID: "h1"}})) // resumed
	if got := show(v.Load(), "web"); got != "n1@10.0.0.1 web :80 [] " {
		t.Errorf("web is %q, want it known: the server went on from there", got)
	}
}

func TestImport_NeverOverridesWhatAServerSaid(t *testing.T) {
	stale := exportAfter(t, Config{}, confirmed(whole(3, node("n1", "10.0.0.9", service("web", 1)), node("dead", "10.0.0.8", service("web", 1)))))
	for _, from := range []string{FromDisk, FromNeighbour} {
		v := mustNew(t, Config{})
		mustTake(t, v, confirmed(whole(5, node("n1", "10.0.0.1", service("web", 80)))))
		v.Import(stale, from)
		s := v.Load()
		if got := show(s, "web"); got != "n1@10.0.0.1 web :80 [] " || showNode(s, "dead") != "no" || s.Index() != 5 || !s.Fresh() {
			t.Errorf("%s: web %q, dead %q, index %d", from, got, showNode(s, "dead"), s.Index())
		}
	}
}

func TestRule11_ANeighboursContentsOfOneNameAreOlderOnes(t *testing.T) {
	n1, n2 := node("n1", "10.0.0.1", service("web", 80)), node("n2", "10.0.0.2", service("db", 1))
	theirs := exportAfter(t, Config{}, confirmed(whole(4, n1, n2))).Only("web")
	v := mustNew(t, Config{})
	mustTake(t, v, confirmed(subscribed(whole(5, n1, n2), "db")))
	counter := counterOf(v.Load(), "web")
	before := counter.Load()
	if !v.Import(throughBytes(t, theirs), FromNeighbour) {
		t.Error("nothing came of it")
	}
	s := v.Load()
	if show(s, "web") != "not yet" || older(s, "web") != "n1@10.0.0.1 web :80 [] " || counter.Load() == before {
		t.Errorf("web %q, older %q, counter moved %v", show(s, "web"), older(s, "web"), counter.Load() != before)
	}
	if from, _ := s.Provenance("web"); from != FromNeighbour {
		t.Errorf("from %q", from)
	}
	if show(s, "db") != "n2@10.0.0.2 db :1 [] " {
		t.Errorf("db %q", show(s, "db"))
	}
	if v.Import(throughBytes(t, theirs), FromNeighbour) {
		t.Error("the same again is news")
	}
}

// A file lacks what its host learned last before it died; who knows more is believed
// until a server speaks.
func TestRule11_ANeighbourKnowsMoreThanTheFile(t *testing.T) {
	n1, n2 := synced("h1", node("n1", "10.0.0.1", service("web", 80))), synced("h1", node("n2", "10.0.0.2", service("new", 1)))
	file := exportAfter(t, Config{}, confirmed(whole(5, n1, node("old", "10.0.0.3", service("old", 1)))))
	v := mustNew(t, lived("id-n1", "id-n2"))
	v.Import(file, FromDisk)
	if !v.Behind() || show(v.Load(), "new") != "not yet" {
		t.Fatalf("behind %v, new %q", v.Behind(), show(v.Load(), "new"))
	}
	v.Resume() // a server is about to go on from the file
	if v.Import(exportAfter(t, Config{}, confirmed(whole(4, n1))), FromNeighbour) || v.Load().Index() != 5 {
		t.Errorf("one that knows less is believed: index %d", v.Load().Index())
	}
	if !v.Import(exportAfter(t, Config{}, confirmed(whole(7, n1, n2))), FromNeighbour) {
		t.Error("nothing came of it")
	}
	if v.Behind() {
		t.Error("behind what a server has confirmed since the start")
	}
	for _, learned := range []bool{false, true} {
		if learned {
			v.Learned()
		}
		s := v.Load()
		if s.Index() != 7 || older(s, "new") != "n2@10.0.0.2 new :1 [] " || older(s, "web") == "none" || (show(s, "old") == "no") != learned {
			t.Errorf("learned %v: index %d, new %q, web %q, old %q", learned, s.Index(), older(s, "new"), older(s, "web"), show(s, "old"))
		}
	}
	if err := v.applyUpdate(confirmed(update(6))); err == nil {
		t.Error("a server goes on from the file")
	}
	v.Resume()
	mustTake(t, v, confirmed(update(8)))
	if s := v.Load(); show(s, "new") != "n2@10.0.0.2 new :1 [] " || !s.Fresh() {
		t.Errorf("new %q, fresh %v", show(s, "new"), s.Fresh())
	}
	if v.Import(exportAfter(t, Config{}, confirmed(whole(9, n1))), FromNeighbour) || v.Load().Index() != 8 {
		t.Error("a neighbour is believed where a server speaks")
	}
}

func TestRule16_AFileOfAnEarlierHistoryIsRemembered(t *testing.T) {
	img := exportAfter(t, Config{}, confirmed(whole(5, node("n1", "10.0.0.1", service("web", 80)), node("n2", "10.0.0.2", service("web", 80)))))
	members := []string{"id-n1", "id-n2"}
	for _, late := range []bool{false, true} { // the file is read after the server spoke
		v := mustNew(t, Config{Living: func() iter.Seq[string] { return slices.Values(members) }})
		fresh := node("n1", "10.0.0.1", service("web", 80))
		fresh.Node.Synced = "h2"
		told := confirmed(inHistory("h2", whole(9, fresh)))
		if late {
			mustTake(t, v, told)
			v.Import(img, FromDisk)
		} else {
			v.Import(img, FromDisk)
			mustTake(t, v, told)
		}
		if got := show(v.Load(), "web"); got != "n1@10.0.0.1 web :80 [] \nn2@10.0.0.2 web :80 [] " {
			t.Errorf("late %v: web %q, want n2 remembered", late, got)
		}
		// What is remembered outlives another restart.
		w := mustNew(t, Config{Living: func() iter.Seq[string] { return slices.Values(members) }})
		w.Import(throughBytes(t, v.Export()), FromDisk)
		mustTake(t, w, confirmed(catalog.Update{Whole: true, Index: 10, History: catalog.History{ID: "h2"}}))
		if show(w.Load(), "web") != show(v.Load(), "web") {
			t.Errorf("late %v: after a restart web %q", late, show(w.Load(), "web"))
		}
	}
}

func TestRule18_AHostWithoutAnEarlierViewTakesANeighbours(t *testing.T) {
	members := []string{"id-n1", "id-n2"}
	living := Config{Living: func() iter.Seq[string] { return slices.Values(members) }}
	n1, n2 := node("n1", "10.0.0.1", service("web", 80)), node("n2", "10.0.0.2", service("db", 1))
	synced := node("n1", "10.0.0.1", service("web", 80))
	synced.Node.Synced = "h2"
	theirs := exportAfter(t, living, confirmed(whole(5, n1, n2)), confirmed(inHistory("h2", whole(9, synced))))
	behind := exportAfter(t, living, confirmed(whole(5, n1, n2)))
	for name, img := range map[string]*Export{"one that has merged": theirs, "one that hasn't heard": behind} {
		v := mustNew(t, living)
		mustTake(t, v, confirmed(inHistory("h2", whole(9, synced))))
		if got := show(v.Load(), "db"); got != "not yet" {
			t.Fatalf("db %q before, want not yet: n2 may have it", got)
		}
		v.Import(img, FromNeighbour)
		s := v.Load()
		if show(s, "db") != "n2@10.0.0.2 db :1 [] " || show(s, "nobody") != "no" {
			t.Errorf("%s: db %q, nobody %q", name, show(s, "db"), show(s, "nobody"))
		}
		// Once n2 has told what it has, what it hasn't goes.
		told := node("n2", "10.0.0.2")
		told.Node.Synced = "h2"
		mustTake(t, v, confirmed(inHistory("h2", update(10, told))))
		if got := show(v.Load(), "db"); got != "no" {
			t.Errorf("%s: db %q after n2 synced", name, got)
		}
	}
	// A neighbour that knows no more than the host itself is of no use.
	alike := exportAfter(t, living, confirmed(inHistory("h2", whole(9, synced))))
	v := mustNew(t, living)
	mustTake(t, v, confirmed(inHistory("h2", whole(9, synced))))
	v.Import(alike, FromNeighbour)
	if got := show(v.Load(), "nobody"); got != "not yet" {
		t.Errorf("nobody %q, want not yet", got)
	}
}

func TestRule17_TombstonesOutliveARestart(t *testing.T) {
	ext := node("ext", "10.0.0.7", service("db", 1))
	ext.Node.ID = ""
	forget := inHistory("h2", update(10))
	forget.Tombstones = []catalog.Tombstone{{Node: "ext", Index: 10}}
	members := []string{"id-n1"}
	cfg := Config{Living: func() iter.Seq[string] { return slices.Values(members) }}
	img := exportAfter(t, cfg, confirmed(inHistory("h2", whole(9, node("n1", "10.0.0.1")))), confirmed(forget))
	v := mustNew(t, cfg)
	v.Import(img, FromDisk)
	v.Import(exportAfter(t, Config{}, confirmed(whole(5, ext))), FromNeighbour)
	if got := showNode(v.Load(), "ext"); got != "no" {
		t.Errorf("ext %q, though it was forgotten", got)
	}
}

func TestRule19_LivesComeAlong(t *testing.T) {
	img := exportAfter(t, Config{Liveness: lives{"id-n1": catalog.Failed, "id-n2": catalog.Alive}},
		confirmed(whole(5, node("n1", "10.0.0.1"), node("n2", "10.0.0.2"), node("n3", "10.0.0.3"))))
	want := []LifeOf{{NodeID: "id-n1", Name: "n1", Life: catalog.Failed}, {NodeID: "id-n2", Name: "n2", Life: catalog.Alive}}
	if !reflect.DeepEqual(img.Lives, want) {
		t.Errorf("%+v, want %+v", img.Lives, want)
	}
	since := time.Unix(7, 0).UTC()
	told := []LifeOf{{NodeID: "id-n1", Name: "n1", Life: catalog.Left, Since: since}}
	img = exportAfter(t, Config{Lives: func() []LifeOf { return told }}, confirmed(whole(5, node("n1", "10.0.0.1"))))
	if !reflect.DeepEqual(img.Lives, told) {
		t.Errorf("%+v, want %+v", img.Lives, told)
	}
}

func TestRule29_WhatAProvisionalHistorySaidIsDropped(t *testing.T) {
	alone := whole(5, node("n1", "10.0.0.1", service("web", 80)))
	alone.History.Provisional = true
	img := exportAfter(t, Config{}, confirmed(alone))
	v := mustNew(t, Config{})
	if v.Import(img, FromNeighbour) || v.Load().HasBase() {
		t.Error("a neighbour's provisional history was taken")
	}
	v.Import(img, FromDisk)
	mustTake(t, v, confirmed(inHistory("h2", whole(9, node("n2", "10.0.0.2")))))
	if got := show(v.Load(), "web"); got != "no" {
		t.Errorf("web %q, want it dropped", got)
	}
}

func TestImport_NothingIsNothing(t *testing.T) {
	v := mustNew(t, Config{})
	if v.Import(nil, FromDisk) || v.Import(new(Export), FromNeighbour) || v.Import(fullExport().Only("web"), FromNeighbour) || v.Load().HasBase() {
		t.Error("something came of nothing")
	}
}

func TestRule25_WhenNamesWereAskedForOutlivesARestart(t *testing.T) {
	img := exportAfter(t, Config{}, confirmed(subscribed(whole(5, node("n1", "10.0.0.1", service("web", 80))), "web")))
	long := time.Now().Add(-48 * time.Hour)
	img.Asked = map[string]time.Time{"web": long}
	v := mustNew(t, Config{})
	v.Import(img, FromDisk)
	if at := v.Export().Asked["web"]; !at.Equal(long) {
		t.Errorf("asked %v, want %v", at, long)
	}
	v.Load().Service("web")
	if at := v.Export().Asked["web"]; time.Since(at) > time.Minute {
		t.Errorf("asked %v, want now", at)
	}
}

func TestProvenance_OfANameThatIsNotHereIsThatOfTheBaseSet(t *testing.T) {
	v := mustNew(t, Config{})
	if from, at := v.Load().Provenance("nobody"); from != "" || !at.IsZero() {
		t.Errorf("%q, %v before anything is known", from, at)
	}
	v.Import(fullExport(), FromDisk)
	if from, at := v.Load().Provenance("nobody"); from != FromDisk || !at.Equal(fullExport().Current.ConfirmedAt) {
		t.Errorf("%q, %v, want the file's", from, at)
	}
	mustTake(t, v, confirmed(inHistory("h2", whole(1<<41, node("n1", "10.0.0.1")))))
	if from, at := v.Load().Provenance("nobody"); from != "catalog" || at.IsZero() {
		t.Errorf("%q, %v, want the catalog's", from, at)
	}
}

// A neighbour that says the same again, of this history and of earlier ones, tells no news.
func TestImport_TheSameAgainIsNoNews(t *testing.T) {
	n1, n2 := node("n1", "10.0.0.1", service("web", 80)), node("n2", "10.0.0.2", service("web", 80), service("db", 1))
	before := confirmed(whole(100, synced("h1", n1), synced("h1", n2)))
	begun := confirmed(inHistory("h2", whole(200, synced("h2", n1))))
	for name, img := range map[string]*Export{
		"all": fullExport(), "this history": exportAfter(t, Config{}, begun), "an earlier one too": exportAfter(t, Config{}, before, begun), "an earlier one": exportAfter(t, Config{}, before),
	} {
		v := mustNew(t, Config{NodeName: "me", NodeID: "id-me", Expecting: true, Living: func() iter.Seq[string] { return slices.Values([]string{"id-me", "id-n2"}) }})
		mustTake(t, v, begun)
		v.Import(throughBytes(t, img), FromNeighbour)
		for range 3 {
			if v.Import(throughBytes(t, img), FromNeighbour) {
				t.Errorf("%s: the same again is news", name)
			}
		}
	}
}
