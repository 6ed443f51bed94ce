package feed

import (
	"bytes"

	"meibo/cluster/catalog"
	"meibo/cluster/feed/frame"
)

// entry is one thing that hosts are told of: a node, a part, a name of a
// service, a tombstone. It is there or gone.
type entry struct {
	// index is when it last changed; 0: not in the journal yet.
	index uint64
	gone  bool
	kind  entryKind

	name string // of a part and a name: the service, lower case
	node string // of a part: the key of its node

	// What it is now; nil when gone. record is its encoding, gone or not. They
	// are replaced, never changed: streams hold on to them.
	state  *catalog.NodeState
	part   *catalog.Part
	tomb   *catalog.Tombstone
	label  string // the name of a node, part's node or service, as told
	record []byte

	older, newer *entry // in the journal
}

type entryKind uint8

const (
	ofNode entryKind = iota
	ofPart
	ofName
	ofTombstone
)

// encode makes the record of what the entry is now.
func (n *entry) encode() {
	var u catalog.Update
	n.tell(&u)
	n.record = bytes.Clone(frame.Records(&u)) // without room to grow
}

// weight is what the entry adds to the size of the catalog.
func (n *entry) weight() int64 {
	if n.gone || n.kind == ofTombstone {
		return 0
	}
	return int64(len(n.record))
}

// tell adds what the entry is now to an update of this process.
func (n *entry) tell(u *catalog.Update) {
	switch {
	case n.kind == ofNode && n.gone:
		u.GoneNodes = append(u.GoneNodes, n.label)
	case n.kind == ofNode:
		u.Nodes = append(u.Nodes, *n.state)
	case n.kind == ofPart && n.gone:
		u.Parts = append(u.Parts, catalog.Part{Node: n.label, Service: n.name})
	case n.kind == ofPart:
		u.Parts = append(u.Parts, *n.part)
	case n.kind == ofName && n.gone:
		u.GoneNames = append(u.GoneNames, n.name)
	case n.kind == ofName:
		u.Names = append(u.Names, n.name)
	default:
		u.Tombstones = append(u.Tombstones, *n.tomb)
	}
}

// journal holds entries in the order of their last change. The zero value is
// empty.
type journal struct{ oldest, newest *entry }

// move makes the entry the newest.
func (j *journal) move(e *entry, index uint64) {
	if e.index != 0 {
		j.remove(e)
	}
	e.index, e.older = index, j.newest
	if j.newest != nil {
		j.newest.newer = e
	} else {
		j.oldest = e
	}
	j.newest = e
}

func (j *journal) remove(e *entry) {
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		j.oldest = e.newer
	}
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		j.newest = e.older
	}
	e.older, e.newer = nil, nil
}
