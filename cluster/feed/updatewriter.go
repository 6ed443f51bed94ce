package feed

import (
	"net"
	"sync"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/feed/frame"
)

// updateWriter gathers what advance tells, and writes it. Idle streams hold none.
type updateWriter struct {
	head    catalog.Update
	records [][]byte
	names   []string // told in full
	frame   []byte
	conn    net.Conn
}

var updateWriters = sync.Pool{New: func() any { return new(updateWriter) }}

func (w *updateWriter) entry(e *entry)       { w.records = append(w.records, e.record) }
func (w *updateWriter) complete(name string) { w.names = append(w.names, name) }

func (w *updateWriter) release() {
	w.head = catalog.Update{}
	clear(w.records)
	clear(w.names)
	w.records, w.names = w.records[:0], w.names[:0]
	if cap(w.frame) <= 4*frame.Full && cap(w.records) <= 4096 && cap(w.names) <= 4096 {
		updateWriters.Put(w)
	}
}

// send writes the update.
func (w *updateWriter) send(conn net.Conn) (written int, err error) {
	if len(w.names) > 0 {
		w.records = append(w.records, frame.Records(&catalog.Update{Complete: w.names}))
	}
	w.conn = conn
	written, w.frame, err = frame.WriteUpdate(w, w.frame, &w.head, w.records...)
	w.conn = nil
	return written, err
}

// Write writes a frame, for which the host has patience.
func (w *updateWriter) Write(b []byte) (int, error) {
	w.conn.SetWriteDeadline(time.Now().Add(patience))
	return w.conn.Write(b)
}
