// Package frame is how the catalog is written where it leaves the process: on a
// stream from a server to a host, in the file of the last known good view, and in
// what a neighbour answers. It knows nothing of who reads or writes.
//
// A frame is the length of what follows, four octets, most significant first; a
// kind; and the payload. Whoever reads skips kinds it doesn't know. The payload of
// an update is a head and a run of records (see [Encoder]); an update that is long
// goes on in further frames (see [WriteUpdate] and [Updates]).
package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Kinds of frames, one list for all that is written in them. Numbers are never
// used again. Those of a stream are told of in the package feed, those of a file
// and of a neighbour's answer in the package view.
const (
	Hello       byte = 1
	Begin       byte = 2
	Subscribe   byte = 3
	Unsubscribe byte = 4
	Beat        byte = 5
	Update      byte = 6
	Move        byte = 7
	Refuse      byte = 8
	Await       byte = 9
	Owner       byte = 10
	Confirmed   byte = 11
	Asked       byte = 12
	Lives       byte = 13
	End         byte = 14
)

const (
	// Max bounds a frame. Records run to a few hundred kilobytes at most (a check
	// whose output fills an API request).
	Max = 8 << 20
	// Full is where an update ends a frame and goes on in the next.
	Full = 32 << 10
)

// New returns a frame with the payload that fill writes; nil: an empty one.
func New(kind byte, fill func(*Encoder)) []byte {
	var e Encoder
	if fill != nil {
		fill(&e)
	}
	return finish(append(begin(nil, kind), e.body...))
}

// begin begins a frame in b; finish fills in its length.
func begin(b []byte, kind byte) []byte { return append(b[:0], 0, 0, 0, 0, kind) }

func finish(b []byte) []byte {
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// Read reads a frame whose payload has at most limit octets into buf, which it
// returns grown if need be. The error is io.EOF at an end between two frames.
func Read(r io.Reader, buf []byte, limit int) (kind byte, payload, grown []byte, err error) {
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
