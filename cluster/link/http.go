package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"meibo/cluster/httpserve"
)

// Limits of HTTP over a link.
const (
	// MaxStreams bounds the requests at once on one connection; a client opens
	// another for more.
	MaxStreams = 250
	// MaxHeader bounds a request's header, in bytes: several times what a client of
	// a host's own API may send unless it is configured otherwise.
	MaxHeader = 64 << 10

	// pingAfter and pingTimeout are together deadAfter: a server that is frozen,
	// whose kernel still acknowledges, is found by them.
	pingAfter   = deadAfter / 2
	pingTimeout = deadAfter / 2
	// clientPingAfter and clientPingTimeout find frozen clients, which only cost
	// memory.
	clientPingAfter, clientPingTimeout = 30 * time.Second, 15 * time.Second
	// stalled is how long a write may make no progress at all.
	stalled = 10 * time.Second
	// unused is how long a connection without requests is kept.
	unused = time.Minute
	// connectTimeout bounds a connection for HTTP, so that there is time to ask
	// another server.
	connectTimeout = 2 * time.Second
	// windowConn and windowStream bound what a client may send ahead.
	windowConn, windowStream = 1 << 20, 256 << 10
	// drainTimeout is for answers under way when a server stops.
	drainTimeout = 500 * time.Millisecond
)

// newTransport makes the HTTP/2 client.
func (l *Link) newTransport() *http.Transport {
	t := &http.Transport{
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			tc, err := l.Dial(ctx, addr, HTTP, "")
			if err != nil {
				return nil, err // not a nil *tls.Conn in an interface
			}
			return tc, nil
		},
		DisableCompression: true, // answers pass as they are
		IdleConnTimeout:    unused,
		Protocols:          new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: deadAfter,
			MaxReceiveBufferPerConnection: windowConn, MaxReceiveBufferPerStream: windowStream,
		},
	}
	t.Protocols.SetHTTP2(true)
	return t
}

// Transport carries HTTP/2 requests to the hosts that their URLs name, as in
// https://192.0.2.1:8300/path. It keeps a connection per host and finds within
// 3 s that one is dead. Requests over a connection whose key leaves the ring fail.
func (l *Link) Transport() http.RoundTripper { return l.transport }

type peerKey struct{}

// PeerFrom is who sent a request that Serve serves.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// Serve answers HTTP/2 requests of other hosts with h, until ctx or Run has
// ended. It returns when every request is done: those under way at the end see
// their context end, and have half a second to answer.
func (l *Link) Serve(ctx context.Context, h http.Handler) error {
	var requests sync.WaitGroup
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			defer requests.Done()
			h.ServeHTTP(w, r)
		}),
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			p, _ := PeerOf(nc)
			return context.WithValue(ctx, peerKey{}, p)
		},
		MaxHeaderBytes: MaxHeader,
		IdleTimeout:    2 * unused, // the client's first
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: MaxStreams, MaxReadFrameSize: 16 << 10,
			MaxReceiveBufferPerConnection: windowConn, MaxReceiveBufferPerStream: windowStream,
			SendPingTimeout: clientPingAfter, PingTimeout: clientPingTimeout, WriteByteTimeout: stalled,
		},
		Protocols: new(http.Protocols),
		ErrorLog:  slog.NewLogLogger(l.logger.Handler(), slog.LevelDebug),
	}
	srv.Protocols.SetHTTP2(true)
	err := httpserve.Run(ctx, srv, drainTimeout, l.Listener(HTTP))
	requests.Wait()
	if err == nil || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serve other hosts: %w", err)
}
