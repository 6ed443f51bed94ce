package frame

import (
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"meibo/cluster/catalog"
)

// Encoder writes fields: the payload of a frame, or the bodies of records. The
// zero value is ready.
type Encoder struct {
	body []byte
	out  []byte // records that are finished
	// full takes them whenever they would fill a frame; nil: nobody does.
	full func(records []byte)
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
		e.text(s)
	}
}

func (e *Encoder) text(s string) {
	e.Number(uint64(len(s)))
	e.body = append(e.body, s...)
}

// List writes a list of strings.
func (e *Encoder) List(list []string) {
	e.Number(uint64(len(list)))
	e.Strings(list...)
}

func (e *Encoder) pairs(m map[string]string) {
	e.Number(uint64(len(m)))
	if len(m) == 0 {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e.Strings(k, m[k])
	}
}

func (e *Encoder) addresses(m map[string]catalog.ServiceAddress) {
	e.Number(uint64(len(m)))
	if len(m) == 0 {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e.Strings(k, m[k].Address)
		e.integer(m[k].Port)
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
	if e.full != nil && len(e.out) >= Full {
		e.full(e.out)
		e.out = e.out[:0]
	}
}

// named writes a record for each of the names.
func (e *Encoder) named(kind byte, names []string) {
	for _, name := range names {
		e.Strings(name)
		e.end(kind)
	}
}
