package frame

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

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

// Fields reads the payload of a frame or the body of a record. What an older
// program left out reads as empty; the first error stays.
type Fields struct {
	b      []byte
	common interner
	err    error
}

func (f *Fields) fail() {
	f.b = nil
	if f.err == nil {
		f.err = errDamaged
	}
}

// NewFields reads a payload.
func NewFields(payload []byte) *Fields { return &Fields{b: payload} }

// Err returns why fields could not be read, if so.
func (f *Fields) Err() error { return f.err }

// More reports whether there is more to read.
func (f *Fields) More() bool { return len(f.b) > 0 }

// Number reads a number.
func (f *Fields) Number() uint64 {
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

func (f *Fields) integer() int {
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

func (f *Fields) bytes() []byte {
	n := f.Number()
	if n > uint64(len(f.b)) {
		f.fail()
		return nil
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

// String reads a value that is probably its owner's alone.
func (f *Fields) String() string { return string(f.bytes()) }

// shared reads a value that others are likely to have too.
func (f *Fields) shared() string { return f.common.string(f.bytes()) }

// count reads how many values follow, of which each takes at least a byte.
func (f *Fields) count() int {
	n := f.Number()
	if n > uint64(len(f.b)) {
		f.fail()
		return 0
	}
	return int(n)
}

// room is how many values to make room for when n are announced: what follows
// may turn out to be damaged.
func room(n int) int { return min(n, 64) }

// Time reads a time.
func (f *Fields) Time() time.Time {
	if nanos := f.Number(); nanos != 0 {
		return time.Unix(0, int64(nanos)).UTC()
	}
	return time.Time{}
}

// History reads whose life of the catalog it is.
func (f *Fields) History() catalog.History {
	return catalog.History{ID: f.String(), Base: f.Number(), Provisional: f.Number()&1 != 0}
}

// List reads a list of strings.
func (f *Fields) List() []string {
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

func (f *Fields) pairs() map[string]string {
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

func (f *Fields) node() *catalog.Node {
	n := &catalog.Node{
		Node: f.String(), ID: f.String(), Address: f.String(), Datacenter: f.shared(),
		TaggedAddresses: f.pairs(), Meta: f.pairs(),
		CreateIndex: f.Number(), ModifyIndex: f.Number(),
		Synced: f.shared(),
	}
	flags := f.Number()
	n.Agentless = flags&1 != 0
	if flags&2 != 0 {
		n.Locality = &catalog.Locality{Region: f.shared(), Zone: f.shared()}
	}
	return n
}

func (f *Fields) service(node string) *catalog.Service {
	s := &catalog.Service{
		Node: node,
		ID:   f.shared(), Service: f.shared(), Kind: f.shared(), Address: f.String(), SocketPath: f.String(),
		Port: f.integer(), Tags: f.List(), Meta: f.pairs(),
	}
	if n := f.count(); n > 0 {
		s.TaggedAddresses = make(map[string]catalog.ServiceAddress, room(n))
		for range n {
			k := f.shared()
			s.TaggedAddresses[k] = catalog.ServiceAddress{Address: f.String(), Port: f.integer()}
		}
	}
	s.Weights = catalog.Weights{Passing: f.integer(), Warning: f.integer()}
	s.CreateIndex, s.ModifyIndex = f.Number(), f.Number()
	flags := f.Number()
	s.EnableTagOverride = flags&1 != 0
	if flags&2 != 0 {
		s.Locality = &catalog.Locality{Region: f.shared(), Zone: f.shared()}
	}
	return s
}

func (f *Fields) check(node string) *catalog.Check {
	c := &catalog.Check{
		Node:    node,
		CheckID: f.shared(), Name: f.shared(), Status: f.shared(), ServiceID: f.shared(), ServiceName: f.shared(),
		Output: f.shared(), Notes: f.shared(),
		Type: f.shared(), Interval: f.shared(), Timeout: f.shared(),
		ExposedPort: f.integer(), ServiceTags: f.List(),
	}
	if d := f.bytes(); len(d) > 0 {
		if err := json.Unmarshal(d, &c.Definition); err != nil && f.err == nil {
			f.err = fmt.Errorf("definition of check %q: %w", c.CheckID, err)
		}
	}
	c.CreateIndex, c.ModifyIndex = f.Number(), f.Number()
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

// decode reads a run of whole records.
func (d *decoder) decode(b []byte) error {
	for len(b) > 0 {
		kind := b[0]
		n, size := binary.Uvarint(b[1:])
		if size <= 0 || n > uint64(len(b)-1-size) {
			return fmt.Errorf("record of kind %d: %w", kind, errDamaged)
		}
		body := b[1+size : 1+size+int(n)]
		b = b[1+size+int(n):]
		f := Fields{b: body, common: d.common}
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
func (d *decoder) record(kind byte, f *Fields) error {
	u := &d.update
	switch kind {
	case recordNode, recordPart:
		return d.begin(kind, f)
	case recordAddress, recordService, recordCheck:
		return d.belonging(kind, f)
	case recordGoneNode:
		u.GoneNodes = append(u.GoneNodes, f.String())
	case recordName:
		u.Names = append(u.Names, f.shared())
	case recordGoneName:
		u.GoneNames = append(u.GoneNames, f.shared())
	case recordComplete:
		u.Complete = append(u.Complete, f.shared())
	case recordTombstone:
		u.Tombstones = append(u.Tombstones, catalog.Tombstone{
			Node: f.String(), ServiceID: f.String(), CheckID: f.String(), Index: f.Number(),
		})
	}
	return nil // a kind from a newer program
}

// begin takes a record that others belong to.
func (d *decoder) begin(kind byte, f *Fields) error {
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
func (d *decoder) belonging(kind byte, f *Fields) error {
	switch {
	case kind == recordAddress && d.node != nil:
		d.node.Addresses = append(d.node.Addresses, catalog.AddressOf{
			Address: f.String(), Service: f.shared(), ServiceID: f.shared(),
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
