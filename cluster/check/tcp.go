package check

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// tcpProber connects, and shakes hands where TLS is asked for.
type tcpProber struct {
	def  *Definition
	more *TLS
}

func (p *tcpProber) probe(ctx context.Context) (status, output string) {
	conn, err := dialer().DialContext(ctx, "tcp", p.def.TCP)
	if err != nil {
		return Critical, err.Error()
	}
	defer conn.Close()
	if p.def.TCPUseTLS {
		if err := p.handshake(ctx, conn); err != nil {
			return Critical, err.Error()
		}
	}
	return Passing, fmt.Sprintf("TCP connect %s: Success", p.def.TCP)
}

// handshake speaks TLS on conn and leaves it at that.
func (p *tcpProber) handshake(ctx context.Context, conn net.Conn) error {
	if err := tls.Client(conn, tlsConfig(p.def, hostOf(p.def.TCP), p.more)).HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake with %s: %w", p.def.TCP, err)
	}
	return nil
}

// hostOf is the host of "host:port".
func hostOf(target string) string {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return target
	}
	return host
}

// udpProber sends a datagram. A host that refuses it says so by ICMP; silence
// passes, since UDP promises no answer.
type udpProber struct{ def *Definition }

// udpWait is how long a refusal may take. A target that stays silent passes, so
// that the check should not take its whole timeout each time.
const udpWait = time.Second

func (p *udpProber) probe(ctx context.Context) (status, output string) {
	conn, err := dialer().DialContext(ctx, "udp", p.def.UDP)
	if err != nil {
		return Critical, err.Error()
	}
	defer conn.Close()
	deadline := time.Now().Add(udpWait)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return Critical, err.Error()
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write([]byte(userAgent)); err != nil {
		return Critical, fmt.Sprintf("UDP write %s: %v", p.def.UDP, err)
	}
	_, err = conn.Read(make([]byte, 1))
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Critical, fmt.Sprintf("UDP connect %s: %v", p.def.UDP, err)
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return Passing, fmt.Sprintf("UDP connect %s: Success", p.def.UDP)
	}
	return Critical, fmt.Sprintf("UDP read %s: %v", p.def.UDP, err)
}
