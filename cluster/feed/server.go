package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/catalog/state"
)

// Protocol is the name under which connections of this protocol are dialled.
const Protocol = "meibo-feed/1"

const (
	// heartbeat is how often either side says that it is there, silence for how
	// long the other may be quiet: two that are lost don't end a stream, a cut
	// cable is found in 3 s (VIEWS.md 27).
	heartbeat = time.Second
	silence   = 3 * time.Second
	// maxEvery bounds what a server may want for the former.
	maxEvery = time.Hour
	// leaderless is how long ago a server may have heard from its leader.
	leaderless = 2 * time.Second
	// leaderPoll is how often a server looks whether it has a leader, and wakes the
	// next of the streams that it says a word to every heartbeat.
	leaderPoll = 100 * time.Millisecond
	turns      = int(heartbeat / leaderPoll)
	// justTold is so many turns ago that a word of now can be spared: a host hears one
	// within 1.6 s.
	justTold = 6
	// patience is how long a write may wait for a host to read.
	patience = 10 * time.Second
	// farewell is how long a host that is told to go has for going.
	farewell = 500 * time.Millisecond
	// streamsPerHost is for hosts that come back before the end of their last
	// stream was noticed.
	streamsPerHost = 4
)

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
	// leader, for hosts to move to when this one has none or stops.
	Others func() []string
	// OnStream is called when the first stream of a host begins and when the
	// last one has ended, one call at a time. It must not block: streams wait
	// for it.
	OnStream func(nodeID string, up bool)
	// HostsSpeak is how often a host that has nothing to say must say a word, at
	// most 1 h; three that are missing end its stream. Most of what an idle stream
	// costs is reading them, so it may be long where a peer that is gone is found
	// by the connection itself (TCP_USER_TIMEOUT): they then find a process that
	// hangs. 0: each heartbeat, 1 s.
	HostsSpeak time.Duration
	Logger     *slog.Logger
}

// Server tells hosts what changes in a store.
type Server struct {
	cfg      ServerConfig
	logger   *slog.Logger
	snapshot snapshot
	leader   atomic.Bool // heard from one lately
	turn     atomic.Int64
	counts   counters

	ran     atomic.Bool
	stop    chan struct{} // closed when Run's ctx ends
	streams sync.WaitGroup

	mu          sync.Mutex // guards following
	stopped     bool
	admitted    int
	joined      int            // streams so far
	hosts       map[string]int // admitted streams by node ID
	subscribers map[*subscriber]struct{}
	locals      map[*subscriber]struct{} // those in this process
	waiting     map[*subscriber]uint64   // those that want to hear of an index
	byName      map[string]*nameSubscribers

	telling sync.Mutex     // held while OnStream is called; guards following
	up      map[string]int // streams that have begun by node ID
}

// nameSubscribers is who has subscribed to a name.
type nameSubscribers struct {
	name string // one string for all
	subs map[*subscriber]struct{}
}

// NewServer checks cfg. It starts nothing.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.Store == nil || cfg.Leader == nil {
		return nil, errors.New("feed: a server needs a store and a way to know its leader: set Store and Leader")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.WholeBelow == 0 {
		cfg.WholeBelow = 1 << 20
	}
	if cfg.Limits.Streams == 0 {
		cfg.Limits.Streams = 10_000
	}
	if cfg.Limits.Names == 0 {
		cfg.Limits.Names = MaxNames
	}
	if cfg.Limits.Gone == 0 {
		cfg.Limits.Gone = 65_536
	}
	if cfg.HostsSpeak < 0 || cfg.HostsSpeak > maxEvery {
		return nil, fmt.Errorf("feed: hosts can't speak every %s: HostsSpeak may be up to %s", cfg.HostsSpeak, maxEvery)
	}
	return &Server{
		cfg: cfg, logger: cfg.Logger, stop: make(chan struct{}),
		subscribers: make(map[*subscriber]struct{}), locals: make(map[*subscriber]struct{}),
		waiting: make(map[*subscriber]uint64), byName: make(map[string]*nameSubscribers),
		hosts: make(map[string]int),
		up:    make(map[string]int),
	}, nil
}

// hostSilence is for how long a host may be quiet.
func (s *Server) hostSilence() time.Duration { return max(silence, 3*s.cfg.HostsSpeak) }

func (s *Server) limits() bounds {
	return bounds{gone: s.cfg.Limits.Gone, wholeBelow: s.cfg.WholeBelow}
}

// Run follows the store until ctx ends; then it tells the hosts to go elsewhere
// and returns when all streams have ended. It runs once.
func (s *Server) Run(ctx context.Context) error {
	if !s.ran.CompareAndSwap(false, true) {
		return errors.New("feed: this server has run: make a new one")
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.watchLeader(ctx) })
	err := s.follow(ctx)
	wg.Wait()
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	close(s.stop)
	s.streams.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("follow the catalog: %w", err)
}

// watchLeader tells the streams when this server finds or loses its leader, and that it
// is there. They are woken by turns and many at once: a process that wakes for each by
// itself spends more on waking than on what it says.
func (s *Server) watchLeader(ctx context.Context) {
	ticker := time.NewTicker(leaderPoll)
	defer ticker.Stop()
	for {
		known, contact := s.cfg.Leader()
		if heard := known && contact < leaderless; s.leader.Swap(heard) != heard {
			s.wake(touched{base: true})
		}
		s.beat(s.turn.Add(1))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// beat wakes the streams whose turn it is, but for those that have just been told
// something.
func (s *Server) beat(turn int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.subscribers {
		if sub.turn == int(turn%int64(turns)) && turn-sub.told.Load() > justTold {
			sub.poke()
		}
	}
}

// others returns where there may be a leader.
func (s *Server) others() []string {
	if s.cfg.Others == nil {
		return nil
	}
	return s.cfg.Others()
}

// Serve speaks with the host whose node ID is peer until the stream, ctx or the
// server ends, and closes conn. The error says why it ended; nil when the host
// or this server left in order.
func (s *Server) Serve(ctx context.Context, conn net.Conn, peer string) error {
	defer conn.Close()
	if err := s.admit(peer); err != nil {
		s.counts.refused.Add(1)
		refuseFirst(conn, err)
		return fmt.Errorf("feed to %s: %w", peer, err)
	}
	defer s.release(peer)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	st := &serverStream{server: s, conn: conn, peer: peer, subscriber: subscriber{wake: make(chan struct{}, 1)}}
	if err := st.serve(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("feed to %s: %w", peer, err)
	}
	return nil
}

// ErrStopped is how streams end whose server stops.
var ErrStopped = errors.New("this server is stopping")

// admit counts a stream in, or says why it can't be.
func (s *Server) admit(peer string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopped:
		return ErrStopped
	case s.admitted >= s.cfg.Limits.Streams:
		return fmt.Errorf("this server has %d streams, its limit", s.admitted)
	case s.hosts[peer] >= streamsPerHost:
		return fmt.Errorf("this host has %d streams already: does another one run with its node ID?", s.hosts[peer])
	}
	s.admitted++
	s.hosts[peer]++
	s.streams.Add(1)
	return nil
}

func (s *Server) release(peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.admitted--
	if s.hosts[peer]--; s.hosts[peer] == 0 {
		delete(s.hosts, peer)
	}
	s.streams.Done()
}

// began and ended tell whoever wants to know which hosts have a stream.
func (s *Server) began(peer string) {
	s.telling.Lock()
	defer s.telling.Unlock()
	if s.up[peer]++; s.up[peer] == 1 && s.cfg.OnStream != nil {
		s.cfg.OnStream(peer, true)
	}
}

func (s *Server) ended(peer string) {
	s.telling.Lock()
	defer s.telling.Unlock()
	if s.up[peer]--; s.up[peer] > 0 {
		return
	}
	delete(s.up, peer)
	if s.cfg.OnStream != nil {
		s.cfg.OnStream(peer, false)
	}
}
