package view

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"time"

	"meibo/cluster/catalog"
)

// An encoded image is a magic line, a version octet, records, and the CRC32C of
// all that. A record is its kind, the length of its body (32 bits, big endian)
// and the body, in the dialect of the catalog's snapshots. A record of kind
// recordTold begins what a history told; what follows belongs to it. One of kind
// recordEnd, holding the number of those before it, is the last.
const (
	imageMagic   = "meibo view\n"
	imageVersion = 1
	// MaxImage bounds an encoded image, octets. A hundred thousand instances
	// take about half of it.
	MaxImage = 64 << 20
	// maxRecord bounds what one record may make a reader allocate. A check's
	// output is cut to 4 KiB.
	maxRecord = 8 << 20
)

// Kinds of records. Numbers are never reused.
const (
	recordEnd   = 0
	recordTold  = 1
	recordNode  = 2
	recordName  = 3
	recordPart  = 4
	recordAsked = 5
	recordLife  = 6
	recordTomb  = 7
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged is in the chain of errors that say that bytes are no image any more:
// cut short, or changed.
var ErrDamaged = errors.New("cut short or garbled")

type toldRow struct {
	Remembered bool            `codec:"R,omitempty"`
	History    catalog.History `codec:"H"`
	Index      uint64          `codec:"I"`
	Confirmed  int64           `codec:"C,omitempty"` // Unix nanoseconds
	Base       bool            `codec:"B,omitempty"`
	Whole      bool            `codec:"W,omitempty"`
}

type nodeRow struct {
	Node      *catalog.Node       `codec:"N"`
	Checks    []*catalog.Check    `codec:"C,omitempty"`
	Addresses []catalog.AddressOf `codec:"A,omitempty"`
}

type nameRow struct {
	Name     string `codec:"N"`
	Exists   bool   `codec:"E,omitempty"` // it is one of Names
	Complete bool   `codec:"C,omitempty"`
}

type partRow struct {
	Node     string             `codec:"N"`
	Service  string             `codec:"S"`
	Services []*catalog.Service `codec:"I,omitempty"`
	Checks   []*catalog.Check   `codec:"C,omitempty"`
}

type askedRow struct {
	Name string `codec:"N"`
	At   int64  `codec:"A"` // Unix nanoseconds
}

type lifeRow struct {
	NodeID string `codec:"I"`
	Name   string `codec:"N,omitempty"`
	Life   uint8  `codec:"L"`
	Since  int64  `codec:"S,omitempty"` // Unix nanoseconds
}

// MarshalBinary encodes the image. Equal images, in the same order, give equal
// bytes. It fails for one of more than MaxImage bytes.
func (i *Image) MarshalBinary() ([]byte, error) {
	w := &imageWriter{}
	w.b.WriteString(imageMagic)
	w.b.WriteByte(imageVersion)
	w.told(&i.Current, false)
	w.told(&i.Remembered, true)
	for _, name := range slices.Sorted(maps.Keys(i.Asked)) {
		w.record(recordAsked, &askedRow{name, nanos(i.Asked[name])})
	}
	for _, l := range i.Lives {
		w.record(recordLife, &lifeRow{l.NodeID, l.Name, uint8(l.Life), nanos(l.Since)})
	}
	w.frame(recordEnd, binary.BigEndian.AppendUint64(nil, w.count))
	if w.err == nil && w.b.Len()+crc32.Size > MaxImage {
		w.err = fmt.Errorf("encode view: %d bytes, more than %d", w.b.Len(), MaxImage)
	}
	if w.err != nil {
		return nil, w.err
	}
	return binary.BigEndian.AppendUint32(w.b.Bytes(), crc32.Checksum(w.b.Bytes(), castagnoli)), nil
}

// imageWriter keeps its first error.
type imageWriter struct {
	b, body bytes.Buffer
	count   uint64
	err     error
}

func (w *imageWriter) told(t *Told, remembered bool) {
	if remembered && t.isEmpty() {
		return
	}
	w.record(recordTold, &toldRow{remembered, t.History, t.Index, nanos(t.Confirmed), t.Base, t.Whole})
	for _, n := range t.Nodes {
		w.record(recordNode, &nodeRow{n.Node, n.Checks, n.Addresses})
	}
	names := make(map[string]nameRow, len(t.Names))
	for _, name := range t.Names {
		names[name] = nameRow{Name: name, Exists: true}
	}
	for _, name := range t.Complete {
		names[name] = nameRow{Name: name, Exists: names[name].Exists, Complete: true}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		row := names[name]
		w.record(recordName, &row)
	}
	for i := range t.Tombstones {
		w.record(recordTomb, &t.Tombstones[i])
	}
	for _, p := range t.Parts {
		w.record(recordPart, &partRow{p.Node, p.Service, p.Services, p.Checks})
	}
}

func (w *imageWriter) record(kind byte, row any) {
	if w.err != nil {
		return
	}
	w.body.Reset()
	if err := catalog.EncodeRecord(&w.body, row); err != nil {
		w.err = fmt.Errorf("encode view, record of kind %d: %w", kind, err)
		return
	}
	if w.body.Len() > maxRecord || w.b.Len()+w.body.Len() > MaxImage {
		w.err = fmt.Errorf("encode view: record of kind %d has %d bytes at %d, more than fits", kind, w.body.Len(), w.b.Len())
		return
	}
	w.frame(kind, w.body.Bytes())
	w.count++
}

func (w *imageWriter) frame(kind byte, body []byte) {
	w.b.WriteByte(kind)
	w.b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(body))))
	w.b.Write(body)
}

// UnmarshalBinary reads what MarshalBinary wrote, checking all of it. On an
// error, which has ErrDamaged in its chain unless a newer program wrote the
// bytes, the image is as it was.
func (i *Image) UnmarshalBinary(b []byte) error {
	switch {
	case len(b) > MaxImage:
		return fmt.Errorf("decode view: %w: %d bytes, more than %d", ErrDamaged, len(b), MaxImage)
	case len(b) < len(imageMagic)+1+crc32.Size || string(b[:len(imageMagic)]) != imageMagic:
		return fmt.Errorf("decode view: %w: it does not begin as one", ErrDamaged)
	case b[len(imageMagic)] != imageVersion:
		return fmt.Errorf("decode view: format version %d is unknown (this program knows %d)", b[len(imageMagic)], imageVersion)
	}
	body, sum := b[:len(b)-crc32.Size], b[len(b)-crc32.Size:]
	if binary.BigEndian.Uint32(sum) != crc32.Checksum(body, castagnoli) {
		return fmt.Errorf("decode view: %w: wrong checksum", ErrDamaged)
	}
	r := &imageReader{rest: body[len(imageMagic)+1:], into: Image{Asked: make(map[string]time.Time)}}
	if err := r.read(); err != nil {
		return fmt.Errorf("decode view, record %d: %w: %w", r.count, ErrDamaged, err)
	}
	*i = r.into
	return nil
}

// imageReader reads records into an image.
type imageReader struct {
	rest  []byte
	into  Image
	told  *Told // that the records belong to
	count uint64
}

func (r *imageReader) read() error {
	for {
		kind, body, err := r.next()
		switch {
		case err != nil:
			return err
		case kind == recordEnd:
			return r.end(body)
		}
		if err := r.record(kind, body); err != nil {
			return err
		}
		r.count++
	}
}

func (r *imageReader) next() (kind byte, body []byte, err error) {
	if len(r.rest) < 5 {
		return 0, nil, errors.New("it has no end")
	}
	kind, n := r.rest[0], binary.BigEndian.Uint32(r.rest[1:])
	if n > maxRecord || int(n) > len(r.rest)-5 {
		return 0, nil, fmt.Errorf("its length is %d, of %d bytes left", n, len(r.rest)-5)
	}
	body, r.rest = r.rest[5:5+n], r.rest[5+n:]
	return kind, body, nil
}

func (r *imageReader) end(body []byte) error {
	if len(r.rest) > 0 || len(body) != 8 || binary.BigEndian.Uint64(body) != r.count {
		return errors.New("it does not end where it should")
	}
	return nil
}

func (r *imageReader) record(kind byte, body []byte) error {
	if r.told == nil && kind != recordTold {
		return fmt.Errorf("kind %d belongs to nothing", kind)
	}
	switch kind {
	case recordTold:
		return readRow(body, r.addTold)
	case recordNode:
		return readRow(body, r.addNode)
	case recordName:
		return readRow(body, r.addName)
	case recordPart:
		return readRow(body, r.addPart)
	case recordTomb:
		return readRow(body, func(row *catalog.Tombstone) error {
			r.told.Tombstones = append(r.told.Tombstones, *row)
			return nil
		})
	case recordAsked:
		return readRow(body, func(row *askedRow) error { r.into.Asked[row.Name] = timeOf(row.At); return nil })
	case recordLife:
		return readRow(body, r.addLife)
	}
	return fmt.Errorf("kind %d is unknown", kind)
}

func readRow[T any](body []byte, add func(*T) error) error {
	row := new(T)
	if err := catalog.DecodeRecord(body, row); err != nil {
		return err
	}
	return add(row)
}

func (r *imageReader) addTold(row *toldRow) error {
	switch {
	case r.told == nil && !row.Remembered:
		r.told = &r.into.Current
	case r.told == &r.into.Current && row.Remembered:
		r.told = &r.into.Remembered
	default:
		return errors.New("a history is out of order")
	}
	r.told.History, r.told.Index, r.told.Confirmed = row.History, row.Index, timeOf(row.Confirmed)
	r.told.Base, r.told.Whole = row.Base, row.Whole
	return nil
}

func (r *imageReader) addNode(row *nodeRow) error {
	if row.Node == nil || row.Node.Node == "" {
		return errors.New("a node has no name")
	}
	if err := checksOn(row.Node.Node, row.Checks); err != nil {
		return err
	}
	r.told.Nodes = append(r.told.Nodes, catalog.NodeState{Node: row.Node, Checks: row.Checks, Addresses: row.Addresses})
	return nil
}

func checksOn(node string, checks []*catalog.Check) error {
	if slices.Contains(checks, nil) {
		return fmt.Errorf("a check of node %q is nil", node)
	}
	return nil
}

func (r *imageReader) addName(row *nameRow) error {
	if row.Name == "" || row.Name != nameKey(row.Name) {
		return fmt.Errorf("%q is no service name in lower case", row.Name)
	}
	if row.Exists {
		r.told.Names = append(r.told.Names, row.Name)
	}
	if row.Complete {
		r.told.Complete = append(r.told.Complete, row.Name)
	}
	return nil
}

func (r *imageReader) addPart(row *partRow) error {
	if row.Node == "" || row.Service == "" {
		return errors.New("contents without a node or a service")
	}
	for _, s := range row.Services {
		if s == nil || nameKey(s.Service) != row.Service {
			return fmt.Errorf("an instance on node %q is not of service %q", row.Node, row.Service)
		}
	}
	if err := checksOn(row.Node, row.Checks); err != nil {
		return err
	}
	r.told.Parts = append(r.told.Parts, catalog.Part{Node: row.Node, Service: row.Service, Services: row.Services, Checks: row.Checks})
	return nil
}

func (r *imageReader) addLife(row *lifeRow) error {
	if row.Life > uint8(Left) {
		return fmt.Errorf("life %d of node %q is unknown", row.Life, row.NodeID)
	}
	r.into.Lives = append(r.into.Lives, LifeOf{row.NodeID, row.Name, Life(row.Life), timeOf(row.Since)})
	return nil
}

// nanos is a time as it is written: 0 for the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}
