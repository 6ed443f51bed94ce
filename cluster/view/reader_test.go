package view

import (
	"fmt"
	"slices"
	"testing"

	"meibo/cluster/catalog"
)

// watched is a catalog.Watch.
type watched []<-chan struct{}

func (w *watched) Add(ch <-chan struct{}) { *w = append(*w, ch) }

func TestReader_ReadsWhatShows(t *testing.T) {
	agent := &agentDouble{}
	agent.set(node("me", "10.0.0.9", service("web", 81, "own")))
	v := mustNew(t, Config{NodeName: "me", NodeID: "id-me", Local: agent})
	mustTake(t, v, whole(7, node("n1", "10.0.0.1", service("Web", 80, "b", "a", "b"), check("c", catalog.Passing, "Web"),
		check(catalog.SerfHealth, catalog.Critical, ""))))
	r := v.Load().Reader()
	var ws watched
	got := map[string]any{}
	note := func(what string, index uint64, value any) {
		got[what] = value
		if index != 7 {
			t.Errorf("%s has index %d, want 7", what, index)
		}
	}
	index, services := r.Services(&ws)
	note("services", index, services)
	index, nodes := r.Nodes(&ws)
	note("nodes", index, len(nodes))
	index, n := r.Node(&ws, "N1")
	note("node", index, n.Address)
	index, n = r.Node(&ws, "n2")
	note("no node", index, n == nil)
	index, instances := r.ServiceInstances(&ws, "WEB")
	note("instances", index, len(instances))
	index, ofNode := r.NodeServices(&ws, "n1")
	note("node services", index, len(ofNode))
	index, checks := r.NodeChecks(&ws, "n1")
	note("node checks", index, len(checks))
	index, checks = r.ServiceChecks(&ws, "web")
	note("service checks", index, len(checks))
	index, checks = r.ChecksInState(&ws, catalog.Critical)
	note("critical", index, len(checks))
	index, checks = r.ChecksInState(&ws, "any")
	note("any", index, len(checks))
	want := map[string]any{
		"services": map[string][]string{"Web": {"a", "b"}, "web": {"own"}}, "nodes": 2, "node": "10.0.0.1", "no node": true,
		"instances": 2, "node services": 1, "node checks": 2, "service checks": 1, "critical": 1, "any": 2,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	mustTake(t, v, update(8, node("n2", "10.0.0.2")))
	for _, ch := range slices.All(ws) {
		select {
		case <-ch:
		default:
			t.Error("a watch was not woken by a newer state")
		}
	}
	if len(ws) != len(want) {
		t.Errorf("%d watches, want %d", len(ws), len(want))
	}
}
