//go:build !linux

package forwarder

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net"
	"sync"
)

// sockets gives each question a connected socket of its own, on a port that the
// system picks.
type sockets struct{ wg sync.WaitGroup }

func newSockets() *sockets { return new(sockets) }

type socket struct{ conn net.Conn }

// ask sends what pack makes of a random ID and listens for w. The caller must call
// drop.
func (p *sockets) ask(w *waiter, pack func(id uint16) []byte) error {
	var d net.Dialer
	conn, err := d.DialContext(context.Background(), "udp", w.srv.addr.String())
	if err != nil {
		return err
	}
	var r [2]byte
	rand.Read(r[:])
	w.id, w.sock = binary.BigEndian.Uint16(r[:]), &socket{conn}
	packet := pack(w.id)
	p.wg.Go(func() { w.listen() })
	_, err = conn.Write(packet)
	return err
}

func (w *waiter) listen() {
	buf := make([]byte, readBuffer)
	for {
		n, err := w.sock.conn.Read(buf)
		switch {
		case err != nil:
			w.tell(event{err: err})
			return
		case n >= 2 && binary.BigEndian.Uint16(buf) == w.id:
			w.hear(buf[:n])
		default:
			w.mismatch()
		}
	}
}

// again sends packet once more; an error shows as an event.
func (w *waiter) again(packet []byte) { w.sock.conn.Write(packet) }

// drop ends the interest in replies to w.
func (p *sockets) drop(w *waiter) {
	if w.sock != nil {
		w.sock.conn.Close()
	}
}

// run waits for those that listen.
func (p *sockets) run(ctx context.Context) {
	<-ctx.Done()
	p.wg.Wait()
}
