// Package listen is the DNS sockets of the daemon.
package listen

import (
	"context"
	"log/slog"
	"net/netip"
	"os"

	"meibo/resolver/wire"
)

// Handler answers queries.
type Handler interface {
	// ServeDNS appends the reply to dst and returns it; nil: dropped, or given to reply later. reply is called at most
	// once, from any goroutine, also after ServeDNS returned; reply(q, nil) drops the query. q and dst are borrowed
	// until ServeDNS returns; a q given to reply must be a clone. Called concurrently.
	ServeDNS(q *wire.Query, v wire.Verdict, dst []byte, reply func(q *wire.Query, msg []byte)) []byte
}

// Config of a Listener.
type Config struct {
	Addrs   []netip.AddrPort // to listen on, UDP and TCP; port 0 takes a free one, the same for both
	Handler Handler
	Logger  *slog.Logger // nil: discard
	Files   []*os.File   // sockets handed over, UDP and TCP, matched by address
}

// Listener is bound DNS sockets.
type Listener struct{}

func New(Config) (*Listener, error)               { panic("not yet") }
func (l *Listener) Run(ctx context.Context) error { panic("not yet") }
func (l *Listener) Files() ([]*os.File, error)    { panic("not yet") }
func (l *Listener) Addrs() []netip.AddrPort       { panic("not yet") }
