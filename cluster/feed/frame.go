package feed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"meibo/cluster/catalog"
)

// Version is the newest form of the protocol that this program speaks. Both
// ends say theirs and neither minds the other's: what is newer is left unread.
// A form that can't be read so has another [Protocol].
const Version = 1

// A frame is the length of what follows, four octets, most significant first;
// a kind; and the payload. Unknown kinds are skipped. From the host come
//
//	hello        who it is
//	begin        where its knowledge ends; then updates flow
//	subscribe    names
//	unsubscribe  names
//	beat         it is there
//	await        an index: it wants to hear when that is reached
//
// and from the server
//
//	hello   the server's version, and whether it hears from a leader
//	update  flags, index, (history), records
//	move    go elsewhere: why, and where there is a leader
//	refuse  the stream can't be: why
const (
	frameHello       byte = 1
	frameBegin       byte = 2
	frameSubscribe   byte = 3
	frameUnsubscribe byte = 4
	frameBeat        byte = 5
	frameUpdate      byte = 6
	frameMove        byte = 7
	frameRefuse      byte = 8
	frameAwait       byte = 9
)

const (
	// maxFrame bounds a frame from a server. Records run to a few hundred
	// kilobytes at most (a check whose output fills an API request).
	maxFrame = 8 << 20
	// maxHostFrame bounds one from a host: MaxNames names of the longest.
	maxHostFrame = 2 << 20
	// maxFirstFrame bounds the first frame of either side.
	maxFirstFrame = 4 << 10
	// fullFrame is where a server ends a frame and goes on in the next.
	fullFrame = 32 << 10
)

// Flags of an update frame.
const (
	flagReset uint64 = 1 << iota
	flagWhole
	flagConfirmed
	flagHistory // the history follows the index
	flagMore    // the update goes on in the next frame
)

// appendFrame begins a frame at the end of b; finishFrame fills in its length.
func appendFrame(b []byte, kind byte) []byte { return append(b, 0, 0, 0, 0, kind) }

func finishFrame(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

// frame returns a frame with the payload that fill writes.
func frame(kind byte, fill func(*encoder)) []byte {
	var e encoder
	if fill != nil {
		fill(&e)
	}
	return finishFrame(append(appendFrame(nil, kind), e.body...), 0)
}

// readFrame reads a frame of at most limit octets into buf, which it returns
// grown if need be.
func readFrame(r io.Reader, buf []byte, limit int) (kind byte, payload, grown []byte, err error) {
	if cap(buf) < 5 {
		buf = make([]byte, 512)
	}
	if _, err := io.ReadFull(r, buf[:5]); err != nil {
		return 0, nil, buf, err
	}
	n, kind := int64(binary.BigEndian.Uint32(buf))-1, buf[4]
	if n < 0 {
		return 0, nil, buf, errors.New("a frame of no length")
	}
	if n > int64(limit) {
		return 0, nil, buf, fmt.Errorf("a frame of kind %d has %d bytes, more than %d", kind, n, limit)
	}
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, buf, err
	}
	return kind, buf[:n], buf, nil
}

// hello is the first frame of both sides.
type hello struct {
	Version uint8
	// Of the host:
	NodeID, Datacenter string
	// Of the server:
	Leader bool // it hears from a leader
}

func (h hello) frame() []byte {
	return frame(frameHello, func(e *encoder) {
		e.number(uint64(h.Version))
		e.strings(h.NodeID, h.Datacenter)
		e.flags(h.Leader)
	})
}

func decodeHello(b []byte) (hello, error) {
	f := fields{b: b}
	h := hello{Version: uint8(f.number()), NodeID: f.string(), Datacenter: f.string(), Leader: f.number()&1 != 0}
	if f.err == nil && h.Version == 0 {
		return hello{}, errors.New("hello: no version")
	}
	return h, f.err
}

// begin is where a host's knowledge ends.
type begin struct {
	History catalog.History
	Index   uint64
	Whole   bool
	Names   []string
	// Anew asks for a Reset whatever is known.
	Anew bool
}

func (g begin) frame() []byte {
	return frame(frameBegin, func(e *encoder) {
		encodeHistory(e, g.History)
		e.number(g.Index)
		e.flags(g.Whole, g.Anew)
		e.list(g.Names)
	})
}

func decodeBegin(b []byte) (begin, error) {
	f := fields{b: b}
	g := begin{History: decodeHistory(&f), Index: f.number()}
	bits := f.number()
	g.Whole, g.Anew = bits&1 != 0, bits&2 != 0
	g.Names = f.list()
	return g, f.err
}

func encodeHistory(e *encoder, h catalog.History) {
	e.strings(h.ID)
	e.number(h.Base)
	e.flags(h.Provisional)
}

func decodeHistory(f *fields) catalog.History {
	return catalog.History{ID: f.string(), Base: f.number(), Provisional: f.number()&1 != 0}
}

func namesFrame(kind byte, names []string) []byte {
	return frame(kind, func(e *encoder) { e.list(names) })
}

func decodeNames(b []byte) ([]string, error) {
	f := fields{b: b}
	names := f.list()
	return names, f.err
}

func awaitFrame(index uint64) []byte {
	return frame(frameAwait, func(e *encoder) { e.number(index) })
}

func decodeAwait(b []byte) (uint64, error) {
	f := fields{b: b}
	index := f.number()
	return index, f.err
}

// move asks a host to go elsewhere.
type move struct {
	// Stopping says that the server ends; otherwise it has no leader, and the
	// host stays until another server says that it has one.
	Stopping bool
	Others   []string // link addresses of servers that may
}

func (m move) frame() []byte {
	return frame(frameMove, func(e *encoder) {
		e.flags(m.Stopping)
		e.list(m.Others)
	})
}

func decodeMove(b []byte) (move, error) {
	f := fields{b: b}
	m := move{Stopping: f.number()&1 != 0, Others: f.list()}
	return m, f.err
}

// head is what stands before the records of an update frame.
type head struct {
	Flags   uint64
	Index   uint64
	History catalog.History // with flagHistory
}

func (h head) encode(e *encoder) {
	e.number(h.Flags)
	e.number(h.Index)
	if h.Flags&flagHistory != 0 {
		encodeHistory(e, h.History)
	}
}

func decodeHead(f *fields) head {
	h := head{Flags: f.number(), Index: f.number()}
	if h.Flags&flagHistory != 0 {
		h.History = decodeHistory(f)
	}
	return h
}
