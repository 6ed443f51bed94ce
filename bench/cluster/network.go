package main

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// retransmit is what the loss of a packet costs a stream: Linux's least retransmission time.
const retransmit = 200 * time.Millisecond

// network dials from an address, counts octets, and delays them if wanted.
type network struct {
	from    netip.Addr
	wires   *wires
	latency time.Duration // one way
	loss    float64       // share of reads and writes that come late
}

// Listen implements link.Network.
func (n *network) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, network, address)
}

// DialContext implements link.Network.
func (n *network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(n.from, 0))}
	nc, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &conn{nc.(*net.TCPConn), n}, nil
}

// conn counts what goes over a connection. Delay is simulated: each read and write takes it. What is on its way does not
// overlap, so that what is long takes longer than on a real network.
type conn struct {
	*net.TCPConn
	network *network
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	c.network.wires.in.Add(int64(n))
	c.network.delay()
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	c.network.delay()
	n, err := c.TCPConn.Write(b)
	c.network.wires.out.Add(int64(n))
	return n, err
}

func (n *network) delay() {
	d := n.latency
	if n.loss > 0 && rand.Float64() < n.loss {
		d += retransmit
	}
	if d > 0 {
		time.Sleep(d)
	}
}
