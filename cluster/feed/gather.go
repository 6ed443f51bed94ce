package feed

import (
	"net"
	"sync"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/feed/frame"
)

// gatherer turns what advance tells into frames. Idle streams hold none.
type gatherer struct {
	head    catalog.Update
	records [][]byte
	names   []string // told in full
	frame   []byte
	conn    net.Conn
}

var gatherers = sync.Pool{New: func() any { return new(gatherer) }}

func (g *gatherer) entry(e *entry)       { g.records = append(g.records, e.record) }
func (g *gatherer) complete(name string) { g.names = append(g.names, name) }

func (g *gatherer) release() {
	g.head = catalog.Update{}
	clear(g.records)
	clear(g.names)
	g.records, g.names = g.records[:0], g.names[:0]
	if cap(g.frame) <= 4*frame.Full && cap(g.records) <= 4096 && cap(g.names) <= 4096 {
		gatherers.Put(g)
	}
}

// send writes the update.
func (g *gatherer) send(conn net.Conn) (written int, err error) {
	if len(g.names) > 0 {
		g.records = append(g.records, frame.Records(&catalog.Update{Complete: g.names}))
	}
	g.conn = conn
	written, g.frame, err = frame.WriteUpdate(g, g.frame, &g.head, g.records...)
	g.conn = nil
	return written, err
}

// Write writes a frame, for which the host has patience.
func (g *gatherer) Write(b []byte) (int, error) {
	g.conn.SetWriteDeadline(time.Now().Add(patience))
	return g.conn.Write(b)
}
