package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"meibo/cluster/catalog"
)

var errDamaged = errors.New("damaged: a field runs past the end of its record")

// maxCommon is how many values of a kind an interner holds, maxCommonLen how many
// octets they may have: enough for the statuses, tags and names that come again and
// again.
const (
	maxCommon    = 16384
	maxCommonLen = 64
	maxCommonSet = 256 // of lists and maps
)

// interner makes equal values one, which saves a host most of the memory of a
// large catalog. Lists and maps are found by their encoding.
type interner struct {
	mu      sync.Mutex // held while a run is decoded
	strings map[string]string
	lists   map[string][]string
	pairs   map[string]map[string]string
}

// common is the one of the process: its file, each stream that it opens and each
// neighbour tell it of the same nodes and services.
var common interner

// intern returns the value that a map has for what b encodes, made by make at first.
func intern[V any](known *map[string]V, b []byte, most int, make func() V) V {
	if len(b) > most {
		return make()
	}
	if v, ok := (*known)[string(b)]; ok {
		return v
	}
	if *known == nil {
		*known = map[string]V{}
	} else if len(*known) >= maxCommon {
		clear(*known)
	}
	v := make()
	(*known)[string(b)] = v
	return v
}

func (in *interner) string(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if in == nil || len(b) > maxCommonLen {
		return string(b)
	}
	if s, ok := in.strings[string(b)]; ok {
		return s
	}
	s := string(b)
	if in.strings == nil {
		in.strings = make(map[string]string)
	} else if len(in.strings) >= maxCommon {
		clear(in.strings)
	}
	in.strings[s] = s
	return s
}

// Fields reads the payload of a frame or the body of a record. What an older
// program left out reads as empty; the first error stays.
type Fields struct {
	b      []byte
	common *interner
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

func (f *Fields) addresses() map[string]catalog.ServiceAddress {
	n := f.count()
	if n == 0 {
		return nil
	}
	m := make(map[string]catalog.ServiceAddress, room(n))
	for range n {
		k := f.shared()
		m[k] = catalog.ServiceAddress{Address: f.String(), Port: f.integer()}
	}
	return m
}

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

// skip passes over n strings, and returns what they and what stood before them since
// start take.
func (f *Fields) skip(start []byte, n int) []byte {
	for range n {
		f.bytes()
	}
	return start[:len(start)-len(f.b)]
}

// sharedList is List, of one that others are likely to have too.
func (f *Fields) sharedList() []string {
	start := f.b
	n := f.count()
	if n == 0 || f.common == nil {
		f.b = start
		return f.List()
	}
	b := f.skip(start, n)
	if f.err != nil {
		return nil
	}
	return intern(&f.common.lists, b, maxCommonSet, (&Fields{b: b, common: f.common}).List)
}

// sharedPairs is pairs, of some that others are likely to have too.
func (f *Fields) sharedPairs() map[string]string {
	start := f.b
	n := f.count()
	if n == 0 || f.common == nil {
		f.b = start
		return f.pairs()
	}
	b := f.skip(start, 2*n)
	if f.err != nil {
		return nil
	}
	return intern(&f.common.pairs, b, maxCommonSet, (&Fields{b: b, common: f.common}).pairs)
}

// decoder makes an update of records. Records may come in several runs; the
// context lasts until take.
type decoder struct {
	fields Fields // of one record after the other
	update catalog.Update
	node   *catalog.NodeState // what checks and addresses belong to, or
	part   *catalog.Part      // what services and checks belong to
}

// decode reads a run of whole records.
func (d *decoder) decode(b []byte) error {
	common.mu.Lock()
	defer common.mu.Unlock()
	for len(b) > 0 {
		kind := b[0]
		n, size := binary.Uvarint(b[1:])
		if size <= 0 || n > uint64(len(b)-1-size) {
			return fmt.Errorf("record of kind %d: %w", kind, errDamaged)
		}
		body := b[1+size : 1+size+int(n)]
		b = b[1+size+int(n):]
		d.fields = Fields{b: body, common: &common}
		if err := d.record(kind, &d.fields); err != nil {
			return err
		}
		if d.fields.err != nil {
			return fmt.Errorf("record of kind %d: %w", kind, d.fields.err)
		}
	}
	return nil
}

// record takes one record. Where it belongs to another it is of that one's node.
func (d *decoder) record(kind byte, f *Fields) error {
	u, c := &d.update, codec{f: f}
	switch kind {
	case recordNode:
		u.Nodes = append(u.Nodes, catalog.NodeState{Node: new(catalog.Node)})
		d.node, d.part = &u.Nodes[len(u.Nodes)-1], nil
		if c.node(d.node.Node); d.node.Node.Node == "" {
			return errors.New("a node without a name")
		}
	case recordPart:
		u.Parts = append(u.Parts, catalog.Part{Service: f.shared(), Node: f.shared()})
		d.node, d.part = nil, &u.Parts[len(u.Parts)-1]
		if d.part.Node == "" || d.part.Service == "" {
			return errors.New("a part without the name of its node or service")
		}
	case recordAddress, recordService, recordCheck:
		return d.belonging(kind, c)
	case recordGoneNode:
		u.GoneNodes = append(u.GoneNodes, f.String())
	case recordName:
		u.Names = append(u.Names, f.shared())
	case recordGoneName:
		u.GoneNames = append(u.GoneNames, f.shared())
	case recordComplete:
		u.Complete = append(u.Complete, f.shared())
	case recordTombstone:
		var t catalog.Tombstone
		c.tombstone(&t)
		u.Tombstones = append(u.Tombstones, t)
	}
	return nil // a kind from a newer program
}

// belonging takes a record that belongs to another.
func (d *decoder) belonging(kind byte, c codec) error {
	switch {
	case kind == recordAddress && d.node != nil:
		var a catalog.AddressOf
		c.address(&a)
		d.node.Addresses = append(d.node.Addresses, a)
	case kind == recordCheck && d.node != nil:
		check := &catalog.Check{Node: d.node.Node.Node}
		c.check(check)
		d.node.Checks = append(d.node.Checks, check)
	case kind == recordCheck && d.part != nil:
		check := &catalog.Check{Node: d.part.Node}
		c.check(check)
		d.part.Checks = append(d.part.Checks, check)
	case kind == recordService && d.part != nil:
		service := &catalog.Service{Node: d.part.Node}
		c.service(service)
		d.part.Services = append(d.part.Services, service)
	default:
		return fmt.Errorf("record of kind %d belongs to nothing", kind)
	}
	return nil
}

// flush returns the update made so far and begins the next one.
func (d *decoder) flush() catalog.Update {
	u := d.update
	d.update, d.node, d.part = catalog.Update{}, nil, nil
	return u
}
