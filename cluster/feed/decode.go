package feed

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"meibo/cluster/catalog"
)

var errDamaged = errors.New("damaged: a field runs past the end of its record")

// maxCommon is how many strings an interner holds, maxCommonLen how long they
// may be: enough for the statuses, tags and names that come again and again.
const (
	maxCommon    = 8192
	maxCommonLen = 64
)

// interner makes equal strings one, which saves a host most of the memory of a
// large catalog.
type interner map[string]string

func (in interner) string(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if len(b) > maxCommonLen || in == nil {
		return string(b)
	}
	if s, ok := in[string(b)]; ok {
		return s
	}
	if len(in) >= maxCommon {
		clear(in)
	}
	s := string(b)
	in[s] = s
	return s
}

// fields reads the body of a record. The first error stays.
type fields struct {
	b      []byte
	common interner
	err    error
}

func (f *fields) fail() {
	f.b = nil
	if f.err == nil {
		f.err = errDamaged
	}
}

func (f *fields) number() uint64 {
	if len(f.b) == 0 {
		return 0 // an older program wrote less
	}
	n, size := binary.Uvarint(f.b)
	if size <= 0 {
		f.fail()
		return 0
	}
	f.b = f.b[size:]
	return n
}

func (f *fields) integer() int {
	if len(f.b) == 0 {
		return 0
	}
	n, size := binary.Varint(f.b)
	if size <= 0 {
		f.fail()
		return 0
	}
	f.b = f.b[size:]
	return int(n)
}

func (f *fields) bytes() []byte {
	n := f.number()
	if n > uint64(len(f.b)) {
		f.fail()
		return nil
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

// string reads a value that is probably its owner's alone.
func (f *fields) string() string { return string(f.bytes()) }

// shared reads a value that others are likely to have too.
func (f *fields) shared() string { return f.common.string(f.bytes()) }

// count reads how many values follow, of which each takes at least a byte.
func (f *fields) count() int {
	n := f.number()
	if n > uint64(len(f.b)) {
		f.fail()
		return 0
	}
	return int(n)
}

// room is how many values to make room for when n are announced: what follows
// may turn out to be damaged.
func room(n int) int { return min(n, 64) }

func (f *fields) list() []string {
	n := f.count()
	if n == 0 {
		return nil
	}
	list := make([]string, 0, room(n))
	for range n {
		list = append(list, f.shared())
	}
	return list
}

func (f *fields) pairs() map[string]string {
	n := f.count()
	if n == 0 {
		return nil
	}
	m := make(map[string]string, room(n))
	for range n {
		k := f.shared()
		m[k] = f.shared()
	}
	return m
}

func (f *fields) node() *catalog.Node {
	n := &catalog.Node{
		Node: f.string(), ID: f.string(), Address: f.string(), Datacenter: f.shared(),
		TaggedAddresses: f.pairs(), Meta: f.pairs(),
		CreateIndex: f.number(), ModifyIndex: f.number(),
		Synced: f.shared(),
	}
	flags := f.number()
	n.Agentless = flags&1 != 0
	if flags&2 != 0 {
		n.Locality = &catalog.Locality{Region: f.shared(), Zone: f.shared()}
	}
	return n
}

func (f *fields) service(node string) *catalog.Service {
	s := &catalog.Service{
		Node: node,
		ID:   f.shared(), Service: f.shared(), Kind: f.shared(), Address: f.string(), SocketPath: f.string(),
		Port: f.integer(), Tags: f.list(), Meta: f.pairs(),
	}
	if n := f.count(); n > 0 {
		s.TaggedAddresses = make(map[string]catalog.ServiceAddress, room(n))
		for range n {
			k := f.shared()
			s.TaggedAddresses[k] = catalog.ServiceAddress{Address: f.string(), Port: f.integer()}
		}
	}
	s.Weights = catalog.Weights{Passing: f.integer(), Warning: f.integer()}
	s.CreateIndex, s.ModifyIndex = f.number(), f.number()
	flags := f.number()
	s.EnableTagOverride = flags&1 != 0
	if flags&2 != 0 {
		s.Locality = &catalog.Locality{Region: f.shared(), Zone: f.shared()}
	}
	return s
}

func (f *fields) check(node string) *catalog.Check {
	c := &catalog.Check{
		Node:    node,
		CheckID: f.shared(), Name: f.shared(), Status: f.shared(), ServiceID: f.shared(), ServiceName: f.shared(),
		Output: f.shared(), Notes: f.shared(),
		Type: f.shared(), Interval: f.shared(), Timeout: f.shared(),
		ExposedPort: f.integer(), ServiceTags: f.list(),
	}
	if d := f.bytes(); len(d) > 0 {
		if err := json.Unmarshal(d, &c.Definition); err != nil && f.err == nil {
			f.err = fmt.Errorf("definition of check %q: %w", c.CheckID, err)
		}
	}
	c.CreateIndex, c.ModifyIndex = f.number(), f.number()
	return c
}

// decoder makes an update of records. Records may come in several runs; the
// context lasts until take.
type decoder struct {
	common interner
	update catalog.Update
	node   *catalog.NodeState // what checks and addresses belong to, or
	part   *catalog.Part      // what services and checks belong to
}

// records reads a run of whole records.
func (d *decoder) records(b []byte) error {
	for len(b) > 0 {
		kind := b[0]
		n, size := binary.Uvarint(b[1:])
		if size <= 0 || n > uint64(len(b)-1-size) {
			return fmt.Errorf("record of kind %d: %w", kind, errDamaged)
		}
		body := b[1+size : 1+size+int(n)]
		b = b[1+size+int(n):]
		f := fields{b: body, common: d.common}
		if err := d.record(kind, &f); err != nil {
			return err
		}
		if f.err != nil {
			return fmt.Errorf("record of kind %d: %w", kind, f.err)
		}
	}
	return nil
}

// record takes one record.
func (d *decoder) record(kind byte, f *fields) error {
	u := &d.update
	switch kind {
	case recordNode, recordPart:
		return d.begin(kind, f)
	case recordAddress, recordService, recordCheck:
		return d.belonging(kind, f)
	case recordGoneNode:
		u.GoneNodes = append(u.GoneNodes, f.string())
	case recordName:
		u.Names = append(u.Names, f.shared())
	case recordGoneName:
		u.GoneNames = append(u.GoneNames, f.shared())
	case recordComplete:
		u.Complete = append(u.Complete, f.shared())
	case recordTombstone:
		u.Tombstones = append(u.Tombstones, catalog.Tombstone{
			Node: f.string(), ServiceID: f.string(), CheckID: f.string(), Index: f.number(),
		})
	}
	return nil // a kind from a newer program
}

// begin takes a record that others belong to.
func (d *decoder) begin(kind byte, f *fields) error {
	u := &d.update
	d.node, d.part = nil, nil
	if kind == recordPart {
		u.Parts = append(u.Parts, catalog.Part{Service: f.shared(), Node: f.shared()})
		d.part = &u.Parts[len(u.Parts)-1]
		if d.part.Node == "" || d.part.Service == "" {
			return errors.New("a part without the name of its node or service")
		}
		return nil
	}
	u.Nodes = append(u.Nodes, catalog.NodeState{Node: f.node()})
	d.node = &u.Nodes[len(u.Nodes)-1]
	if d.node.Node.Node == "" {
		return errors.New("a node without a name")
	}
	return nil
}

// belonging takes a record that belongs to another.
func (d *decoder) belonging(kind byte, f *fields) error {
	switch {
	case kind == recordAddress && d.node != nil:
		d.node.Addresses = append(d.node.Addresses, catalog.AddressOf{
			Address: f.string(), Service: f.shared(), ServiceID: f.shared(),
		})
	case kind == recordCheck && d.node != nil:
		d.node.Checks = append(d.node.Checks, f.check(d.node.Node.Node))
	case kind == recordCheck && d.part != nil:
		d.part.Checks = append(d.part.Checks, f.check(d.part.Node))
	case kind == recordService && d.part != nil:
		d.part.Services = append(d.part.Services, f.service(d.part.Node))
	default:
		return fmt.Errorf("record of kind %d belongs to nothing", kind)
	}
	return nil
}

// take returns the update made so far and begins the next one.
func (d *decoder) take() catalog.Update {
	u := d.update
	d.update, d.node, d.part = catalog.Update{}, nil, nil
	return u
}
