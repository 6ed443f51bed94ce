package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/httpapi/client"
	"meibo/cluster/membership"
	"meibo/cluster/view"
	"meibo/resolver/control"
)

// factsOf are facts about a view that knows nothing, of hosts that gossip knows so.
func factsOf(t *testing.T, members map[string]*membership.Member) *facts {
	t.Helper()
	v, err := view.New(view.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return &facts{
		view: v, self: "self",
		member: func(id string) *membership.Member { return members[id] },
	}
}

func instanceOn(node string, checks ...*catalog.Check) catalog.Instance {
	return catalog.Instance{
		Node:    &catalog.Node{ID: "id-" + node, Node: node, Address: "192.0.2.1"},
		Service: &catalog.Service{ID: "web", Service: "web", Port: 80, Tags: []string{"blue"}}, Checks: checks,
	}
}

func TestExplain_SaysWhyEachInstanceIsLeftOut(t *testing.T) {
	dead := &catalog.Check{CheckID: catalog.SerfHealth, Name: "Serf Health Status", Status: catalog.Critical, Output: "Agent not live or unreachable"}
	own := &catalog.Check{CheckID: "http", Name: "web up", Status: catalog.Critical, Output: "HTTP 500"}
	f := factsOf(t, map[string]*membership.Member{
		"id-dead": {Status: membership.Failed, Since: time.Now().Add(-12 * time.Second)},
		"id-back": {Status: membership.Failed, HeldUntil: time.Now().Add(time.Minute), Flaps: 3},
		"id-late": {Status: membership.Alive}, "id-mute": {Status: membership.Suspect, Since: time.Now().Add(-12 * time.Second)},
	})
	f.guarded = func() bool { return true }
	f.held = func(context.Context) (time.Time, int) { return time.Now().Add(time.Minute), 2 }
	for _, tc := range []struct {
		name       string
		in         catalog.Instance
		tag        string
		lastResort bool
		answered   bool
		want       string
	}{
		{"answered", instanceOn("ok"), "", false, true, ""},
		{"dead by gossip", instanceOn("dead", dead), "", false, false, "its host is dead, found by gossip 12s ago"},
		{"held down", instanceOn("back", dead), "", false, false, "held down until it is steady (gone 3 times lately), until "},
		{"kept by the guard", instanceOn("mute"), "", false, true, "its host has not answered for 12s, and is not taken out: more than half of the others went at once"},
		{"serfHealth", instanceOn("late", dead), "", false, false, "the catalog says that its host is dead; gossip says it is alive"},
		{"a node without gossip", instanceOn("ext", dead), "", false, false, "the catalog says that its host is dead"},
		{"held down by others", instanceOn("self", dead), "", false, false, "the others hold this host down until it is steady (gone 2 times lately), until "},
		{"own check", instanceOn("ok", own), "", false, false, "check web up is critical: HTTP 500"},
		{"last resort", instanceOn("dead", dead), "", true, true, "nothing else is left, though its host is dead"},
		{"another tag", instanceOn("ok", own), "red", false, false, "does not have the tag red"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := f.explain(t.Context(), tc.in, tc.tag, false, tc.lastResort)
			if text := why(got); got.Answered != tc.answered || !strings.Contains(text, tc.want) || (tc.want == "") != (text == "") {
				t.Errorf("answered %v, %q; want %v, %q", got.Answered, text, tc.answered, tc.want)
			}
		})
	}
}

func TestRefresh_ShowsWhatTheLeaderHasOrSaysHowOldItIs(t *testing.T) {
	f := factsOf(t, nil)
	left := func() []control.Instance {
		return []control.Instance{{Node: "n1", CheckID: "http", Output: "of before", Reason: "r"}, {Node: "n1"}}
	}
	f.checks = func(context.Context, string) (map[checkKey]string, error) {
		return map[checkKey]string{{"n1", "http"}: "HTTP 502"}, nil
	}
	out := left()
	f.refresh(t.Context(), "web", out)
	if out[0].Output != "HTTP 502" || out[0].OutputSeconds == nil || *out[0].OutputSeconds != 0 || out[1].Output != "" {
		t.Errorf("%+v; want the leader's output, of now", out)
	}
	f.checks = func(context.Context, string) (map[checkKey]string, error) { return nil, errors.New("no leader") }
	out = left()
	f.refresh(t.Context(), "web", out)
	if out[0].Output != "of before" || out[0].OutputSeconds != nil {
		t.Errorf("%+v; want what is known, of unknown age", out[0])
	}
}

func TestCatalogRows_SayWhenItWasConfirmed(t *testing.T) {
	at := time.Now().Add(-time.Hour)
	for _, tc := range []struct {
		c    control.Catalog
		want string
	}{
		{control.Catalog{Fresh: true, Way: "catalog subscription"}, "now"},
		{control.Catalog{Confirmed: &at, Way: "disk"}, "1h0m0s ago; no server with a leader confirms it now"},
		{control.Catalog{Way: "agent"}, "never by a server: this host's own word"},
		{control.Catalog{Way: "neighbour"}, "not by a server that this host has heard"},
	} {
		rows := catalogRows(&tc.c)
		if got := rows[len(rows)-1][1]; got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.c, got, tc.want)
		}
	}
}

func TestMembers_NamesThoseThatTheGuardKeeps(t *testing.T) {
	s := &client.Standing{Members: []client.MemberDetail{{State: "suspect"}, {State: "alive"}, {State: "suspect"}}}
	for i, name := range []string{"s2", "a1", "s1"} {
		s.Members[i].Name = name
	}
	var out strings.Builder
	if sayHeld(&out, s); out.String() != "" {
		t.Errorf("without the guard: %s", out.String())
	}
	s.Braking = true
	if sayHeld(&out, s); !strings.HasPrefix(out.String(), "s1, s2: no answer, and counted alive all the same") {
		t.Errorf("with it: %q", out.String())
	}
}
