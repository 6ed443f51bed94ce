package feed

import (
	"context"
	"log/slog"
	"net"
	"time"

	"meibo/cluster/catalog"
)

// MaxNames is how many names one host may subscribe to.
const MaxNames = 5000

// ClientConfig is what a Client is made from. Resume and Logger may be left out.
type ClientConfig struct {
	// Dial connects to the feed of the server with the link address.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Servers returns the link addresses of the servers that are alive.
	Servers func() []string
	// NodeID and Datacenter are this host's.
	NodeID, Datacenter string
	Resume             Resume
	Logger             *slog.Logger
}

// Client finds a server for this host.
type Client struct{ cfg ClientConfig }

// NewClient returns a client that has no stream yet. It starts nothing.
func NewClient(cfg ClientConfig) *Client { return &Client{cfg: cfg} }

// Open connects to the best server and returns the stream from it. It goes on
// trying until ctx ends, whose cause it then returns. Close a stream before the
// next Open.
func (c *Client) Open(ctx context.Context) (*Stream, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// Server returns the link address of the server that the open stream comes from
// and since when; "" when there is none.
func (c *Client) Server() (addr string, since time.Time) { return "", time.Time{} }

// Stream is one stream from one server.
type Stream struct{}

// Next blocks until there is something to tell. An error means that the stream
// is lost, ctx's end included: it is not asked again. It is called from one
// goroutine.
func (s *Stream) Next(ctx context.Context) (catalog.Update, error) {
	<-ctx.Done()
	return catalog.Update{}, context.Cause(ctx)
}

// Subscribe asks for the contents of the services, in any letter case. An
// update that names them Complete answers. It does not block.
func (s *Stream) Subscribe(names ...string) {}

// Unsubscribe ends subscriptions. It does not block.
func (s *Stream) Unsubscribe(names ...string) {}

// Close ends the stream and waits for all it started. It may be called twice.
func (s *Stream) Close() {}
