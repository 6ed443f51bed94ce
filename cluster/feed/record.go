package feed

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"

	"meibo/cluster/catalog"
)

// An update is a run of records: a kind, the length of the body, the body. A
// body is fields in a fixed order; newer programs append fields. So a reader
// skips kinds it doesn't know and bytes that are left over, and takes fields
// that are missing for empty: the protocol grows without a new version.
//
// Checks and addresses belong to the node before them, services and checks to
// the part before them. A node or a part begins anew what was known of it.
const (
	recordNode      byte = 1
	recordAddress   byte = 2 // of a service on the node
	recordPart      byte = 3
	recordService   byte = 4
	recordCheck     byte = 5 // of the node or of the part
	recordGoneNode  byte = 6
	recordName      byte = 7
	recordGoneName  byte = 8
	recordComplete  byte = 9
	recordTombstone byte = 10
)

// encoder writes records. The zero value is ready.
type encoder struct {
	out  []byte // finished records
	body []byte // the record being made
}

// end finishes the record being made.
func (e *encoder) end(kind byte) {
	e.out = append(e.out, kind)
	e.out = binary.AppendUvarint(e.out, uint64(len(e.body)))
	e.out = append(e.out, e.body...)
	e.body = e.body[:0]
}

func (e *encoder) number(n uint64) { e.body = binary.AppendUvarint(e.body, n) }

// integer writes numbers that may be negative.
func (e *encoder) integer(n int) { e.body = binary.AppendVarint(e.body, int64(n)) }

func (e *encoder) flags(set ...bool) {
	var b uint64
	for i, on := range set {
		if on {
			b |= 1 << i
		}
	}
	e.number(b)
}

func (e *encoder) strings(list ...string) {
	for _, s := range list {
		e.number(uint64(len(s)))
		e.body = append(e.body, s...)
	}
}

func (e *encoder) list(list []string) {
	e.number(uint64(len(list)))
	e.strings(list...)
}

func (e *encoder) pairs(m map[string]string) {
	e.number(uint64(len(m)))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e.strings(k, m[k])
	}
}

// named writes a record of nothing but strings.
func (e *encoder) named(kind byte, names ...string) {
	e.strings(names...)
	e.end(kind)
}

func (e *encoder) nodeState(n *catalog.NodeState) {
	e.node(n.Node)
	e.end(recordNode)
	for _, c := range n.Checks {
		e.check(c)
	}
	for _, a := range n.Addresses {
		e.named(recordAddress, a.Address, a.Service, a.ServiceID)
	}
}

func (e *encoder) node(n *catalog.Node) {
	e.strings(n.Node, n.ID, n.Address, n.Datacenter)
	e.pairs(n.TaggedAddresses)
	e.pairs(n.Meta)
	e.number(n.CreateIndex)
	e.number(n.ModifyIndex)
	e.strings(n.Synced)
	e.flags(n.Agentless, n.Locality != nil)
	if n.Locality != nil {
		e.strings(n.Locality.Region, n.Locality.Zone)
	}
}

func (e *encoder) part(p *catalog.Part) {
	e.named(recordPart, p.Service, p.Node)
	for _, s := range p.Services {
		e.service(s)
	}
	for _, c := range p.Checks {
		e.check(c)
	}
}

// service leaves out the node, which is that of the part.
func (e *encoder) service(s *catalog.Service) {
	e.strings(s.ID, s.Service, s.Kind, s.Address, s.SocketPath)
	e.integer(s.Port)
	e.list(s.Tags)
	e.pairs(s.Meta)
	e.number(uint64(len(s.TaggedAddresses)))
	for _, k := range slices.Sorted(maps.Keys(s.TaggedAddresses)) {
		e.strings(k, s.TaggedAddresses[k].Address)
		e.integer(s.TaggedAddresses[k].Port)
	}
	e.integer(s.Weights.Passing)
	e.integer(s.Weights.Warning)
	e.number(s.CreateIndex)
	e.number(s.ModifyIndex)
	e.flags(s.EnableTagOverride, s.Locality != nil)
	if s.Locality != nil {
		e.strings(s.Locality.Region, s.Locality.Zone)
	}
	e.end(recordService)
}

// check leaves out the node, which is that of the part or of the node state.
func (e *encoder) check(c *catalog.Check) {
	e.strings(c.CheckID, c.Name, c.Status, c.ServiceID, c.ServiceName, c.Output, c.Notes)
	e.strings(c.Type, c.Interval, c.Timeout)
	e.integer(c.ExposedPort)
	e.list(c.ServiceTags)
	e.strings(definition(&c.Definition))
	e.number(c.CreateIndex)
	e.number(c.ModifyIndex)
	e.end(recordCheck)
}

// definition is how a check is to be run, in its JSON form; most checks have
// none, and then it is empty.
func definition(d *catalog.CheckDefinition) string {
	text, err := json.Marshal(d)
	if err != nil || string(text) == "{}" {
		return "" // a struct of strings always has a form
	}
	return string(text)
}

func (e *encoder) tombstone(t *catalog.Tombstone) {
	e.strings(t.Node, t.ServiceID, t.CheckID)
	e.number(t.Index)
	e.end(recordTombstone)
}
