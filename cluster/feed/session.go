package feed

import (
	"errors"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/feed/frame"
)

// Version is the newest form of the protocol that this program speaks. Both
// ends say theirs and neither minds the other's: what is newer is left unread.
// A form that can't be read so has another [Protocol].
const Version = 1

// What is said on a stream is frames, as the package frame has them. From the
// host come
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
	// maxHostFrame bounds a frame from a host: MaxNames names of the longest.
	maxHostFrame = 2 << 20
	// maxFirstFrame bounds the first frame of either side.
	maxFirstFrame = 4 << 10
)

// hello is the first frame of both sides.
type hello struct {
	Version uint8
	// Of the host:
	NodeID, Datacenter string
	// Of the server:
	Leader bool // it hears from a leader
	// Every is how often it wants a word from the host, in whole milliseconds; 0:
	// each heartbeat.
	Every time.Duration
}

func (h hello) frame() []byte {
	return frame.New(frame.Hello, func(e *frame.Encoder) {
		e.Number(uint64(h.Version))
		e.Strings(h.NodeID, h.Datacenter)
		e.Flags(h.Leader)
		if h.Every > 0 {
			e.Number(uint64(h.Every.Milliseconds()))
		}
	})
}

func decodeHello(b []byte) (hello, error) {
	f := frame.NewFields(b)
	h := hello{Version: uint8(f.Number()), NodeID: f.String(), Datacenter: f.String(), Leader: f.Number()&1 != 0}
	if f.More() {
		h.Every = time.Duration(min(f.Number(), uint64(maxEvery.Milliseconds()))) * time.Millisecond
	}
	if f.Err() == nil && h.Version == 0 {
		return hello{}, errors.New("hello: no version")
	}
	return h, f.Err()
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
	return frame.New(frame.Begin, func(e *frame.Encoder) {
		e.History(g.History)
		e.Number(g.Index)
		e.Flags(g.Whole, g.Anew)
		e.List(g.Names)
	})
}

func decodeBegin(b []byte) (begin, error) {
	f := frame.NewFields(b)
	g := begin{History: f.History(), Index: f.Number()}
	bits := f.Number()
	g.Whole, g.Anew = bits&1 != 0, bits&2 != 0
	g.Names = f.List()
	return g, f.Err()
}

func namesFrame(kind byte, names []string) []byte {
	return frame.New(kind, func(e *frame.Encoder) { e.List(names) })
}

func decodeNames(b []byte) ([]string, error) {
	f := frame.NewFields(b)
	names := f.List()
	return names, f.Err()
}

func awaitFrame(index uint64) []byte {
	return frame.New(frame.Await, func(e *frame.Encoder) { e.Number(index) })
}

func decodeAwait(b []byte) (uint64, error) {
	f := frame.NewFields(b)
	index := f.Number()
	return index, f.Err()
}

// move asks a host to go elsewhere.
type move struct {
	// Stopping says that the server ends; otherwise it has no leader, and the
	// host stays until another server says that it has one.
	Stopping bool
	Others   []string // link addresses of servers that may
}

func (m move) frame() []byte {
	return frame.New(frame.Move, func(e *frame.Encoder) {
		e.Flags(m.Stopping)
		e.List(m.Others)
	})
}

func decodeMove(b []byte) (move, error) {
	f := frame.NewFields(b)
	m := move{Stopping: f.Number()&1 != 0, Others: f.List()}
	return m, f.Err()
}
