package httpapi

import (
	"context"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-bexpr"

	"meibo/cluster/catalog"
)

func TestWatchSet_MoreChannelsThanASelectHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s watchSet
		for range maxWatched + 2 {
			s.Add(make(chan struct{}))
		}
		began := time.Now()
		if !s.wait(t.Context(), time.After(time.Hour)) || time.Since(began) != time.Second {
			t.Errorf("looked again after %v", time.Since(began))
		}
	})
}

func TestWatchSet_TellsChangeFromDeadline(t *testing.T) {
	var s watchSet
	open, closed := make(chan struct{}), make(chan struct{})
	s.Add(open)
	s.Add(open)
	s.Add(nil)
	past := make(chan time.Time)
	close(past)
	if s.wait(context.Background(), past) || len(s.cases) != 1 {
		t.Errorf("the deadline counted as a change, or a channel twice: %d", len(s.cases))
	}
	close(closed)
	s.Add(closed)
	if !s.wait(context.Background(), nil) {
		t.Error("a closed channel was no change")
	}
}

func TestNearestField_IsOneThatMayBeGiven(t *testing.T) {
	for given, want := range map[string]string{
		`{"Chekcs":[]}`:      `json: unknown field "Chekcs"; did you mean "Checks"?`,
		`{"conect":{}}`:      `json: unknown field "conect"`,
		`{"DeregisterAt":1}`: `json: unknown field "DeregisterAt"`,
	} {
		if err := decodeJSON([]byte(given), new(agentServiceBody)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", given, err, want)
		}
	}
}

// FuzzFilter wants every expression to be refused or answered, and a comparison that is
// taken apart here to mean what the language itself says.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{
		`Service.Meta.env == qa`, `"v1" in Service.Tags and not Checks.Status == critical`, `Checks.Status != "passing"`,
		`any Checks as c { c.Status == "passing" }`, `Service.Meta["a b"] is empty`, `"/Service/Meta/env" == qa`,
		`Service.Port == 80 or (Node.Node matches "^n")`, `Checks.0.Status == passing`, `Checks is empty`, `(`, `== ==`, "`", `a.b.c.d == "\x00"`,
	} {
		f.Add(s)
	}
	items := []instanceShape{
		{Node: nodeShape{Node: "n1"}, Service: serviceShape{Tags: []string{"v1"}, Meta: map[string]string{"env": "qa"}, Port: 80}},
		{Node: nodeShape{Node: "n2"}, Checks: []checkShape{{CheckID: "a", Status: catalog.Critical}, {CheckID: "b", Status: catalog.Passing}}},
	}
	f.Fuzz(func(t *testing.T, expr string) {
		r := &request{Request: httptest.NewRequest("GET", "/", nil), query: url.Values{"filter": {expr}}}
		parsed, err := parseFilter(r)
		if err != nil {
			if status, _ := statusOf(err); status != 400 {
				t.Errorf("%q: %v", expr, err)
			}
			return
		}
		if parsed == nil {
			return
		}
		whole, err := bexpr.CreateEvaluator(expr, bexpr.WithMaxExpressions(maxFilterSteps))
		if err != nil {
			t.Fatalf("%q: the language itself says %v", expr, err)
		}
		left, err := apply(parsed, slices.Clone(items))
		if err != nil {
			if status, _ := statusOf(err); status != 400 {
				t.Errorf("%q: %v", expr, err)
			}
			return
		}
		for _, item := range items {
			want, err := whole.Evaluate(item)
			if err != nil || strings.Contains(expr, "Checks") || strings.Contains(expr, "Proxy") || strings.Contains(expr, "Connect") {
				continue // where we mean more than the language does, and what we don't have
			}
			got := slices.ContainsFunc(left, func(i instanceShape) bool { return i.Node.Node == item.Node.Node })
			if got != want {
				t.Errorf("%q on %s: %v, want %v", expr, item.Node.Node, got, want)
			}
		}
	})
}
