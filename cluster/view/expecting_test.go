package view

import (
	"iter"
	"slices"
	"testing"
	"time"
)

// lived is a Config of host "me" that expects others, with those members alive.
func lived(ids ...string) Config {
	return Config{NodeName: "me", NodeID: "id-me", Expecting: true, Living: func() iter.Seq[string] { return slices.Values(append([]string{"id-me"}, ids...)) }}
}

func TestRule16_AHostWithoutAViewTakesACatalogThatBeginsForLessThanThereIs(t *testing.T) {
	n1, n2 := node("n1", "10.0.0.1", service("web", 80)), node("n2", "10.0.0.2", service("web", 80), service("db", 1))
	me := node("me", "10.0.0.9", service("web", 80), service("mine", 1))
	before := confirmed(whole(100, synced("h1", n1), synced("h1", n2), synced("h1", node("me", "10.0.0.9"))))
	begun := confirmed(inHistory("h2", whole(200, synced("h2", n1))))
	for _, tc := range []struct {
		name          string
		then          func(t *testing.T, v *View)
		web, db, none string
	}{
		{"nobody has spoken", func(*testing.T, *View) {}, "not yet", "not yet", "not yet"},
		{"a neighbour knows what was before", func(t *testing.T, v *View) {
			if !v.Import(exportAfter(t, Config{}, before, begun), FromNeighbour) {
				t.Error("nothing came of it")
			}
		}, "me/web n1/web n2/web", "n2/db", "no"},
		{"a neighbour is still there", func(t *testing.T, v *View) { v.Import(exportAfter(t, Config{}, before), FromNeighbour) },
			"me/web n1/web n2/web", "n2/db", "no"},
		{"all have told the catalog what they have", func(t *testing.T, v *View) {
			mustTake(t, v, inHistory("h2", update(201, synced("h2", n2))))
		}, "me/web n1/web n2/web", "n2/db", "no"},
		{"no neighbour knows more", func(_ *testing.T, v *View) { v.Learned() }, "me/web n1/web", "not yet", "not yet"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := lived("id-n1", "id-n2")
			cfg.Local = &agentDouble{rec: me}
			v := mustNew(t, cfg)
			if v.Load().Expecting() || !v.Lacks() {
				t.Error("without a base set: expects")
			}
			mustTake(t, v, begun)
			names := v.Load().Names().Load()
			if !v.Load().Expecting() || !v.Lacks() {
				t.Error("does not expect others to know more")
			}
			wait := v.Want("web")
			tc.then(t, v)
			wantPlaces(t, v, "web", tc.web)
			wantPlaces(t, v, "db", tc.db)
			wantPlaces(t, v, "none", tc.none)
			if got := olderPlaces(v.Load(), "web"); tc.web == "not yet" && got != "none" {
				t.Errorf("what only began is given for what was before: %q", got)
			}
			if over := tc.web != "not yet"; v.Load().Expecting() == over || over != isClosed(wait) || over != (v.Load().Names().Load() > names) {
				t.Errorf("expects %v, woken %v, names dropped %v", v.Load().Expecting(), isClosed(wait), v.Load().Names().Load() > names)
			}
		})
	}
}

func TestRule11_WhatIsFromDiskCountsAtOnceWhatIsNotThereWaitsForAServer(t *testing.T) {
	n1, me := node("n1", "10.0.0.1", service("web", 80)), node("me", "10.0.0.9", service("mine", 1))
	told := whole(100, synced("h1", n1), synced("h1", node("me", "10.0.0.9")))
	for _, tc := range []struct {
		name           string
		then           func(t *testing.T, v *View)
		web, mine, non string
	}{
		{"no server has spoken", func(*testing.T, *View) {}, "not yet", "not yet", "not yet"},
		{"none will", func(_ *testing.T, v *View) { v.Learned() }, "not yet", "me/mine", "no"},
		{"one has", func(t *testing.T, v *View) {
			mustTake(t, v, confirmed(whole(101, synced("h1", n1), synced("h1", node("n2", "10.0.0.2", service("mine", 1))))))
		}, "n1/web", "me/mine n2/mine", "no"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := lived("id-n1")
			cfg.Local = &agentDouble{rec: me}
			v := mustNew(t, cfg)
			cfg.Expecting = false
			v.Import(exportAfter(t, cfg, told), FromDisk)
			tc.then(t, v)
			wantPlaces(t, v, "web", tc.web)
			wantPlaces(t, v, "mine", tc.mine)
			wantPlaces(t, v, "none", tc.non)
			if got := olderPlaces(v.Load(), "web"); tc.web == "not yet" && got != "n1/web" {
				t.Errorf("older web is at %q", got)
			}
			if got := olderPlaces(v.Load(), "mine"); tc.mine == "not yet" && got != "me/mine" {
				t.Errorf("older mine is at %q", got)
			}
		})
	}
}

func TestRule18_WhoIsAloneExpectsNobody(t *testing.T) {
	v := mustNew(t, lived())
	mustTake(t, v, confirmed(whole(100, node("me", "10.0.0.9", service("web", 80)))))
	wantPlaces(t, v, "web", "me/web")
	wantPlaces(t, v, "none", "no")
	if v.Load().Expecting() || v.Lacks() {
		t.Error("expects others")
	}
}

// Servers that begin anew together meet each other before they meet who knew what was before.
func TestRule18_ACatalogThatHasJustBegunHasNotMetEverybody(t *testing.T) {
	n1, ext := node("n1", "10.0.0.1", service("web", 80)), agentless(node("ext", "10.0.0.7", service("print", 1)))
	before := confirmed(whole(100, synced("h1", n1), ext))
	for _, tc := range []struct {
		name  string
		begun time.Duration // ago
		young bool
	}{{"now", 0, true}, {"by a clock ahead", -2 * time.Second, true}, {"long ago", time.Hour, false}, {"by a clock that is wrong", -time.Hour, false}} {
		t.Run(tc.name, func(t *testing.T) {
			v := mustNew(t, lived("id-n1"))
			u := confirmed(inHistory("h2", whole(200, synced("h2", n1))))
			u.History.Base = uint64(time.Now().Add(-tc.begun).Unix()) << 20
			mustTake(t, v, u)
			if v.Young() != tc.young || v.Lacks() != tc.young || v.Load().Expecting() != tc.young {
				t.Errorf("young %v, lacks %v, expects %v; want %v", v.Young(), v.Lacks(), v.Load().Expecting(), tc.young)
			}
			if !tc.young {
				wantPlaces(t, v, "print", "no")
				return
			}
			wantPlaces(t, v, "print", "not yet")
			v.Import(exportAfter(t, Config{}, before), FromNeighbour)
			wantPlaces(t, v, "print", "ext/print")
			wantPlaces(t, v, "none", "no")
			wantUnconfirmed(t, v, "ext: all of print")
		})
	}
}
