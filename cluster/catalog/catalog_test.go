package catalog_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meibo/cluster/catalog"
)

var update = flag.Bool("update", false, "write golden files anew; those of a released version must not change")

const (
	uuidA = "aaaaaaaa-0000-4000-8000-00000000000a"
	uuidH = "11111111-0000-4000-8000-000000000001"
)

// commands are one of each kind, with every field set.
func commands() map[string]catalog.Command {
	at := time.Date(2026, 11, 1, 2, 3, 4, 5, time.UTC)
	id := catalog.RequestID{Client: "host-1", Counter: 42}
	return map[string]catalog.Command{
		"register": {Time: at, Request: id, Body: &catalog.Register{
			Node: catalog.Node{ID: uuidA, Node: "alpha", Address: "192.0.2.1", Datacenter: "dc1",
				TaggedAddresses: map[string]string{"wan": "198.51.100.1", "lan": "192.0.2.1"},
				Meta:            map[string]string{"rack": "7", "os": "linux"}, Agentless: true},
			SkipNodeUpdate: true,
			Service: &catalog.Service{ID: "web-1", Service: "web", Tags: []string{"v1", "blue"}, Address: "192.0.2.2", Port: 8080,
				SocketPath: "/run/web.sock", Kind: "typical", Meta: map[string]string{"b": "2", "a": "1"},
				TaggedAddresses:   map[string]catalog.ServiceAddress{"wan": {Address: "198.51.100.2", Port: 80}, "lan": {Address: "192.0.2.2", Port: 8080}},
				Weights:           catalog.Weights{Passing: 10, Warning: 1},
				EnableTagOverride: true},
			Checks: []*catalog.Check{{CheckID: "service:web-1", Name: "web up", Status: catalog.Passing, Notes: "n", Output: "200 OK",
				ServiceID: "web-1", Type: "http", Interval: "10s", Timeout: "1s", ExposedPort: 21500,
				Definition: catalog.Define(catalog.CheckDefinition{HTTP: "http://192.0.2.2/", Method: "GET", Interval: "10s", Timeout: "1s",
					Header: map[string][]string{"X-B": {"1", "2"}, "X-A": {"3"}}, DeregisterCriticalServiceAfter: "1h", TLSSkipVerify: true})}},
		}},
		"register-locality": {Time: at, Body: &catalog.Register{
			Node: catalog.Node{Node: "a", Address: "192.0.2.1"}, Service: &catalog.Service{ID: "w", Service: "w", Locality: &catalog.Locality{Region: "r", Zone: "z"}},
		}},
		"register-least":     {Body: &catalog.Register{Node: catalog.Node{Node: "a", Address: "192.0.2.1"}}, Time: time.Unix(0, 0).UTC()},
		"deregister-node":    {Time: at, Body: &catalog.Deregister{Node: "alpha"}},
		"deregister-service": {Time: at, Request: id, Body: &catalog.Deregister{Node: "alpha", ServiceID: "web-1"}},
		"deregister-check":   {Time: at, Body: &catalog.Deregister{Node: "alpha", CheckID: "c"}},
		"begin-history":      {Time: at, Body: &catalog.BeginHistory{ID: uuidH, Base: 1 << 51}},
		"mark-synced":        {Time: at, Body: &catalog.MarkSynced{NodeID: uuidA, History: uuidH}},
		"forget":             {Time: at, Body: &catalog.Forget{Node: "alpha"}},
		"set-autopilot": {Time: at, Request: id, Body: &catalog.SetAutopilot{CAS: true, ModifyIndex: 1 << 51, Config: catalog.Autopilot{
			CleanupDeadServers: true, LastContactThreshold: 200 * time.Millisecond, MaxTrailingLogs: 250, MinQuorum: 3,
			ServerStabilizationTime: 10 * time.Second, RedundancyZoneTag: "zone", DisableUpgradeMigration: true, UpgradeVersionTag: "v",
		}}},
	}
}

// The log can't be changed later: what version 1 wrote is read for ever, and
// what this program writes is read by every program that knows version 1.
func TestEncode_IsTheGoldenEncodingOfVersion1(t *testing.T) {
	for name, c := range commands() {
		t.Run(name, func(t *testing.T) {
			got, err := c.Encode()
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "v1", name+".hex")
			if *update {
				if err := os.WriteFile(path, []byte(hex.Dump(got)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(readGolden(t, path)), hex.Dump(got)); diff != "" {
				t.Errorf("encoding (-golden +got):\n%s", diff)
			}
			back, err := catalog.Decode(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c, back); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

func readGolden(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecode_NamesWhatItDoesNotKnow(t *testing.T) {
	good, err := commands()["forget"].Encode()
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) []byte { return bytes.Replace(good, []byte(old), []byte(new), 1) }
	tests := []struct {
		name string
		in   []byte
		want string
	}{
		{"empty", nil, "decode command: empty"},
		{"version", append([]byte{9}, good[1:]...), "command version 9 is unknown (this program knows up to 1): upgrade this server"},
		{"type", replace("T\x05", "T\x63"), "command type 99 is unknown: upgrade this server"},
		{"field of the header", replace("\xa2At", "\xa2Bt"), "Bt"},
		{"field of the body", replace("\xa4Node", "\xa4Nods"), "Nods"},
		{"cut short", good[:len(good)-1], "EOF"},
		{"more behind it", append(bytes.Clone(good), 0), "1 bytes left over"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := catalog.Decode(tt.in)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			var v *catalog.UnknownVersionError
			var ty *catalog.UnknownTypeError
			if got, want := errors.As(err, &v) || errors.As(err, &ty), tt.name == "version" || tt.name == "type"; got != want {
				t.Errorf("asks for an upgrade by type: got %v, want %v", got, want)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range commands() {
		b, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := catalog.Decode(in)
		if err != nil {
			return
		}
		_ = c.Body.Validate()
		if r, ok := c.Body.(*catalog.Register); ok {
			r.Normalize()
			_ = r.Validate()
		}
		once, err := c.Encode()
		if err != nil {
			t.Fatalf("what was decoded can't be encoded: %v", err)
		}
		back, err := catalog.Decode(once)
		if err != nil {
			t.Fatalf("what was encoded can't be decoded: %v", err)
		}
		twice, err := back.Encode()
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("encodings differ: %x, %x, %v", once, twice, err)
		}
	})
}

func register(change func(*catalog.Register)) *catalog.Register {
	r := &catalog.Register{Node: catalog.Node{Node: "a", Address: "192.0.2.1"},
		Service: &catalog.Service{Service: "web"}, Checks: []*catalog.Check{{Name: "c"}}}
	change(r)
	return r
}

func TestValidate_SpeaksConsulsWords(t *testing.T) {
	many := make(map[string]string)
	for i := range 65 {
		many[strings.Repeat("k", i+1)] = "v"
	}
	tests := []struct {
		name   string
		change func(*catalog.Register)
		want   string
	}{
		{"fine", func(*catalog.Register) {}, ""},
		{"no node", func(r *catalog.Register) { r.Node.Node = "" }, "Must provide node"},
		{"no address", func(r *catalog.Register) { r.Node.Address = "" }, "Must provide address if SkipNodeUpdate is not set"},
		{"no address needed", func(r *catalog.Register) { r.Node.Address, r.SkipNodeUpdate = "", true }, ""},
		{"bad ID", func(r *catalog.Register) { r.Node.ID = "nope" }, `Bad node ID: "nope" is not a UUID`},
		{"upper-case ID", func(r *catalog.Register) { r.Node.ID = strings.ToUpper(uuidA) }, ""},
		{"service without name", func(r *catalog.Register) { r.Service = &catalog.Service{ID: "x"} }, "Must provide service name with ID"},
		{"any address", func(r *catalog.Register) { r.Service.Address = "0.0.0.0" }, "Invalid service address"},
		{"any address, IPv6", func(r *catalog.Register) { r.Service.Address = "[::]" }, "Invalid service address"},
		{"address that is a name", func(r *catalog.Register) { r.Service.Address = "db.example.com" }, ""},
		{"port", func(r *catalog.Register) { r.Service.Port = 65536 }, "Invalid service port 65536: must be 0 to 65535"},
		{"weights", func(r *catalog.Register) { r.Service.Weights = catalog.Weights{Warning: 1} }, "Passing must be greater than 0"},
		{"weights", func(r *catalog.Register) { r.Service.Weights = catalog.Weights{Passing: 70000} }, "DNS Weight must be between 0 and 65535"},
		{"family", func(r *catalog.Register) {
			r.Service.TaggedAddresses = map[string]catalog.ServiceAddress{"lan_ipv4": {Address: "2001:db8::1"}}
		}, `Service tagged address "lan_ipv4" must be a valid ipv4 address`},
		{"meta key", func(r *catalog.Register) { r.Node.Meta = map[string]string{"a b": "c"} },
			"Couldn't load metadata pair ('a b', 'c'): Key contains invalid characters"},
		{"meta pairs", func(r *catalog.Register) { r.Service.Meta = many }, "Service metadata cannot contain more than 64 key/value pairs"},
		{"control character", func(r *catalog.Register) { r.Service.ID = "a\x00b" }, `Invalid service ID: "a\x00b" contains a control character`},
		{"status", func(r *catalog.Register) { r.Checks[0].Status = "fine" }, `Invalid check status: "fine"`},
		{"check of another node", func(r *catalog.Register) { r.Checks[0].Node = "b" }, `check node "b" does not match node "a"`},
		{"check without ID", func(r *catalog.Register) { r.Checks[0].Name = "" }, "Must provide a check ID or name"},
		{"check that is null", func(r *catalog.Register) { r.Checks[0] = nil }, "Must provide a check ID or name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := register(tt.change)
			r.Normalize()
			got := ""
			if err := r.Validate(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNormalize_FillsInWhatConsulFillsIn(t *testing.T) {
	r := register(func(r *catalog.Register) { r.Node.ID = strings.ToUpper(uuidA) })
	r.Normalize()
	c := r.Checks[0]
	if r.Node.ID != uuidA || r.Service.ID != "web" || r.Service.Weights != (catalog.Weights{Passing: 1, Warning: 1}) ||
		c.CheckID != "c" || c.Status != catalog.Critical || c.Node != "a" {
		t.Errorf("got %+v, %+v, %+v", r.Node, r.Service, c)
	}
}

func TestStatus_IsTheWorst(t *testing.T) {
	tests := []struct {
		statuses string // IDs beginning with _ are maintenance checks
		want     string
	}{
		{"", catalog.Passing},
		{"passing", catalog.Passing},
		{"passing warning", catalog.Warning},
		{"critical warning passing", catalog.Critical},
		{"odd", catalog.Critical},
		{"critical " + catalog.NodeMaint, catalog.Maintenance},
		{"passing " + catalog.ServiceMaintPrefix + "web", catalog.Maintenance},
	}
	for _, tt := range tests {
		var i catalog.Instance
		for _, s := range strings.Fields(tt.statuses) {
			i.Checks = append(i.Checks, &catalog.Check{CheckID: s, Status: s})
		}
		if got := i.Status(); got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.statuses, got, tt.want)
		}
	}
}

// consul.md 3.2: field names of the API.
func TestJSON_HasConsulsFields(t *testing.T) {
	keys := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		return strings.Join(slices.Sorted(maps.Keys(m)), " ")
	}
	if got, want := keys(catalog.Node{Synced: "x", Agentless: true}), "Address CreateIndex Datacenter ID Meta ModifyIndex Node TaggedAddresses"; got != want {
		t.Errorf("node: got %s, want %s", got, want)
	}
	if got, want := keys(catalog.Service{Node: "n"}), "Address CreateIndex EnableTagOverride ID Meta ModifyIndex Port Service Tags Weights"; got != want {
		t.Errorf("service: got %s, want %s", got, want)
	}
	if got, want := keys(catalog.Check{}), "CheckID CreateIndex Definition ExposedPort Interval ModifyIndex Name Node Notes Output ServiceID ServiceName ServiceTags Status Timeout Type"; got != want {
		t.Errorf("check: got %s, want %s", got, want)
	}
	if got, want := keys(catalog.CheckDefinition{}), ""; got != want {
		t.Errorf("definition: got %s, want none", got)
	}
}

func TestNextBase_IsAboveAllKnownAndBelow2To53(t *testing.T) {
	now := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	if got := catalog.NextBase(now, 0); got != uint64(now.Unix())<<20 || got > catalog.MaxIndex {
		t.Errorf("got %d", got)
	}
	known := catalog.NextBase(now, 0) + 5
	for _, clock := range []time.Time{now, time.Unix(0, 0), time.Unix(-5, 0)} {
		if got := catalog.NextBase(clock, known); got != known+1 {
			t.Errorf("a clock at %v: got %d, want %d", clock, got, known+1)
		}
	}
}
