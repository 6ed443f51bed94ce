package feed

import (
	"bytes"
	"errors"
	"io"
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
			Definition: catalog.CheckDefinition{HTTP: "http://192.0.2.1/", Header: map[string][]string{"X": {"1"}}},
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

func encodeUpdate(u catalog.Update) []byte {
	var e encoder
	for i := range u.Nodes {
		e.nodeState(&u.Nodes[i])
	}
	for i := range u.Parts {
		e.part(&u.Parts[i])
	}
	for kind, names := range map[byte][]string{
		recordGoneNode: u.GoneNodes, recordName: u.Names, recordGoneName: u.GoneNames, recordComplete: u.Complete,
	} {
		for _, name := range names {
			e.named(kind, name)
		}
	}
	for i := range u.Tombstones {
		e.tombstone(&u.Tombstones[i])
	}
	return e.out
}

func decodeUpdate(b []byte) (catalog.Update, error) {
	d := decoder{common: make(interner)}
	err := d.records(b)
	return d.take(), err
}

func TestUpdateSurvivesTheWire(t *testing.T) {
	want := everything()
	got, err := decodeUpdate(encodeUpdate(want))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("after the wire (-want +got):\n%s", diff)
	}
}

func TestUnknownRecordsAndFieldsAreSkipped(t *testing.T) {
	var e encoder
	e.strings("of the future")
	e.end(99)
	e.node(&catalog.Node{Node: "n1", Address: "192.0.2.1"})
	e.strings("a field that was added")
	e.end(recordNode)
	got, err := decodeUpdate(e.out)
	if err != nil || len(got.Nodes) != 1 || got.Nodes[0].Node.Address != "192.0.2.1" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestFieldsThatAreMissingAreEmpty(t *testing.T) {
	var e encoder
	e.strings("n1")
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
		"service of a node":          slices.Concat(encodeUpdate(catalog.Update{Nodes: everything().Nodes}), []byte{recordService, 0}),
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
	b := encodeUpdate(catalog.Update{Nodes: everything().Nodes})
	return bytes.Replace(b, []byte(`{"HTTP"`), []byte(`["HTTP"`), 1)
}

func TestFramesAreBounded(t *testing.T) {
	for name, b := range map[string][]byte{
		"no length": {0, 0, 0, 0, 1},
		"too long":  {0xff, 0xff, 0xff, 0xff, 1},
		"cut short": {0, 0, 0, 9, 1, 2},
	} {
		if _, _, _, err := readFrame(bytes.NewReader(b), nil, maxFrame); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, _, err := readFrame(strings.NewReader(""), nil, maxFrame); !errors.Is(err, io.EOF) {
		t.Errorf("an end between frames: %v, want EOF", err)
	}
}

// FuzzRecords holds the host's decoder to taking or refusing whatever comes, and
// to taking what it took once more in its own encoding.
func FuzzRecords(f *testing.F) {
	f.Add(encodeUpdate(everything()))
	f.Add([]byte{99, 3, 1, 2, 3, recordNode, 2, 1, 'n', recordCheck, 0})
	f.Add(damagedDefinition())
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := decodeUpdate(b)
		if err != nil {
			return
		}
		second, err := decodeUpdate(encodeUpdate(first))
		if err != nil {
			t.Fatalf("what was taken is refused: %v", err)
		}
		if diff := cmp.Diff(first, second, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("what was taken changed (-first +second):\n%s", diff)
		}
	})
}

// FuzzFrames holds both ends' frames to the same.
func FuzzFrames(f *testing.F) {
	f.Add(hello{Version: 1, NodeID: "10000000-0000-4000-8000-000000000001", Datacenter: "dc1", Leader: true}.frame())
	f.Add(begin{History: catalog.History{ID: "h", Base: 7, Provisional: true}, Index: 9, Whole: true, Names: []string{"web", "db"}}.frame())
	f.Add(namesFrame(frameSubscribe, []string{"web", ""}))
	f.Add(move{Stopping: true, Others: []string{"192.0.2.1:8300"}}.frame())
	f.Add(frame(frameRefuse, func(e *encoder) { e.strings("no") }))
	f.Add(frame(frameUpdate, func(e *encoder) { head{Flags: flagHistory, Index: 7}.encode(e) }))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		var buf []byte
		for {
			kind, payload, grown, err := readFrame(r, buf, maxHostFrame)
			if err != nil {
				return
			}
			buf = grown
			again(t, kind, payload)
		}
	})
}

// again decodes a payload, and what it encodes to.
func again(t *testing.T, kind byte, payload []byte) {
	var first, second any
	var err, err2 error
	reread := func(b []byte) []byte { return b[5:] }
	switch kind {
	case frameHello:
		var h hello
		if h, err = decodeHello(payload); err == nil {
			first = h
			second, err2 = decodeHello(reread(h.frame()))
		}
	case frameBegin:
		var g begin
		if g, err = decodeBegin(payload); err == nil {
			first = g
			second, err2 = decodeBegin(reread(g.frame()))
		}
	case frameSubscribe, frameUnsubscribe:
		var names []string
		if names, err = decodeNames(payload); err == nil {
			first = names
			second, err2 = decodeNames(reread(namesFrame(kind, names)))
			fold(names)
		}
	case frameMove:
		var m move
		if m, err = decodeMove(payload); err == nil {
			first = m
			second, err2 = decodeMove(reread(m.frame()))
		}
	case frameAwait:
		var index uint64
		if index, err = decodeAwait(payload); err == nil {
			first = index
			second, err2 = decodeAwait(reread(awaitFrame(index)))
		}
	case frameRefuse:
		refusal(payload)
	case frameUpdate:
		s := Stream{client: NewClient(ClientConfig{Servers: func() []string { return nil }}), ctx: t.Context()}
		s.seeking = true // and don't look elsewhere
		s.dec.common = make(interner)
		s.take(payload)
	}
	if err2 != nil {
		t.Fatalf("frame of kind %d: what was taken is refused: %v", kind, err2)
	}
	if err == nil && kind != frameSubscribe && kind != frameUnsubscribe {
		if diff := cmp.Diff(first, second, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("frame of kind %d changed (-first +second):\n%s", kind, diff)
		}
	}
}
