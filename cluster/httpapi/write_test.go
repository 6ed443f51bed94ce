package httpapi_test

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/httpapi"
)

func TestBodies_UnknownFieldsAndTypesAreNamed(t *testing.T) {
	tests := []struct{ name, path, body, want string }{
		{"misspelt", "/v1/agent/service/register", `{"Name":"x","Adress":"10.0.0.1"}`,
			`Request decode failed: json: unknown field "Adress"; did you mean "Address"?`},
		{"misspelt in a check", "/v1/agent/service/register", `{"Name":"x","Checks":[{"HTTP":"http://x","Intervall":"1s"}]}`,
			`Request decode failed: json: unknown field "Intervall" in Checks[0]; did you mean "Interval"?`},
		{"nothing near", "/v1/agent/service/register", `{"Name":"x","Banana":1}`,
			`Request decode failed: json: unknown field "Banana"`},
		{"wrong type", "/v1/agent/service/register", `{"Name":"x","Port":"80"}`,
			`Request decode failed: Port: expected a whole number, got a string`},
		{"fraction", "/v1/agent/service/register", `{"Name":"x","Port":1.5}`,
			`Request decode failed: Port: expected a whole number, got the number 1.5`},
		{"bad duration", "/v1/agent/check/register", `{"Name":"x","TTL":"10 s"}`,
			`Request decode failed: TTL: invalid duration "10 s": write it like "10s"`},
		{"same field twice", "/v1/agent/service/register", `{"Name":"x","ID":"a","id":"b"}`,
			`Request decode failed: fields "ID" and "id" are the same`},
		{"no object", "/v1/agent/service/register", `[]`, `Request decode failed: expected an object, got a list`},
		{"empty", "/v1/agent/service/register", ``, `Request decode failed: EOF`},
		{"two values", "/v1/agent/service/register", `{"Name":"x"}{}`, `Request decode failed: more than one JSON value in the body`},
		{"no name", "/v1/agent/service/register", `{"ID":"x"}`, `Missing service name`},
		{"any address", "/v1/agent/service/register", `{"Name":"x","Address":"0.0.0.0"}`, `Invalid service address`},
		{"any address v6", "/v1/agent/service/register", `{"Name":"x","Address":"::"}`, `Invalid service address`},
		{"no weight", "/v1/agent/service/register", `{"Name":"x","Weights":{"Passing":0,"Warning":0}}`, `Invalid Weights: Passing must be greater than 0`},
		{"less than no weight", "/v1/agent/service/register", `{"Name":"x","Weights":{"Passing":-1,"Warning":0}}`, `Invalid Weights: Passing must be greater than 0`},
		{"a negative weight", "/v1/agent/service/register", `{"Name":"x","Weights":{"Passing":1,"Warning":-1}}`, `Invalid Weights: Warning must be greater or equal than 0`},
		{"too much weight", "/v1/agent/service/register", `{"Name":"x","Weights":{"Passing":70000,"Warning":1}}`, `Invalid Weights: DNS Weight must be between 0 and 65535`},
		{"half a boolean", "/v1/agent/service/register?replace-existing-checks=yes", `{"Name":"x"}`, `Invalid value for ?replace-existing-checks`},
		{"check status", "/v1/agent/service/register", `{"Name":"x","Check":{"TTL":"1s","Status":"ok"}}`, `Status for checks must 'passing', 'warning', 'critical'`},
		{"namespace", "/v1/agent/service/register", `{"Name":"x","Namespace":"a"}`, `Invalid request field: "Namespace" - Namespaces are a Consul Enterprise feature`},
		{"check without name", "/v1/agent/check/register", `{"TTL":"10s"}`, `Missing check name`},
		{"check of no service", "/v1/agent/check/register", `{"Name":"x","TTL":"10s","ServiceID":"nope"}`, `ServiceID "nope" does not exist`},
		{"bad status", "/v1/agent/check/update/disk", `{"Status":"fine"}`, `Invalid check status: 'fine'`},
		{"no node", "/v1/catalog/register", `{"Address":"10.0.0.1"}`, `Must provide node`},
		{"no address", "/v1/catalog/register", `{"Node":"x"}`, `Must provide address if SkipNodeUpdate is not set`},
		{"foreign check", "/v1/catalog/register", `{"Node":"x","Address":"1.1.1.1","Check":{"Node":"y","CheckID":"c"}}`, `check node "y" does not match node "x"`},
		{"no node to remove", "/v1/catalog/deregister", `{}`, `Must provide node`},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			w := f.do(t, "PUT", tc.path, tc.body)
			code := 400
			if strings.HasSuffix(tc.want, "does not exist") {
				code = 404
			}
			if w.Code != code || w.Body.String() != tc.want {
				t.Errorf("got %d %s\nwant %d %s", w.Code, w.Body, code, tc.want)
			}
			if got := f.host.last(); got != "" {
				t.Errorf("a refused request did: %s", got)
			}
		})
	}
}

func TestBodies_TooLargeIs413(t *testing.T) {
	body := `{"Name":"x","Meta":{"k":"` + strings.Repeat("v", httpapi.DefaultMaxBody) + `"}}`
	if w := newFixture(t).do(t, "PUT", "/v1/agent/service/register", body); w.Code != 413 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestAgent_WritesReachTheHost(t *testing.T) {
	tests := []struct{ name, target, body, want string }{
		{"service", "/v1/agent/service/register", `{"ID":"db/1","Name":"db","Port":5432,"Check":{"TTL":"15s"},"Checks":[{"TCP":"x:1","Interval":"1s"}]}`,
			`register service db/1 token="" checks=2 replace=false`},
		{"id from name, snake case, token", "/v1/agent/service/register?replace-existing-checks&token=t1",
			`{"name":"db","enable_tag_override":true,"tagged_addresses":{"lan":{"address":"10.0.0.1","port":1}}}`,
			`register service db token="t1" checks=0 replace=true`},
		{"boolean that says no", "/v1/agent/service/register?replace-existing-checks=0", `{"name":"db"}`,
			`register service db token="" checks=0 replace=false`},
		{"what clients of the mesh send", "/v1/agent/service/register", `{"Name":"db","Connect":{"Native":false},"Proxy":null,"Weights":null,"Check":null,"Checks":null}`,
			`register service db token="" checks=0 replace=false`},
		{"deregister with a slash", "/v1/agent/service/deregister/a%2Fb", ``, `deregister service a/b`},
		{"check", "/v1/agent/check/register", `{"Name":"mem","Args":["/bin/true"],"Interval":"10s"}`,
			`register check mem service="" http="" interval=10s ttl=0s args=["/bin/true"]`},
		{"check, duration as number", "/v1/agent/check/register", `{"ID":"m","Name":"mem","ScriptArgs":["x"],"Interval":10000000000,"Service_ID":"web1"}`,
			`register check m service="web1" http="" interval=10s ttl=0s args=["x"]`},
		{"deregister check", "/v1/agent/check/deregister/disk", ``, `deregister check disk`},
		{"pass", "/v1/agent/check/pass/disk?note=fine+now", ``, `update disk passing "fine now"`},
		{"warn", "/v1/agent/check/warn/service:web1", ``, `update service:web1 warning ""`},
		{"fail", "/v1/agent/check/fail/disk", ``, `update disk critical ""`},
		{"update", "/v1/agent/check/update/disk", `{"Status":"passing","Output":"o"}`, `update disk passing "o"`},
		{"service maintenance", "/v1/agent/service/maintenance/web1?enable=true&reason=new+disk", ``, `maintenance of web1 true "new disk"`},
		{"node maintenance", "/v1/agent/maintenance?enable=false", ``, `maintenance false ""`},
		{"reload", "/v1/agent/reload", ``, `reload`},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			f.host.services["a/b"] = &catalog.Service{ID: "a/b", Service: "ab"}
			w := f.do(t, "PUT", tc.target, tc.body)
			if w.Code != 200 || w.Body.Len() != 0 {
				t.Fatalf("got %d %s", w.Code, w.Body)
			}
			if got := f.host.last(); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestAgent_EmptyCheckIsNone(t *testing.T) {
	for body, want := range map[string]int{
		`{"Name":"e","Port":1,"Check":{}}`:                           http.StatusOK,
		`{"Name":"e","Port":1,"Check":null,"Checks":null}`:           http.StatusOK,
		`{"Name":"e","Port":1,"Check":{"HTTP":"","Header":null}}`:    http.StatusOK,
		`{"Name":"e","Port":1,"Check":{"Status":"somehow"}}`:         http.StatusBadRequest,
		`{"Name":"e","Port":1,"Check":{},"Checks":[{"TTL":"10s"}]}`:  http.StatusOK,
		`{"Name":"e","Port":1,"Checks":[null,{"TTL":"10s"}]}`:        http.StatusOK,
		`{"Name":"e","Port":1,"Check":{"Status":"x"},"Checks":null}`: http.StatusBadRequest,
	} {
		f := newFixture(t)
		if w := f.do(t, "PUT", "/v1/agent/service/register", body); w.Code != want {
			t.Errorf("%s: got %d %s, want %d", body, w.Code, w.Body, want)
		}
	}
}

func TestAgent_MaintenanceWantsEnable(t *testing.T) {
	f := newFixture(t)
	for target, want := range map[string]string{
		"/v1/agent/maintenance":                          "400 Missing value for enable",
		"/v1/agent/maintenance?enable=perhaps":           `400 Invalid value for enable: "perhaps"`,
		"/v1/agent/service/maintenance/web1":             "400 Missing value for enable",
		"/v1/agent/service/maintenance/?enable=true":     "400 Missing service ID",
		"/v1/agent/service/maintenance/nope?enable=true": `404 Unknown service ID "nope". Ensure that the service ID is passed, not the service name.`,
	} {
		w := f.do(t, "PUT", target, "")
		if got := fmt.Sprintf("%d %s", w.Code, w.Body); got != want {
			t.Errorf("%s: got %s, want %s", target, got, want)
		}
	}
}

// TestErrors_HaveConsulsStatus is the table of statusOf.
func TestErrors_HaveConsulsStatus(t *testing.T) {
	tests := []struct {
		err  error
		want string
	}{
		{catalog.ErrNoLeader, "500 No cluster leader"},
		{fmt.Errorf("x: %w", httpapi.ErrUnknownCheck), "404 x: unknown check ID"},
		{httpapi.Marked(errors.New("Interval must be > 0"), httpapi.ErrInvalid), "400 Interval must be > 0"},
		{fmt.Errorf("checks on this host: %w", httpapi.ErrTooMany), "429 checks on this host: limit reached"},
		{httpapi.ErrNotTTL, "500 check does not have associated TTL"},
		{errors.New("disk full"), "500 disk full"},
		{&catalog.Error{Text: "Node name x is reserved"}, "500 Node name x is reserved"},
	}
	for _, tc := range tests {
		f := newFixture(t)
		f.host.fail = tc.err
		w := f.do(t, "PUT", "/v1/agent/check/pass/disk", "")
		if got := fmt.Sprintf("%d %s", w.Code, w.Body); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}

func TestCatalog_RegisterThenReadBack(t *testing.T) {
	f := newFixture(t)
	body := `{"Datacenter":"dc1","Node":"ext","Address":"10.9.9.9","NodeMeta":{"external-node":"true"},
		"Service":{"Service":"pg","Port":5432,"Tags":null,"Weights":{"Passing":0,"Warning":0},"Datacenter":"dc1"},
		"Check":{"Name":"up","ServiceID":"pg","Status":"passing","Definition":{"TCP":"x:1","Interval":"10s","Timeout":"0s","DeregisterCriticalServiceAfter":"0s"}}}`
	if w := f.do(t, "PUT", "/v1/catalog/register", body); w.Code != 200 || w.Body.String() != "true" || w.Header().Get("X-Meibo-Warning") != "" {
		t.Fatalf("register: %d %s %v", w.Code, w.Body, w.Header())
	}
	_, n := f.store.Store.Read().Node(nil, "ext")
	if n == nil || !n.Agentless {
		t.Fatalf("the node is not marked agentless: %+v", n)
	}
	w := f.do(t, "GET", "/v1/health/service/pg?passing", "")
	for _, want := range []string{`"Node":"ext"`, `"Port":5432`, `"CheckID":"up"`, `"Definition":{"Interval":"10s","TCP":"x:1"}`, `"Weights":{"Passing":1,"Warning":1}`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s in %s", want, w.Body)
		}
	}
	if w := f.do(t, "PUT", "/v1/catalog/deregister", `{"Node":"ext","ServiceID":"pg"}`); w.Body.String() != "true" {
		t.Fatalf("deregister: %d %s", w.Code, w.Body)
	}
	if w := f.do(t, "GET", "/v1/health/service/pg", ""); w.Body.String() != "[]" {
		t.Errorf("still there: %s", w.Body)
	}
	if w := f.do(t, "PUT", "/v1/catalog/register", `{"Datacenter":"dc2","Node":"x","Address":"1.1.1.1"}`); w.Code != 500 || w.Body.String() != "No path to datacenter" {
		t.Errorf("other datacenter: %d %s", w.Code, w.Body)
	}
}

func FuzzDecodeBody(f *testing.F) {
	for _, s := range []string{
		`{"Name":"x"}`, `{"Name":"x","Port":80,"Check":{"HTTP":"http://x","Interval":"1s","Header":{"a":["b"]}}}`,
		`{"Node":"x","Address":"1.1.1.1","Service":{"Service":"s","TaggedAddresses":{"lan":{"Address":"1.1.1.1","Port":1}}}}`,
		`{"Status":"passing","Output":"o"}`, `[]`, `null`, `{"Name":null}`, `{"Weights":{"Passing":1e9}}`, `{"TTL":1e300}`, `{"`, "\xff",
	} {
		f.Add(s)
	}
	fx := newFixture(f)
	f.Fuzz(func(t *testing.T, body string) {
		for _, path := range []string{"/v1/agent/service/register", "/v1/agent/check/register", "/v1/agent/check/update/disk", "/v1/catalog/register", "/v1/catalog/deregister"} {
			w := fx.do(t, "PUT", path, body)
			if w.Code != 200 && w.Code != 400 && w.Code != 404 && !strings.Contains(w.Body.String(), "No path to datacenter") &&
				!strings.Contains(w.Body.String(), "reserved") {
				t.Errorf("PUT %s %q: %d %s", path, body, w.Code, w.Body)
			}
		}
	})
}

func TestForget_RefusesSlips(t *testing.T) {
	f := newFixture(t)
	for node, want := range map[string]string{
		"n1":     `409 node "n1" is alive: have it leave (meibo leave, on that host) in place of forgetting it`,
		"N1":     `409 node "N1" is alive: have it leave (meibo leave, on that host) in place of forgetting it`,
		"nobody": `404 no node "nobody" is known here`,
		"n2":     `200 true`,
	} {
		if w := f.do(t, "PUT", "/v1/meibo/forget/"+node, ""); fmt.Sprintf("%d %s", w.Code, w.Body) != want {
			t.Errorf("%s: got %d %s, want %s", node, w.Code, w.Body, want)
		}
	}
}

func TestAutopilotConfiguration_IsReplacedIfItIsStillTheOneThatWasRead(t *testing.T) {
	f := newFixture(t)
	put := func(query, body string) string {
		t.Helper()
		w := f.do(t, "PUT", "/v1/operator/autopilot/configuration"+query, body)
		if w.Code != http.StatusOK {
			return strconv.Itoa(w.Code)
		}
		return w.Body.String()
	}
	kept := func() catalog.Autopilot {
		_, c := f.store.Store.Read().Autopilot(nil)
		return *c
	}
	if got := put("", `{"MinQuorum":3,"LastContactThreshold":"1s"}`); got != "true" {
		t.Fatalf("got %s", got)
	}
	if c := kept(); !c.CleanupDeadServers || c.MaxTrailingLogs != 250 { // what the body leaves out
		t.Errorf("kept %+v", c)
	}
	if c := kept(); c.MinQuorum != 3 || c.LastContactThreshold != time.Second || c.ServerStabilizationTime != 10*time.Second {
		t.Errorf("kept %+v", c)
	}
	at := kept().ModifyIndex
	for _, tt := range []struct{ query, body, want string }{
		{fmt.Sprint("?cas=", at-1), `{"MinQuorum":4}`, "false"},
		{fmt.Sprint("?cas=", at), `{"MinQuorum":5}`, "true"},
		{"?cas=x", `{"MinQuorum":6}`, "400"},
		{"?cas=", `{"MinQuorum":6}`, "400"},
		{"", `{"MinQuorum":-6}`, "400"},
		{"", `{"MinQuorums":6}`, "400"},
		{"", `{"ServerStabilizationTime":"-1s"}`, "400"},
	} {
		if got := put(tt.query, tt.body); got != tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.query, tt.body, got, tt.want)
		}
	}
	if c := kept(); c.MinQuorum != 5 {
		t.Errorf("kept %+v", c)
	}
}

// What an agent refuses of its own services and checks the catalog's endpoint refuses too;
// zero weights it takes, as the Go client always sends them.
func TestRegistration_OneRuleForAgentAndCatalog(t *testing.T) {
	far := func(more string) string { return `{"Node":"far","Address":"10.0.0.3",` + more + `}` }
	tags := `"` + strings.Repeat("t", 70<<10) + `"`
	for _, tt := range []struct{ name, more, want string }{
		{"reserved meta", `"Service":{"Service":"db","Meta":{"consul-x":"1"}}`, "reserved for internal use"},
		{"tags", `"Service":{"Service":"db","Tags":[` + tags + `]}`, "at most 65536 bytes"},
		{"control character in a tag", `"Service":{"Service":"db","Tags":["a\u0007"]}`, "control characters"},
		{"socket and port", `"Service":{"Service":"db","Port":1,"SocketPath":"/s"}`, "SocketPath"},
		{"notes", `"Check":{"Name":"c","Notes":"` + strings.Repeat("n", 5000) + `"}`, "longer than 4096"},
		{"proxy by its kind", `"Service":{"Service":"db","Kind":"connect-proxy"}`, "Connect, which is not built"},
		{"proxy", `"Service":{"Service":"db","Proxy":{"DestinationServiceName":"web"}}`, "Proxy.DestinationServiceName is of Connect"},
		{"native", `"Service":{"Service":"db","Connect":{"Native":true}}`, "Connect.Native is of Connect"},
		{"what is read here and written back", `"Service":{"Service":"db","Proxy":{"Mode":"","MeshGateway":{},"Expose":{}},"Connect":{}}`, ""},
		{"zero weights", `"Service":{"Service":"db","Weights":{"Passing":0,"Warning":0}}`, ""},
		{"a definition with keys of others", `"Check":{"Name":"c","Definition":{"TCP":"h:1","IntervalDuration":"10s","TimeoutDuration":5,"Script":"x"}}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newFixture(t).do(t, "PUT", "/v1/catalog/register", far(tt.more))
			if ok := w.Code == 200; ok != (tt.want == "") || !ok && (w.Code != 400 || !strings.Contains(w.Body.String(), tt.want)) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	for body, want := range map[string]string{
		`{"Name":"db","Connect":{"SidecarService":{}}}`:             `Service "db": Connect.SidecarService is of Connect, which is not built here`,
		`{"Name":"db","Proxy":{"Upstreams":[{"LocalBindPort":1}]}}`: `Service "db": Proxy.Upstreams.LocalBindPort is of Connect, which is not built here`,
	} {
		if w := newFixture(t).do(t, "PUT", "/v1/agent/service/register", body); w.Code != 400 || w.Body.String() != want {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
}

func TestLocality_OfANodeIsKeptAndShown(t *testing.T) {
	f := newFixture(t)
	body := `{"Node":"far","Address":"10.0.0.3","Locality":{"Region":"eu","Zone":"eu-1"}}`
	if w := f.do(t, "PUT", "/v1/catalog/register", body); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/v1/catalog/node/far", `/v1/catalog/nodes?filter=Locality.Zone=="eu-1"`} {
		if w := f.do(t, "GET", path, ""); !strings.Contains(w.Body.String(), `"Locality":{"Region":"eu","Zone":"eu-1"}`) {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
	if w := f.do(t, "PUT", "/v1/catalog/register", strings.Replace(body, `"Region":"eu",`, "", 1)); w.Code != 400 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestLocality_IsKeptAndShown(t *testing.T) {
	f := newFixture(t)
	body := `{"Node":"far","Address":"10.0.0.3","Service":{"Service":"db","Locality":{"Region":"eu","Zone":"eu-1"}}}`
	if w := f.do(t, "PUT", "/v1/catalog/register", body); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for path, want := range map[string]string{
		"/v1/catalog/service/db": `"ServiceLocality":{"Region":"eu","Zone":"eu-1"}`,
		"/v1/catalog/node/far":   `"Locality":{"Region":"eu","Zone":"eu-1"}`,
		"/v1/health/service/db":  `"Locality":{"Region":"eu","Zone":"eu-1"}`,
		"/v1/health/service/db?filter=" + "Service.Locality.Zone==\"eu-1\"": `"far"`,
	} {
		if w := f.do(t, "GET", path, ""); !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
	if w := f.do(t, "PUT", "/v1/catalog/register", strings.Replace(body, `"Region":"eu",`, "", 1)); w.Code != 400 || w.Body.String() != "zone cannot be set without region" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := f.do(t, "PUT", "/v1/agent/service/register", `{"Name":"db","Locality":{"Region":"eu"}}`); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if w := f.do(t, "GET", "/v1/agent/service/db", ""); !strings.Contains(w.Body.String(), `"Locality":{"Region":"eu","Zone":""}`) {
		t.Errorf("%s", w.Body)
	}
}
