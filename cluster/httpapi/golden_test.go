package httpapi_test

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// stamp is what differs between runs: the time of a metrics sample.
var stamp = regexp.MustCompile(`"Timestamp": "[^"]*"`)

// TestGolden_EachEndpointAnswersInConsulsShape compares the status, Consul's headers and
// the body of each endpoint with the golden files.
func TestGolden_EachEndpointAnswersInConsulsShape(t *testing.T) {
	tests := []struct{ name, method, target, body string }{
		{"agent-self", "GET", "/v1/agent/self", ""},
		{"agent-version", "GET", "/v1/agent/version", ""},
		{"agent-members", "GET", "/v1/agent/members", ""},
		{"agent-members-wan", "GET", "/v1/agent/members?wan=1", ""},
		{"agent-members-segment", "GET", "/v1/agent/members?segment=alpha", ""},
		{"agent-join", "PUT", "/v1/agent/join/10.0.0.9", ""},
		{"agent-join-nobody", "PUT", "/v1/agent/join/", ""},
		{"agent-join-wan", "PUT", "/v1/agent/join/10.0.0.9?wan=1", ""},
		{"agent-leave", "PUT", "/v1/agent/leave", ""},
		{"agent-force-leave", "PUT", "/v1/agent/force-leave/n2?prune", ""},
		{"meibo-members", "GET", "/v1/meibo/members", ""},
		{"meibo-members-filter", "GET", "/v1/meibo/members?filter=State+==+failed", ""},
		{"meibo-unconfirmed", "GET", "/v1/meibo/unconfirmed", ""},
		{"meibo-forget", "PUT", "/v1/meibo/forget/n2", ""},
		{"meibo-forget-nobody", "PUT", "/v1/meibo/forget/", ""},
		{"keyring-list", "GET", "/v1/operator/keyring", ""},
		{"keyring-install", "POST", "/v1/operator/keyring", `{"Key":"bmV3"}`},
		{"keyring-use-refused", "PUT", "/v1/operator/keyring", `{"Key":"bad"}`},
		{"keyring-remove-no-key", "DELETE", "/v1/operator/keyring", `{}`},
		{"keyring-local-only", "PUT", "/v1/operator/keyring?local-only", `{"Key":"bmV3"}`},
		{"raft-configuration", "GET", "/v1/operator/raft/configuration", ""},
		{"raft-peer", "DELETE", "/v1/operator/raft/peer?id=b", ""},
		{"raft-peer-unknown", "DELETE", "/v1/operator/raft/peer?id=nope", ""},
		{"raft-peer-unnamed", "DELETE", "/v1/operator/raft/peer", ""},
		{"raft-peer-twice", "DELETE", "/v1/operator/raft/peer?id=b&address=10.0.0.2:8300", ""},
		{"raft-transfer-leader", "POST", "/v1/operator/raft/transfer-leader?id=b", ""},
		{"autopilot-configuration", "GET", "/v1/operator/autopilot/configuration", ""},
		{"autopilot-configuration-put", "PUT", "/v1/operator/autopilot/configuration", `{}`},
		{"autopilot-health", "GET", "/v1/operator/autopilot/health", ""},
		{"autopilot-state", "GET", "/v1/operator/autopilot/state", ""},
		{"operator-usage", "GET", "/v1/operator/usage", ""},
		{"agent-services", "GET", "/v1/agent/services", ""},
		{"agent-checks", "GET", "/v1/agent/checks", ""},
		{"agent-service", "GET", "/v1/agent/service/web1", ""},
		{"agent-service-unknown", "GET", "/v1/agent/service/nope", ""},
		{"agent-health-id", "GET", "/v1/agent/health/service/id/web1", ""},
		{"agent-health-name", "GET", "/v1/agent/health/service/name/web", ""},
		{"agent-health-unknown", "GET", "/v1/agent/health/service/name/nope", ""},
		{"agent-health-text", "GET", "/v1/agent/health/service/id/web1?format=text", ""},
		{"agent-metrics", "GET", "/v1/agent/metrics", ""},
		{"agent-host", "GET", "/v1/agent/host", ""},
		{"agent-token", "PUT", "/v1/agent/token/default", `{"Token":"secret"}`},
		{"agent-monitor-level", "GET", "/v1/agent/monitor?loglevel=loud", ""},
		{"agent-register-empty-answer", "PUT", "/v1/agent/service/register", `{"Name":"db"}`},
		{"agent-deregister-unknown", "PUT", "/v1/agent/service/deregister/nope", ""},
		{"agent-check-unknown", "PUT", "/v1/agent/check/pass/nope", ""},
		{"catalog-datacenters", "GET", "/v1/catalog/datacenters", ""},
		{"catalog-nodes", "GET", "/v1/catalog/nodes", ""},
		{"catalog-services", "GET", "/v1/catalog/services", ""},
		{"catalog-service", "GET", "/v1/catalog/service/web", ""},
		{"catalog-service-unknown", "GET", "/v1/catalog/service/nope", ""},
		{"catalog-node", "GET", "/v1/catalog/node/n1", ""},
		{"catalog-node-unknown", "GET", "/v1/catalog/node/nope", ""},
		{"catalog-node-services", "GET", "/v1/catalog/node-services/n1", ""},
		{"catalog-node-services-unknown", "GET", "/v1/catalog/node-services/nope", ""},
		{"catalog-register", "PUT", "/v1/catalog/register", `{"Node":"x","Address":"10.0.0.9"}`},
		{"catalog-register-on-agents-node", "PUT", "/v1/catalog/register", `{"Node":"n1","Address":"10.0.0.1","Service":{"Service":"x"}}`},
		{"catalog-deregister", "PUT", "/v1/catalog/deregister", `{"Node":"n2"}`},
		{"health-service", "GET", "/v1/health/service/web", ""},
		{"health-service-passing", "GET", "/v1/health/service/web?passing=1", ""},
		{"health-service-unknown", "GET", "/v1/health/service/nope", ""},
		{"health-node", "GET", "/v1/health/node/n1", ""},
		{"health-checks", "GET", "/v1/health/checks/web", ""},
		{"health-state", "GET", "/v1/health/state/passing", ""},
		{"status-leader", "GET", "/v1/status/leader", ""},
		{"status-peers", "GET", "/v1/status/peers", ""},
		{"other-datacenter", "GET", "/v1/catalog/nodes?dc=dc9", ""},
		{"kv-not-there", "GET", "/v1/kv/some/key", ""},
		{"acl-disabled", "PUT", "/v1/acl/bootstrap", ""},
		{"mesh-refused", "GET", "/v1/connect/ca/roots", ""},
		{"unknown-path", "GET", "/v1/nope", ""},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			target := tc.target + "?pretty"
			if strings.Contains(tc.target, "?") {
				target = tc.target + "&pretty"
			}
			w := newFixture(t).do(t, tc.method, target, tc.body)
			got := stamp.ReplaceAllString(transcript(w.Code, w.Header(), w.Body.String()), `"Timestamp": "NOW"`)
			path := filepath.Join("testdata", "golden", tc.name+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("%s %s (-want +got):\n%s", tc.method, target, d)
			}
		})
	}
}

// transcript is an answer as text: status, the headers that clients read, body.
func transcript(code int, h http.Header, body string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s\n", code, http.StatusText(code))
	var names []string
	for k := range h {
		if strings.HasPrefix(k, "X-") || k == "Content-Type" || k == "Allow" {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	for _, k := range names {
		fmt.Fprintf(&b, "%s: %s\n", k, h.Get(k))
	}
	return b.String() + "\n" + body
}
