package httpapi

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// TestReadme_ListsWhatIsNotThereYet: every part that is refused as "not there yet" stands in the one list of the README.
// Single calls below agent and operator speak for themselves.
func TestReadme_ListsWhatIsNotThereYet(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(readme), "\n## What is not built yet\n")
	list, _, found := strings.Cut(list, "\n## ")
	if !found {
		t.Fatal("the README has no section of what is not built yet")
	}
	for _, r := range absentRoutes() {
		w := httptest.NewRecorder()
		r.handle(w, httptest.NewRequest(http.MethodGet, r.path, nil))
		if text := w.Body.String(); strings.Contains(text, " of Consul is ") || strings.Count(text, "Consul") > 1 {
			t.Errorf("%s: %s", r.path, text) // the sentence fits each of them
		}
		single := strings.HasPrefix(r.path, "/v1/agent/") || strings.HasPrefix(r.path, "/v1/operator/")
		if w.Code == http.StatusNotImplemented && !single && !strings.Contains(list, "`"+strings.TrimSuffix(r.path, "/")) {
			t.Errorf("%s is 501, and is not in the list", r.path)
		}
	}
}
