package view

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/feed/frame"
)

// An export is written in the frames of a stream from a server (see the package
// frame). For each layer, the present history's first, come
//
//	confirmed  when a server that has a leader last vouched for it
//	update     what it tells; a Reset, if the layer has a base set
//
// and then
//
//	asked  names of services, and when each was last asked for
//	lives  of each node its ID, name, life, and since when
//	end    nothing follows
//
// A reader skips kinds that it doesn't know and fields that are left over.

// MaxExport bounds an encoded export, octets. A hundred thousand instances take
// less than half of it.
const MaxExport = 64 << 20

// numLives is how many kinds of lives this program knows.
const numLives = catalog.Left + 1

// ErrDamaged is in the chain of errors that say that bytes are no export any more:
// cut short, or changed.
var ErrDamaged = errors.New("cut short or garbled")

// encode writes the export as frames. Equal exports, in the same order, give
// equal bytes.
func (e *Export) encode(to io.Writer) error {
	w := &boundedWriter{to: to, left: MaxExport}
	layers := []*Layer{&e.Current, &e.Remembered}
	if e.Remembered.isEmpty() {
		layers = layers[:1]
	}
	for _, l := range layers {
		w.frame(frame.Confirmed, func(f *frame.Encoder) { f.Time(l.ConfirmedAt) })
		if err := frame.WriteWhole(w, &l.Update); err != nil {
			return fmt.Errorf("encode view: %w", err)
		}
	}
	w.frame(frame.Asked, func(f *frame.Encoder) {
		for _, name := range slices.Sorted(maps.Keys(e.Asked)) {
			f.Strings(name)
			f.Time(e.Asked[name])
		}
	})
	w.frame(frame.Lives, func(f *frame.Encoder) {
		for _, l := range e.Lives {
			f.Strings(l.NodeID, l.Name)
			f.Number(uint64(l.Life))
			f.Time(l.Since)
		}
	})
	w.frame(frame.End, nil)
	if w.err != nil {
		return fmt.Errorf("encode view: %w", w.err)
	}
	return nil
}

// boundedWriter writes until that fails, and no more than left.
type boundedWriter struct {
	to   io.Writer
	left int
	err  error
}

func (w *boundedWriter) frame(kind byte, fill func(*frame.Encoder)) {
	_, _ = w.Write(frame.New(kind, fill)) // an error stays in w
}

func (w *boundedWriter) Write(b []byte) (n int, err error) {
	if w.left -= len(b); w.left < 0 && w.err == nil {
		w.err = fmt.Errorf("more than %d bytes", MaxExport)
	}
	if w.err == nil {
		n, w.err = w.to.Write(b)
	}
	return n, w.err
}

// readExport reads what encode wrote, to its end and no further. What can't be
// read has ErrDamaged in the chain of its error.
func readExport(r io.Reader) (*Export, error) {
	x := exportReader{export: &Export{}}
	r = io.LimitReader(r, MaxExport)
	var buf []byte
	for {
		kind, payload, grown, err := frame.Read(r, buf, frame.Max)
		if err == nil {
			err = x.add(kind, payload)
		}
		if err != nil {
			return nil, fmt.Errorf("decode view: %w: %w", ErrDamaged, err)
		}
		if kind == frame.End {
			return x.export, nil
		}
		buf = grown
	}
}

// exportReader puts an export together.
type exportReader struct {
	export  *Export
	layer   Layer // in the making
	layers  int   // that are whole
	updates frame.Updates
}

func (x *exportReader) add(kind byte, payload []byte) error {
	f := frame.NewFields(payload)
	switch kind {
	case frame.Confirmed:
		x.layer = Layer{ConfirmedAt: f.Time()}
		x.updates.Continue(catalog.History{})
	case frame.Update:
		u, whole, err := x.updates.Add(payload)
		if err != nil || !whole {
			return err
		}
		return x.addLayer(u)
	case frame.Asked:
		x.export.Asked = make(map[string]time.Time)
		for f.More() {
			name := f.String()
			x.export.Asked[name] = f.Time()
		}
	case frame.Lives:
		for f.More() {
			l := LifeOf{NodeID: f.String(), Name: f.String(), Life: catalog.Life(min(f.Number(), uint64(numLives))), Since: f.Time()}
			if l.Life < numLives { // one that this program knows
				x.export.Lives = append(x.export.Lives, l)
			}
		}
	}
	return f.Err()
}

func (x *exportReader) addLayer(u catalog.Update) error {
	x.layer.Update = u
	x.layer.Confirmed = false // nobody vouches for it here
	switch x.layers++; x.layers {
	case 1:
		x.export.Current = x.layer
	case 2:
		x.export.Remembered = x.layer
	default:
		return errors.New("a third layer")
	}
	return nil
}
