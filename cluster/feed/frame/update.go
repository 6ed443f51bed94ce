package frame

import (
	"encoding/binary"
	"fmt"
	"io"

	"meibo/cluster/catalog"
)

// Flags of an update.
const (
	flagReset uint64 = 1 << iota
	flagWhole
	flagConfirmed
	flagHistory // the history follows the index
	flagMore    // the update goes on in the next frame
)

// MaxUpdate bounds what is taken for one update, encoded.
const MaxUpdate = 256 << 20

// encodeHead writes what stands before the records of an update: all that is not
// a record in it. The history is told if it has an ID; else it is that of the update before.
func encodeHead(e *Encoder, u *catalog.Update) {
	hasHistory := u.History.ID != ""
	e.Flags(u.Reset, u.Whole, u.Confirmed, hasHistory)
	e.Number(u.Index)
	if hasHistory {
		e.History(u.History)
	}
}

// WriteUpdate writes an update: the head of u, and records in place of what u
// holds, in frames that stay small unless a record isn't. It makes them in buf,
// which it returns grown if need be, and writes each frame at once.
func WriteUpdate(w io.Writer, buf []byte, u *catalog.Update, records ...[]byte) (written int, grown []byte, err error) {
	f := newUpdateFrames(w, buf, u)
	for _, run := range records {
		f.add(run)
	}
	f.flush(0)
	return f.written, f.buf, f.err
}

// WriteWhole writes an update with all that it holds, in the frames that
// WriteUpdate would make of its records, and holds no more than one of them.
func WriteWhole(w io.Writer, u *catalog.Update) error {
	f := newUpdateFrames(w, nil, u)
	e := Encoder{full: f.add}
	e.records(u)
	f.add(e.out)
	f.flush(0)
	return f.err
}

// updateFrames makes the frames of an update, and writes them until that fails.
type updateFrames struct {
	w       io.Writer
	head    Encoder
	buf     []byte // the frame in the making
	written int
	err     error
}

func newUpdateFrames(w io.Writer, buf []byte, u *catalog.Update) *updateFrames {
	f := &updateFrames{w: w, buf: buf}
	encodeHead(&f.head, u)
	f.start()
	return f
}

func (f *updateFrames) start() { f.buf = append(begin(f.buf, Update), f.head.body...) }

func (f *updateFrames) add(run []byte) {
	for len(run) > 0 && f.err == nil {
		if len(f.buf) >= Full {
			f.flush(flagMore)
			f.start()
		}
		n := len(run)
		if len(f.buf)+n > Full {
			n = firstRecord(run)
		}
		f.buf = append(f.buf, run[:n]...)
		run = run[n:]
	}
}

func (f *updateFrames) flush(further uint64) {
	if f.err == nil && len(f.buf) > Max+5 {
		f.err = fmt.Errorf("a frame of %d bytes, more than %d", len(f.buf), Max)
	}
	if f.err != nil {
		return
	}
	f.buf[5] |= byte(further) // all flags are in the first octet of the payload
	var n int
	n, f.err = f.w.Write(finish(f.buf))
	f.written += n
}

// firstRecord returns the length of the first of the records.
func firstRecord(records []byte) int {
	n, size := binary.Uvarint(records[1:])
	return 1 + size + int(n)
}

// Updates puts updates together from the payloads of their frames. The zero value
// is ready; it is for one sender.
type Updates struct {
	records decoder
	history catalog.History
	size    int
}

// Continue says which history updates are of that don't begin with a Reset.
func (u *Updates) Continue(h catalog.History) { u.history = h }

// Add takes the payload of a frame, and returns the update and true when it is
// whole.
func (u *Updates) Add(payload []byte) (update catalog.Update, whole bool, err error) {
	if u.size += len(payload); u.size > MaxUpdate {
		return update, false, fmt.Errorf("an update of more than %d bytes", MaxUpdate)
	}
	f := Fields{b: payload}
	flags, index := f.Number(), f.Number()
	if flags&flagHistory != 0 {
		u.history = f.History()
	}
	if f.err != nil {
		return update, false, fmt.Errorf("update: %w", f.err)
	}
	if err := u.records.decode(f.b); err != nil {
		return update, false, fmt.Errorf("update: %w", err)
	}
	if flags&flagMore != 0 {
		return update, false, nil
	}
	update = u.records.flush()
	u.size = 0
	update.History, update.Index = u.history, index
	update.Reset, update.Whole, update.Confirmed = flags&flagReset != 0, flags&flagWhole != 0, flags&flagConfirmed != 0
	return update, true, nil
}
