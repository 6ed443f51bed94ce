package frame

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"meibo/cluster/catalog"
)

// everything is an update with each field of each thing set.
func everything() catalog.Update {
	check := func(node, service string) *catalog.Check {
		c := &catalog.Check{
			Node: node, CheckID: "c1", Name: "a check", Status: catalog.Warning, Notes: "notes", Output: "output",
			Type: "http", Interval: "10s", Timeout: "1s", ExposedPort: 8080, CreateIndex: 1 << 50, ModifyIndex: 1<<50 + 1,
			Definition: catalog.Define(catalog.CheckDefinition{HTTP: "http://192.0.2.1/", Header: map[string][]string{"X": {"1"}}}),
		}
		if service != "" {
			c.ServiceID, c.ServiceName, c.ServiceTags = service, "Web", []string{"x", "y"}
		}
		return c
	}
	return catalog.Update{
		Nodes: []catalog.NodeState{{
			Node: &catalog.Node{
				ID: "10000000-0000-4000-8000-000000000001", Node: "N1", Address: "192.0.2.1", Datacenter: "dc1",
				TaggedAddresses: map[string]string{"lan": "192.0.2.1", "wan": "198.51.100.1"},
				Meta:            map[string]string{"rack": "1"}, CreateIndex: 7, ModifyIndex: 8,
				Synced: "00000000-0000-4000-8000-00000000000a", Agentless: true, Locality: &catalog.Locality{Region: "r", Zone: "z"},
			},
			Checks:    []*catalog.Check{check("N1", "")},
			Addresses: []catalog.AddressOf{{Address: "192.0.2.9", Service: "Web", ServiceID: "w1"}},
		}},
		GoneNodes: []string{"n2"}, Names: []string{"web"}, GoneNames: []string{"db"},
		Parts: []catalog.Part{{
			Node: "N1", Service: "web",
			Services: []*catalog.Service{{
				Node: "N1", Kind: "typical", ID: "w1", Service: "Web", Tags: []string{"x", "y"}, Address: "192.0.2.9",
				TaggedAddresses: map[string]catalog.ServiceAddress{"lan": {Address: "192.0.2.9", Port: 80}},
				Meta:            map[string]string{"v": "2"}, Port: -1, SocketPath: "/run/web",
				Weights: catalog.Weights{Passing: 10, Warning: 1}, EnableTagOverride: true, CreateIndex: 9, ModifyIndex: 10,
				Locality: &catalog.Locality{Region: "r", Zone: "z"},
			}},
			Checks: []*catalog.Check{check("N1", "w1")},
		}, {Node: "n3", Service: "web"}},
		Complete:   []string{"web"},
		Tombstones: []catalog.Tombstone{{Node: "n4", ServiceID: "s", CheckID: "c", Index: 11}},
	}
}

func records(u catalog.Update) []byte { return Records(&u) }

func decodeUpdate(b []byte) (catalog.Update, error) {
	d := decoder{}
	err := d.decode(b)
	return d.flush(), err
}

func TestUpdateSurvivesTheWire(t *testing.T) {
	want := everything()
	got, err := decodeUpdate(records(want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("after the wire (-want +got):\n%s", diff)
	}
}

func TestUnknownRecordsAndFieldsAreSkipped(t *testing.T) {
	var e Encoder
	e.Strings("of the future")
	e.end(99)
	codec{e: &e}.node(&catalog.Node{Node: "n1", Address: "192.0.2.1"})
	e.Strings("a field that was added")
	e.end(recordNode)
	got, err := decodeUpdate(e.out)
	if err != nil || len(got.Nodes) != 1 || got.Nodes[0].Node.Address != "192.0.2.1" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestFieldsThatAreMissingAreEmpty(t *testing.T) {
	var e Encoder
	e.Strings("n1")
	e.end(recordNode)
	got, err := decodeUpdate(e.out)
	if err != nil || got.Nodes[0].Node.Node != "n1" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestDamagedRecordsAreRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"longer than the frame":      {recordName, 200, 1, 'x'},
		"no length":                  {recordName},
		"field longer than record":   {recordName, 2, 200, 'x'},
		"check of nothing":           {recordCheck, 0},
		"service of a node":          slices.Concat(records(catalog.Update{Nodes: everything().Nodes}), []byte{recordService, 0}),
		"node without a name":        {recordNode, 1, 0},
		"part without a service":     {recordPart, 2, 0, 0},
		"more pairs than bytes":      {recordNode, 6, 1, 'n', 0, 0, 0, 200},
		"definition that is no JSON": damagedDefinition(),
	} {
		if _, err := decodeUpdate(b); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func damagedDefinition() []byte {
	b := records(catalog.Update{Nodes: everything().Nodes})
	return bytes.Replace(b, []byte(`{"HTTP"`), []byte(`["HTTP"`), 1)
}

func TestFramesAreBounded(t *testing.T) {
	for name, b := range map[string][]byte{
		"no length": {0, 0, 0, 0, 1},
		"too long":  {0xff, 0xff, 0xff, 0xff, 1},
		"cut short": {0, 0, 0, 9, 1, 2},
	} {
		if _, _, _, err := Read(bytes.NewReader(b), nil, Max); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, _, err := Read(strings.NewReader(""), nil, Max); !errors.Is(err, io.EOF) {
		t.Errorf("an end between frames: %v, want EOF", err)
	}
}

// FuzzRecords holds the host's decoder to taking or refusing whatever comes, and
// to taking what it took once more in its own encoding.
func FuzzRecords(f *testing.F) {
	f.Add(records(everything()))
	f.Add([]byte{99, 3, 1, 2, 3, recordNode, 2, 1, 'n', recordCheck, 0})
	f.Add(damagedDefinition())
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := decodeUpdate(b)
		if err != nil {
			return
		}
		second, err := decodeUpdate(records(first))
		if err != nil {
			t.Fatalf("what was taken is refused: %v", err)
		}
		if diff := cmp.Diff(first, second, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("what was taken changed (-first +second):\n%s", diff)
		}
	})
}

// A catalog has few tags and metadata that differ, and many instances.
func TestUpdates_EqualTagsAndMetadataAreOne(t *testing.T) {
	service := func(node string) catalog.Part {
		return catalog.Part{Node: node, Service: "web", Services: []*catalog.Service{{Node: node, ID: "web", Service: "web",
			Tags: []string{"v1", "blue"}, Meta: map[string]string{"rack": "7"}}}}
	}
	var u Updates
	payload := append([]byte{0, 1}, Records(&catalog.Update{Parts: []catalog.Part{service("a"), service("b")}})...)
	got, whole, err := u.Add(payload)
	if err != nil || !whole {
		t.Fatal(whole, err)
	}
	a, b := got.Parts[0].Services[0], got.Parts[1].Services[0]
	if a.Meta["rack"] != "7" || len(b.Tags) != 2 || reflect.ValueOf(a.Meta).Pointer() != reflect.ValueOf(b.Meta).Pointer() || &a.Tags[0] != &b.Tags[0] {
		t.Errorf("%+v and %+v share nothing", a, b)
	}
}
