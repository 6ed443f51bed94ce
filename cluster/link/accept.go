package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// acceptPause is how long to wait when the kernel has no descriptors or memory
// for another connection.
const acceptPause = 100 * time.Millisecond

// accept takes connections until ctx ends or the port is lost.
func (l *Link) accept(ctx context.Context, wg *sync.WaitGroup) error {
	for {
		nc, err := l.listener.Accept()
		switch {
		case err == nil:
			l.admit(ctx, wg, nc)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("link: %s was closed: %w", l.listener.Addr(), err)
		default:
			if l.complain.may("accept", time.Now()) {
				l.logger.Error("cannot take connections of other hosts, will try again", "err", err)
			}
			timer := time.NewTimer(acceptPause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return nil
			case <-timer.C:
			}
		}
	}
}

// admit begins a handshake, or drops the connection.
func (l *Link) admit(ctx context.Context, wg *sync.WaitGroup, nc net.Conn) {
	from := remoteAddr(nc)
	place, err := l.admission.enter(from, time.Now())
	if err != nil {
		l.metrics.shut.WithLabelValues(err.Error()).Inc()
		if l.complain.may("admission "+err.Error(), time.Now()) {
			l.logger.Warn("too many connections of other hosts: some are dropped", "limit", err, "addr", from)
		}
		_ = (&conn{Conn: nc}).abort()
		return
	}
	c := &conn{Conn: nc, onClose: func(*conn) { place.leave() }}
	wg.Go(func() {
		err := l.handshake(ctx, c, place)
		if err != nil {
			l.logRefused(ctx, from, err)
			_ = c.Close()
		}
	})
}

// handshake authenticates a connection and hands it to the handler of its protocol. It leaves
// c open and on the books, or returns an error.
func (l *Link) handshake(ctx context.Context, c *conn, place *place) error {
	defer place.handshaken()
	ctx, cancel := context.WithTimeout(ctx, l.cfg.HandshakeTimeout)
	defer cancel()
	release, err := place.turn(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errBusy, err)
	}
	defer release()
	st := l.current()
	tc := tls.Server(c, st.server)
	if err := tc.HandshakeContext(ctx); err != nil {
		return err
	}
	cs := tc.ConnectionState()
	if err := c.identify(st, cs); err != nil {
		return err
	}
	return l.join(ctx, tc, c, place, Protocol(cs.NegotiatedProtocol))
}

var errBusy = errors.New("no turn for its handshake in time")

// join sends the peer the join ack, or why not, and hands it over.
func (l *Link) join(ctx context.Context, tc *tls.Conn, c *conn, place *place, p Protocol) error {
	stop := context.AfterFunc(ctx, func() { _ = tc.NetConn().Close() })
	defer stop()
	n := l.handler(p)
	switch {
	case n == nil:
		_, err := tc.Write(refusal("nobody listens for " + string(p) + " any more"))
		return errors.Join(fmt.Errorf("%w: nobody listens for %s any more", ErrRefused, p), err)
	case !place.join(c.peer.ID):
		text := "one host may have no more connections than limits.rpc_max_conns_per_client, and node ID " + c.peer.ID + " has"
		_, err := tc.Write(refusal(text))
		return errors.Join(fmt.Errorf("%w: %s", ErrRefused, text), err)
	case !n.reserve():
		_, err := tc.Write(refusal("too many connections for " + string(p) + " wait already"))
		return errors.Join(fmt.Errorf("%w: too many connections for %s wait", ErrRefused, p), err)
	}
	gauge := l.metrics.conns.WithLabelValues("in", string(p))
	gauge.Inc()
	err := l.register(c)
	leave := func(c *conn) {
		l.forget(c)
		gauge.Dec()
	}
	if !c.atClose(func(c *conn) { leave(c); place.leave() }) {
		leave(c) // its time was over just now, and only its place is given back
	}
	if err == nil {
		_, err = tc.Write(joinAck())
	}
	if err != nil || !stop() {
		<-n.places
		return errors.Join(err, context.Cause(ctx))
	}
	l.metrics.accepted.Inc()
	n.give(tc)
	return nil
}

// logRefused says, not too often, why a connection came to nothing.
func (l *Link) logRefused(ctx context.Context, from netip.Addr, err error) {
	if ctx.Err() != nil {
		return // this host stops
	}
	reason, text := explainAccept(err)
	l.metrics.failed.WithLabelValues(reason).Inc()
	if !l.complain.may(reason+" "+from.String(), time.Now()) {
		return
	}
	if reason == "gone" {
		l.logger.Debug("a connection went away before it said who it is", "addr", from, "err", err)
		return
	}
	l.logger.Warn("a host was refused: "+text, "addr", from, "err", err)
}

// explainAccept puts the end of a handshake into an operator's words, and into a
// metric's label.
func explainAccept(err error) (reason, words string) {
	text := err.Error()
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, ErrKey):
		return "key", "its encrypt key is not in this host's keyring"
	case strings.Contains(text, "remote error: tls: bad certificate"):
		return "key", "it does not know this host's encrypt key: the keys differ"
	case strings.Contains(text, "didn't provide a certificate"), errors.Is(err, errCertificate):
		return "certificate", "it has no certificate made from an encrypt key, so it is not meibo"
	case errors.Is(err, ErrProtocol), strings.Contains(text, "unsupported application protocols"):
		return "protocol", "it asks for what this host does not offer (is this host no server, or of another version?)"
	case errors.As(err, &record):
		return "tls", "it does not speak TLS: something else was pointed at ports.server"
	case errors.Is(err, ErrRefused):
		return "refused", "this host has no room for it"
	case errors.Is(err, errBusy):
		return "busy", "too many others are at it at once"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout", "it did not finish its handshake in time"
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), strings.Contains(text, "connection reset"):
		return "gone", ""
	}
	return "tls", "its handshake went wrong"
}
