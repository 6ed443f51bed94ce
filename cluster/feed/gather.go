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
	records [][]byte
	names   []string // told in full
	frame   []byte
}

var gatherers = sync.Pool{New: func() any { return new(gatherer) }}

func (g *gatherer) entry(e *entry)       { g.records = append(g.records, e.record) }
func (g *gatherer) complete(name string) { g.names = append(g.names, name) }

func (g *gatherer) release() {
	clear(g.records)
	clear(g.names)
	g.records, g.names = g.records[:0], g.names[:0]
	if cap(g.frame) <= 4*frame.Full && cap(g.records) <= 4096 && cap(g.names) <= 4096 {
		gatherers.Put(g)
	}
}

// send writes the update whose head is given.
func (g *gatherer) send(conn net.Conn, head *catalog.Update) (written int, err error) {
	if len(g.names) > 0 {
		g.records = append(g.records, frame.Records(&catalog.Update{Complete: g.names}))
	}
	written, g.frame, err = frame.WriteUpdate(patientWriter{conn}, g.frame, head, g.records...)
	return written, err
}

// patientWriter gives a host patience for each write.
type patientWriter struct{ net.Conn }

func (w patientWriter) Write(b []byte) (int, error) {
	w.SetWriteDeadline(time.Now().Add(patience))
	return w.Conn.Write(b)
}
