//go:build !linux

package forwarder

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
)

// sockets gives each question a connected socket of its own, on a port that the
// system picks.
type sockets struct {
	chance chance
	wg     sync.WaitGroup
}

func newSockets() *sockets { return new(sockets) }

type socket struct {
	conn net.Conn

	mu      sync.Mutex // guards following, and what its waiter was told
	dropped bool
}

// send sends packet, which gets a random ID, and listens for w, or tells w why it
// can't. The caller must call drop.
func (p *sockets) send(w *waiter, packet []byte) {
	var d net.Dialer
	conn, err := d.DialContext(context.Background(), "udp", w.srv.addr.String())
	if err != nil {
		w.to.told <- told{to: w.to, err: err}
		return
	}
	w.id, w.packet, w.sock = p.chance.uint16(), packet, &socket{conn: conn}
	binary.BigEndian.PutUint16(packet, w.id)
	p.wg.Go(func() { w.listen() })
	if _, err = conn.Write(packet); err != nil {
		w.receive(nil, err)
	}
}

// flush has nothing left to do.
func (p *sockets) flush() {}

func (p *sockets) isSent(w *waiter) bool { return w.sock != nil }

func (w *waiter) listen() {
	buf := make([]byte, readBuffer)
	for {
		n, err := w.sock.conn.Read(buf)
		if w.receive(buf[:n], err); err != nil {
			return
		}
	}
}

func (w *waiter) receive(msg []byte, err error) {
	w.sock.mu.Lock()
	defer w.sock.mu.Unlock()
	switch {
	case w.sock.dropped:
	case err != nil:
		w.complete(heard{}, err)
	case len(msg) >= 2 && binary.BigEndian.Uint16(msg) == w.id:
		w.hear(msg)
	default:
		w.mismatch()
	}
}

// again sends packet once more; an error shows as an event.
func (w *waiter) again(packet []byte) { w.sock.conn.Write(packet) }

// drop ends the interest in replies to w and returns what came of it.
func (p *sockets) drop(w *waiter) event {
	if w.sock == nil {
		return event{}
	}
	w.sock.mu.Lock()
	defer w.sock.mu.Unlock()
	w.sock.dropped = true
	w.sock.conn.Close()
	return w.event
}

// run waits for those that listen.
func (p *sockets) run(ctx context.Context) {
	<-ctx.Done()
	p.wg.Wait()
}
