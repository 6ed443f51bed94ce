package frame

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"
	"time"

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

// Records returns what an update tells as records.
func Records(u *catalog.Update) []byte {
	var e Encoder
	for i := range u.Nodes {
		e.nodeState(&u.Nodes[i])
	}
	e.named(recordGoneNode, u.GoneNodes)
	e.named(recordName, u.Names)
	e.named(recordGoneName, u.GoneNames)
	for i := range u.Parts {
		e.part(&u.Parts[i])
	}
	e.named(recordComplete, u.Complete)
	for i := range u.Tombstones {
		e.tombstone(&u.Tombstones[i])
	}
	return e.out
}

// Encoder writes fields: the payload of a frame, or the bodies of records. The
// zero value is ready.
type Encoder struct {
	body []byte
	out  []byte // records that are finished
}

// Number writes a number; Fields.Number reads it, and so on.
func (e *Encoder) Number(n uint64) { e.body = binary.AppendUvarint(e.body, n) }

// integer writes a number that may be negative.
func (e *Encoder) integer(n int) { e.body = binary.AppendVarint(e.body, int64(n)) }

// Flags writes up to seven bits as a number, the first the lowest.
func (e *Encoder) Flags(set ...bool) {
	var b uint64
	for i, on := range set {
		if on {
			b |= 1 << i
		}
	}
	e.Number(b)
}

// Strings writes strings one after the other.
func (e *Encoder) Strings(list ...string) {
	for _, s := range list {
		e.Number(uint64(len(s)))
		e.body = append(e.body, s...)
	}
}

// List writes a list of strings.
func (e *Encoder) List(list []string) {
	e.Number(uint64(len(list)))
	e.Strings(list...)
}

func (e *Encoder) pairs(m map[string]string) {
	e.Number(uint64(len(m)))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e.Strings(k, m[k])
	}
}

// Time writes a time, the zero time as 0.
func (e *Encoder) Time(t time.Time) {
	if t.IsZero() {
		e.Number(0)
		return
	}
	e.Number(uint64(t.UnixNano()))
}

// History writes whose life of the catalog it is.
func (e *Encoder) History(h catalog.History) {
	e.Strings(h.ID)
	e.Number(h.Base)
	e.Flags(h.Provisional)
}

// end finishes the record whose body has been written.
func (e *Encoder) end(kind byte) {
	e.out = append(e.out, kind)
	e.out = binary.AppendUvarint(e.out, uint64(len(e.body)))
	e.out = append(e.out, e.body...)
	e.body = e.body[:0]
}

// named writes a record for each of the names.
func (e *Encoder) named(kind byte, names []string) {
	for _, name := range names {
		e.Strings(name)
		e.end(kind)
	}
}

func (e *Encoder) nodeState(n *catalog.NodeState) {
	e.node(n.Node)
	e.end(recordNode)
	for _, c := range n.Checks {
		e.check(c)
	}
	for _, a := range n.Addresses {
		e.Strings(a.Address, a.Service, a.ServiceID)
		e.end(recordAddress)
	}
}

func (e *Encoder) node(n *catalog.Node) {
	e.Strings(n.Node, n.ID, n.Address, n.Datacenter)
	e.pairs(n.TaggedAddresses)
	e.pairs(n.Meta)
	e.Number(n.CreateIndex)
	e.Number(n.ModifyIndex)
	e.Strings(n.Synced)
	e.Flags(n.Agentless, n.Locality != nil)
	if n.Locality != nil {
		e.Strings(n.Locality.Region, n.Locality.Zone)
	}
}

func (e *Encoder) part(p *catalog.Part) {
	e.Strings(p.Service, p.Node)
	e.end(recordPart)
	for _, s := range p.Services {
		e.service(s)
	}
	for _, c := range p.Checks {
		e.check(c)
	}
}

// service leaves out the node, which is that of the part.
func (e *Encoder) service(s *catalog.Service) {
	e.Strings(s.ID, s.Service, s.Kind, s.Address, s.SocketPath)
	e.integer(s.Port)
	e.List(s.Tags)
	e.pairs(s.Meta)
	e.Number(uint64(len(s.TaggedAddresses)))
	for _, k := range slices.Sorted(maps.Keys(s.TaggedAddresses)) {
		e.Strings(k, s.TaggedAddresses[k].Address)
		e.integer(s.TaggedAddresses[k].Port)
	}
	e.integer(s.Weights.Passing)
	e.integer(s.Weights.Warning)
	e.Number(s.CreateIndex)
	e.Number(s.ModifyIndex)
	e.Flags(s.EnableTagOverride, s.Locality != nil)
	if s.Locality != nil {
		e.Strings(s.Locality.Region, s.Locality.Zone)
	}
	e.end(recordService)
}

// check leaves out the node, which is that of the part or of the node state.
func (e *Encoder) check(c *catalog.Check) {
	e.Strings(c.CheckID, c.Name, c.Status, c.ServiceID, c.ServiceName, c.Output, c.Notes)
	e.Strings(c.Type, c.Interval, c.Timeout)
	e.integer(c.ExposedPort)
	e.List(c.ServiceTags)
	e.Strings(definition(&c.Definition))
	e.Number(c.CreateIndex)
	e.Number(c.ModifyIndex)
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

func (e *Encoder) tombstone(t *catalog.Tombstone) {
	e.Strings(t.Node, t.ServiceID, t.CheckID)
	e.Number(t.Index)
	e.end(recordTombstone)
}
