package feed

import (
	"encoding/binary"
	"net"
	"sync"
	"time"
)

// gatherer turns what advance tells into frames. Idle streams hold none.
type gatherer struct {
	records [][]byte
	names   encoder
	frame   []byte
}

var gatherers = sync.Pool{New: func() any { return new(gatherer) }}

func (g *gatherer) entry(e *entry)       { g.records = append(g.records, e.record) }
func (g *gatherer) complete(name string) { g.names.named(recordComplete, name) }

func (g *gatherer) release() {
	clear(g.records)
	g.records, g.names.out = g.records[:0], g.names.out[:0]
	if cap(g.frame) <= 4*fullFrame && cap(g.records) <= 4096 {
		gatherers.Put(g)
	}
}

// send writes the update in frames that stay small, unless a record isn't.
func (g *gatherer) send(conn net.Conn, b batch) (written int, err error) {
	if len(g.names.out) > 0 {
		g.records = append(g.records, g.names.out)
	}
	h := b.head()
	g.begin(h)
	for _, records := range g.records {
		for len(records) > 0 {
			if len(g.frame) >= fullFrame {
				n, err := g.flush(conn, flagMore)
				if written += n; err != nil {
					return written, err
				}
				g.begin(h)
			}
			n := len(records)
			if len(g.frame)+n > fullFrame {
				n = firstRecord(records)
			}
			g.frame = append(g.frame, records[:n]...)
			records = records[n:]
		}
	}
	n, err := g.flush(conn, 0)
	return written + n, err
}

func (b batch) head() head {
	h := head{Index: b.index, History: b.history}
	if b.reset {
		h.Flags |= flagReset | flagHistory
	}
	if b.whole {
		h.Flags |= flagWhole
	}
	if b.confirmed {
		h.Flags |= flagConfirmed
	}
	return h
}

// begin begins a frame.
func (g *gatherer) begin(h head) {
	var e encoder
	h.encode(&e)
	g.frame = append(appendFrame(g.frame[:0], frameUpdate), e.body...)
}

// flush writes the frame; further are added to its flags.
func (g *gatherer) flush(conn net.Conn, further uint64) (int, error) {
	g.frame[5] |= byte(further) // all flags are in the first octet of the payload
	conn.SetWriteDeadline(time.Now().Add(patience))
	return conn.Write(finishFrame(g.frame, 0))
}

// firstRecord returns the length of the first of the records.
func firstRecord(records []byte) int {
	n, size := binary.Uvarint(records[1:])
	return 1 + size + int(n)
}
