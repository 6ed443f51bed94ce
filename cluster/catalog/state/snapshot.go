package state

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"github.com/hashicorp/go-memdb"

	"meibo/cluster/catalog"
)

// A snapshot is a magic line, a version octet, records, and the CRC32C of all
// that. A record is its kind, the length of its body (32 bits, big endian)
// and the body; one of kind recordEnd, holding the number of those before it,
// is the last. Tables follow one another in the order of their kinds, rows in
// the order of their keys, each key once, so that equal states give equal
// octets; Restore takes nothing else.
const (
	snapshotMagic   = "meibo catalog\n"
	snapshotVersion = 1
	// maxRecord bounds what one record may make Restore allocate. A check's
	// output is cut to 4 KiB; a key's value will be at most 512 KiB.
	maxRecord = 8 << 20
)

// Kinds of records. Numbers are never reused.
const (
	recordEnd       = 0
	recordMeta      = 1
	recordNode      = 2
	recordService   = 3
	recordCheck     = 4
	recordIndex     = 5
	recordTombstone = 6
	recordRequest   = 7
	recordAutopilot = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot captures the state as it is now. Writing it out may go on beside
// later commands. It takes no time worth speaking of.
func (s *Store) Snapshot() io.WriterTo { return s.Read() }

// WriteTo writes the state as [Store.Restore] reads it.
func (r *Read) WriteTo(w io.Writer) (int64, error) {
	p := newRecordWriter(w)
	p.write([]byte(snapshotMagic))
	p.write([]byte{snapshotVersion})
	p.record(recordMeta, &r.meta)
	writeTable[*catalog.Node](p, r.tx, recordNode, tableNodes)
	writeTable[*catalog.Service](p, r.tx, recordService, tableServices)
	writeTable[*catalog.Check](p, r.tx, recordCheck, tableChecks)
	writeTable[*indexRow](p, r.tx, recordIndex, tableIndexes)
	writeTable[*catalog.Tombstone](p, r.tx, recordTombstone, tableTombstones)
	writeTable[*requestRow](p, r.tx, recordRequest, tableRequests)
	writeTable[*catalog.Autopilot](p, r.tx, recordAutopilot, tableAutopilot)
	return p.finish()
}

func writeTable[T any](p *recordWriter, tx *memdb.Txn, kind byte, table string) {
	it, err := tx.Get(table, byID+"_prefix", []byte{})
	if err != nil {
		panic(fmt.Errorf("read %s: %w", table, err)) // a mistake in the schema
	}
	for row := it.Next(); row != nil && p.err == nil; row = it.Next() {
		p.record(kind, row.(T))
	}
}

// recordWriter keeps its first error.
type recordWriter struct {
	w     *bufio.Writer
	sum   hash.Hash32
	n     int64
	count uint64
	body  bytes.Buffer
	err   error
}

func newRecordWriter(w io.Writer) *recordWriter {
	return &recordWriter{w: bufio.NewWriterSize(w, 64<<10), sum: crc32.New(castagnoli)}
}

func (p *recordWriter) write(b []byte) {
	if p.err != nil {
		return
	}
	p.sum.Write(b)
	n, err := p.w.Write(b)
	p.n += int64(n)
	p.err = err
}

func (p *recordWriter) record(kind byte, v any) {
	p.body.Reset()
	if err := catalog.EncodeRecord(&p.body, v); err != nil && p.err == nil {
		p.err = fmt.Errorf("encode snapshot record of kind %d: %w", kind, err)
	}
	if p.body.Len() > maxRecord && p.err == nil {
		p.err = fmt.Errorf("snapshot record of kind %d has %d bytes, more than %d", kind, p.body.Len(), maxRecord)
	}
	p.frame(kind, p.body.Bytes())
	p.count++
}

func (p *recordWriter) frame(kind byte, body []byte) {
	p.write(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body))))
	p.write(body)
}

func (p *recordWriter) finish() (int64, error) {
	p.frame(recordEnd, binary.BigEndian.AppendUint64(nil, p.count))
	p.write(p.sum.Sum(nil))
	if p.err != nil {
		return p.n, p.err
	}
	return p.n, p.w.Flush()
}

// Restore replaces the whole state by the snapshot. All of it is read and
// checked first: on an error the store is as it was.
func (s *Store) Restore(src io.Reader) error {
	s.apply.Lock()
	defer s.apply.Unlock()
	l := &loader{r: bufio.NewReaderSize(src, 64<<10), sum: crc32.New(castagnoli), mem: newMemDB()}
	if err := l.load(); err != nil {
		return fmt.Errorf("restore catalog snapshot: %w", err)
	}
	s.replace(l.mem)
	s.feed.publish(Change{Index: l.meta.Applied, Resync: true})
	return nil
}

// loader reads a snapshot into tables nobody sees yet.
type loader struct {
	r     io.Reader
	sum   hash.Hash32
	mem   *memdb.MemDB
	tx    *memdb.Txn
	meta  metaRow
	kind  byte   // of the last record
	key   []byte // of the last row, nil at the start of a table
	count uint64
}

func (l *loader) load() error {
	if err := l.header(); err != nil {
		return err
	}
	l.tx = l.mem.Txn(true)
	defer l.tx.Abort()
	for {
		kind, body, err := l.next()
		if err != nil {
			return fmt.Errorf("record %d: %w", l.count, err)
		}
		if kind == recordEnd {
			return l.finish(body)
		}
		if kind < l.kind || (l.count == 0) != (kind == recordMeta) {
			return fmt.Errorf("record %d: kind %d is out of order", l.count, kind)
		}
		if kind != l.kind {
			l.kind, l.key = kind, nil
		}
		if err := l.record(kind, body); err != nil {
			return fmt.Errorf("record %d of kind %d: %w", l.count, kind, err)
		}
		l.count++
	}
}

func (l *loader) header() error {
	head := make([]byte, len(snapshotMagic)+1)
	if err := l.read(head); err != nil {
		return err
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return errors.New("this is no catalog snapshot")
	}
	if v := head[len(snapshotMagic)]; v != snapshotVersion {
		return fmt.Errorf("format version %d is unknown (this program knows %d): upgrade this server", v, snapshotVersion)
	}
	return nil
}

func (l *loader) read(b []byte) error {
	if _, err := io.ReadFull(l.r, b); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	l.sum.Write(b)
	return nil
}

func (l *loader) next() (kind byte, body []byte, err error) {
	var head [5]byte
	if err := l.read(head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxRecord {
		return 0, nil, fmt.Errorf("%d bytes, more than %d", n, maxRecord)
	}
	body = make([]byte, n)
	return head[0], body, l.read(body)
}

func (l *loader) record(kind byte, body []byte) error {
	switch kind {
	case recordMeta:
		return decodeInto(body, &l.meta)
	case recordNode:
		return loadRow(l, tableNodes, body, l.wantOwnID)
	case recordService:
		return loadRow(l, tableServices, body, func(s *catalog.Service) error { return l.wantNode(s.Node) })
	case recordCheck:
		return loadRow(l, tableChecks, body, l.wantChecked)
	case recordIndex:
		return loadRow(l, tableIndexes, body, func(*indexRow) error { return nil })
	case recordTombstone:
		l.meta.Tombstones++
		return loadRow(l, tableTombstones, body, func(*catalog.Tombstone) error { return nil })
	case recordRequest:
		l.meta.Requests++
		return loadRow(l, tableRequests, body, func(*requestRow) error { return nil })
	case recordAutopilot:
		return loadRow(l, tableAutopilot, body, func(*catalog.Autopilot) error { return nil })
	}
	return errors.New("unknown kind: upgrade this server")
}

func decodeInto(body []byte, meta *metaRow) error {
	if err := catalog.DecodeRecord(body, meta); err != nil {
		return err
	}
	meta.Tombstones, meta.Requests = 0, 0 // counted from their rows
	return nil
}

func loadRow[T any](l *loader, table string, body []byte, check func(*T) error) error {
	row := new(T)
	if err := catalog.DecodeRecord(body, row); err != nil {
		return err
	}
	if err := check(row); err != nil {
		return err
	}
	k := l.mem.DBSchema().Tables[table].Indexes[byID].Indexer.(keyIndexer)(row)
	if bytes.Compare(k, l.key) <= 0 {
		return fmt.Errorf("%s: key %q does not come after %q", table, k, l.key)
	}
	l.key = k
	return l.tx.Insert(table, row)
}

// wantOwnID refuses a node ID that another node has: who looks up by ID finds
// one node.
func (l *loader) wantOwnID(n *catalog.Node) error {
	if n.ID == "" {
		return nil
	}
	if other := first(l.tx, tableNodes, byUUID, key(fold(n.ID))); other != nil {
		return fmt.Errorf("nodes %q and %q both have the ID %s", other.(*catalog.Node).Node, n.Node, n.ID)
	}
	return nil
}

// wantNode refuses what is on no node: reads rely on it.
func (l *loader) wantNode(name string) error {
	if first(l.tx, tableNodes, byID, nodeKey(name)) == nil {
		return fmt.Errorf("node %q is missing", name)
	}
	return nil
}

// wantChecked refuses a check of a service that isn't there, or is there under
// another name.
func (l *loader) wantChecked(c *catalog.Check) error {
	name := ""
	if c.ServiceID != "" {
		row := first(l.tx, tableServices, byID, onNodeKey(c.Node, c.ServiceID))
		if row == nil {
			return fmt.Errorf("service %q of check %q is missing on node %q", c.ServiceID, c.CheckID, c.Node)
		}
		name = row.(*catalog.Service).Service
	}
	if c.ServiceName != name {
		return fmt.Errorf("check %q on node %q names service %q, want %q", c.CheckID, c.Node, c.ServiceName, name)
	}
	return l.wantNode(c.Node)
}

// finish checks the count and the sum, and commits.
func (l *loader) finish(body []byte) error {
	if len(body) != 8 || binary.BigEndian.Uint64(body) != l.count {
		return fmt.Errorf("its end counts other than the %d records found", l.count)
	}
	want := l.sum.Sum32()
	var sum [4]byte
	if err := l.read(sum[:]); err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	if got := binary.BigEndian.Uint32(sum[:]); got != want {
		return fmt.Errorf("checksum %08x, want %08x: the snapshot is damaged", got, want)
	}
	if l.count == 0 {
		return errors.New("it has no records")
	}
	if err := l.tx.Insert(tableMeta, &l.meta); err != nil {
		return err
	}
	l.tx.Commit()
	return nil
}
