package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"
)

// deadAfter is how long a peer may be silent on the wire: data unacknowledged, or
// probes of an idle connection unanswered.
const deadAfter = 3 * time.Second

// keepAlive probes an idle connection. Two seconds of silence and one probe
// unanswered are deadAfter.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 1}

// Errors of Dial, wrapped with the address and what to look at.
var (
	// ErrKey means that one end's key is not in the other's keyring.
	ErrKey = errors.New("the encrypt keys differ")
	// ErrProtocol means that nobody there listens for this protocol.
	ErrProtocol = errors.New("not spoken there")
	// ErrMisrouted means that another host answers at the address.
	ErrMisrouted = errors.New("another host answers there")
	// ErrRefused means that the host there is a member and would not take the
	// connection; the text has its reason.
	ErrRefused = errors.New("refused")
)

// Dial connects to the handler of a protocol on the host at addr ("ip:port"), which must have
// the node ID want unless that is empty. When it returns both ends have proven
// who they are and the handler there has the connection. It takes at most the
// handshake's time-out. The caller closes the connection; it breaks when its key
// leaves the ring or Run ends.
func (l *Link) Dial(ctx context.Context, addr string, p Protocol, want string) (*tls.Conn, error) {
	st := l.current()
	tc, err := l.dial(ctx, addr, p, want, st)
	if now := l.current(); err != nil && now.ring != st.ring && ctx.Err() == nil {
		tc, err = l.dial(ctx, addr, p, want, now) // the ring has changed under it
	}
	if err == nil {
		l.metrics.conns.WithLabelValues("out", string(p)).Inc()
		return tc, nil
	}
	reason, plain := explainDial(err)
	l.metrics.dialFailures.WithLabelValues(reason).Inc()
	err = fmt.Errorf("link to %s for %s: %w", addr, p, plain)
	if errors.Is(err, ErrKey) && l.complain.may("dial "+plain.Error(), time.Now()) {
		advice, level := "give both the same encrypt key", slog.LevelWarn
		if len(l.current().ring.authorities) > 1 {
			// As after a change of the key while this host was away: gossip tells it
			// which of its keys were removed, and no hand is wanted.
			advice, level = "the first of this host's keys is not that host's, another may be", slog.LevelInfo
		} else if l.cfg.KeysKept != "" {
			advice += "; this host's are those of " + l.cfg.KeysKept + ", which wins over the configuration"
		}
		l.logger.Log(ctx, level, "cannot speak to another host: "+advice, "addr", addr, "err", plain)
	}
	return nil, err
}

func (l *Link) dial(ctx context.Context, addr string, p Protocol, want string, st *state) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.HandshakeTimeout)
	defer cancel()
	nc, err := l.network.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc}
	cfg := st.client.Clone()
	cfg.NextProtos = []string{string(p)}
	tc := tls.Client(c, cfg)
	if err := l.greet(ctx, tc, c, st, want); err != nil {
		_ = c.abort()
		return nil, err
	}
	c.atClose(func(c *conn) {
		l.forget(c)
		l.metrics.conns.WithLabelValues("out", string(p)).Dec()
	})
	if err := l.register(c); err != nil {
		_ = c.abort()
		return nil, err
	}
	return tc, nil
}

// greet does the handshake and hears the other side's word on it: a client of
// TLS 1.3 is done before the server has looked at its certificate.
func (l *Link) greet(ctx context.Context, tc *tls.Conn, c *conn, st *state, want string) error {
	if err := tc.HandshakeContext(ctx); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = tc.SetReadDeadline(time.Unix(1, 0)) })
	err := readJoinAck(tc)
	if !stop() {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if err := c.identify(st, tc.ConnectionState()); err != nil {
		return err
	}
	if want != "" && c.peer.ID != want {
		return fmt.Errorf("%w: %s (node ID %s) instead of node ID %s", ErrMisrouted, c.peer.Name, c.peer.ID, want)
	}
	return nil
}

// A server's first octet is its word on the connection: zero is the join ack, else
// the length of the reason why not.
func joinAck() []byte { return []byte{0} }

func refusal(text string) []byte {
	text = text[:min(len(text), 255)]
	return append([]byte{byte(len(text))}, text...)
}

func readJoinAck(r io.Reader) error {
	var b [256]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return err
	}
	n := int(b[0])
	if n == 0 {
		return nil
	}
	if _, err := io.ReadFull(r, b[1:n+1]); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", ErrRefused, strings.ToValidUTF8(string(b[1:n+1]), "?"))
}

// explainDial puts an error into an operator's words, and into a metric's label.
func explainDial(err error) (reason string, plain error) {
	text := err.Error()
	switch {
	case errors.Is(err, ErrKey):
		return "key", err
	case errors.Is(err, errCertificate):
		return "key", fmt.Errorf("%w: %w", ErrKey, err)
	case errors.Is(err, ErrMisrouted):
		return "misrouted", err
	case errors.Is(err, ErrRefused):
		return "refused", err
	case strings.Contains(text, "remote error: tls: bad certificate"):
		return "key", fmt.Errorf("%w: the host there does not have this host's key in its keyring", ErrKey)
	case strings.Contains(text, "tls: no application protocol"):
		return "protocol", fmt.Errorf("%w: the host there is no server, still starting, or of another version", ErrProtocol)
	case strings.Contains(text, "does not look like a TLS handshake"):
		return "tls", fmt.Errorf("what answers there does not speak TLS, so it is not meibo's ports.server: %w", err)
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout", fmt.Errorf("no answer in time: %w", err)
	}
	return "network", err
}
