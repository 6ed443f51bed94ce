package frame

import (
	"encoding/json"
	"fmt"

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
	e.records(u)
	return e.out
}

func (e *Encoder) records(u *catalog.Update) {
	c := codec{e: e}
	for i := range u.Nodes {
		n := &u.Nodes[i]
		c.node(n.Node)
		e.end(recordNode)
		e.checks(n.Checks)
		for j := range n.Addresses {
			c.address(&n.Addresses[j])
			e.end(recordAddress)
		}
	}
	e.named(recordGoneNode, u.GoneNodes)
	e.named(recordName, u.Names)
	e.named(recordGoneName, u.GoneNames)
	for i := range u.Parts {
		p := &u.Parts[i]
		e.Strings(p.Service, p.Node)
		e.end(recordPart)
		for _, s := range p.Services {
			c.service(s)
			e.end(recordService)
		}
		e.checks(p.Checks)
	}
	e.named(recordComplete, u.Complete)
	for i := range u.Tombstones {
		c.tombstone(&u.Tombstones[i])
		e.end(recordTombstone)
	}
}

func (e *Encoder) checks(list []*catalog.Check) {
	for _, check := range list {
		codec{e: e}.check(check)
		e.end(recordCheck)
	}
}

// codec has the fields of each record once: it writes them with e, or reads them
// with f. What is private to its owner is text, what others are likely to have too
// is shared.
type codec struct {
	e *Encoder
	f *Fields // without e
}

func (c codec) node(n *catalog.Node) {
	c.text(&n.Node, &n.ID, &n.Address)
	c.shared(&n.Datacenter)
	c.pairs(&n.TaggedAddresses)
	c.sharedPairs(&n.Meta)
	c.numbers(&n.CreateIndex, &n.ModifyIndex)
	c.shared(&n.Synced)
	c.flagAndLocality(&n.Agentless, &n.Locality)
}

// service leaves out the node, which is that of the part.
func (c codec) service(s *catalog.Service) {
	c.shared(&s.ID, &s.Service, &s.Kind)
	c.text(&s.Address, &s.SocketPath)
	c.integers(&s.Port)
	c.sharedList(&s.Tags)
	c.sharedPairs(&s.Meta)
	c.addresses(&s.TaggedAddresses)
	c.integers(&s.Weights.Passing, &s.Weights.Warning)
	c.numbers(&s.CreateIndex, &s.ModifyIndex)
	c.flagAndLocality(&s.EnableTagOverride, &s.Locality)
}

// check leaves out the node, which is that of the part or of the node state.
func (c codec) check(k *catalog.Check) {
	c.shared(&k.CheckID, &k.Name, &k.Status, &k.ServiceID, &k.ServiceName)
	c.text(&k.Output)
	c.shared(&k.Notes, &k.Type, &k.Interval, &k.Timeout)
	c.integers(&k.ExposedPort)
	c.sharedList(&k.ServiceTags)
	c.definition(k)
	c.numbers(&k.CreateIndex, &k.ModifyIndex)
}

func (c codec) address(a *catalog.AddressOf) {
	c.text(&a.Address)
	c.shared(&a.Service, &a.ServiceID)
}

func (c codec) tombstone(t *catalog.Tombstone) {
	c.text(&t.Node, &t.ServiceID, &t.CheckID)
	c.numbers(&t.Index)
}

func (c codec) text(fields ...*string)    { each(c, fields, (*Encoder).text, (*Fields).String) }
func (c codec) shared(fields ...*string)  { each(c, fields, (*Encoder).text, (*Fields).shared) }
func (c codec) numbers(fields ...*uint64) { each(c, fields, (*Encoder).Number, (*Fields).Number) }
func (c codec) integers(fields ...*int)   { each(c, fields, (*Encoder).integer, (*Fields).integer) }

func (c codec) sharedList(fields ...*[]string) {
	each(c, fields, (*Encoder).List, (*Fields).sharedList)
}

func (c codec) sharedPairs(fields ...*map[string]string) {
	each(c, fields, (*Encoder).pairs, (*Fields).sharedPairs)
}

func (c codec) pairs(fields ...*map[string]string) {
	each(c, fields, (*Encoder).pairs, (*Fields).pairs)
}

func (c codec) addresses(fields ...*map[string]catalog.ServiceAddress) {
	each(c, fields, (*Encoder).addresses, (*Fields).addresses)
}

func each[T any](c codec, fields []*T, write func(*Encoder, T), read func(*Fields) T) {
	for _, field := range fields {
		if c.e != nil {
			write(c.e, *field)
		} else {
			*field = read(c.f)
		}
	}
}

// flagAndLocality is a flag, one that says whether there is a locality, and that.
func (c codec) flagAndLocality(flag *bool, l **catalog.Locality) {
	if c.e != nil {
		c.e.Flags(*flag, *l != nil)
	} else {
		flags := c.f.Number()
		if *flag = flags&1 != 0; flags&2 != 0 {
			*l = new(catalog.Locality)
		}
	}
	if *l != nil {
		c.shared(&(*l).Region, &(*l).Zone)
	}
}

// definition is how a check is to be run, in its JSON form; most checks have none,
// and then it is empty.
func (c codec) definition(k *catalog.Check) {
	if c.e != nil {
		var text []byte
		if !k.Definition.IsZero() {
			text, _ = json.Marshal(k.Definition) // no error: a struct of strings always has a form
		}
		c.e.text(string(text))
		return
	}
	if text := c.f.bytes(); len(text) > 0 {
		if err := json.Unmarshal(text, &k.Definition); err != nil && c.f.err == nil {
			c.f.err = fmt.Errorf("definition of check %q: %w", k.CheckID, err)
		}
	}
}
