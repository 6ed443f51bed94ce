package consensus

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// transport is Raft's over the network, and notes which servers are in reach.
// What it doesn't name goes to NetworkTransport: without its RequestPreVote a
// server that comes back would depose a leader that everybody else hears.
type transport struct {
	*raft.NetworkTransport
	stream    *stream
	reach     *reach
	pipelines sync.WaitGroup
}

func (r *Replica) transport() (raft.Transport, error) {
	if r.cfg.Stream == nil {
		_, t := raft.NewInmemTransport(raft.ServerAddress(r.cfg.Addr))
		return t, nil
	}
	s := newStream(r)
	n := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s, MaxPool: transportPool, MaxRPCsInFlight: transportInFlight, Timeout: transportTimeout,
		ServerAddressProvider: &addresses{r: r, known: make(map[raft.ServerID]string)},
		Logger:                newLogger(r.logger, r.expectsNoLeader), MsgpackUseNewTimeFormat: true,
	})
	r.stream = s
	return &transport{NetworkTransport: n, stream: s, reach: &r.reach}, nil
}

// Close implements raft.WithClose; it returns when nobody uses a connection.
func (t *transport) Close() error {
	err := t.NetworkTransport.Close()
	t.NetworkTransport.CloseStreams()
	t.stream.wait()
	t.pipelines.Wait() // Raft has ended, and closed them
	return err
}

// EncodePeer implements raft.Transport. What goes into messages and snapshots
// is an address and nothing else.
func (t *transport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if !isHeartbeat(args) {
		t.awaitReach(string(id), args.Term)
	}
	start := time.Now()
	err := again(func() error { return t.NetworkTransport.AppendEntries(id, addr, args, resp) })
	if isHeartbeat(args) {
		t.reach.record(string(id), err)
		if err == nil && resp.Success {
			t.reach.follows(string(id), args.Term, start)
		}
	}
	return err
}

// InstallSnapshot implements raft.Transport.
func (t *transport) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	t.awaitReach(string(id), args.Term)
	return t.NetworkTransport.InstallSnapshot(id, addr, args, resp, data)
}

// reachPoll is how soon it is noticed that a server is in reach again.
const reachPoll = 20 * time.Millisecond

// awaitReach waits while no heartbeat reaches a server, as long as it is a member and
// this one leads in the term. Raft waits longer after each failure before it sends
// entries again, up to 10 s, whatever heartbeats say; a server that is back would be
// behind for so long, and not know it. So what can't be sent isn't tried, and doesn't
// fail.
func (t *transport) awaitReach(id string, term uint64) {
	for t.reach.isLost(id) && t.leads(id, term) {
		select {
		case <-t.stream.closed:
			return
		case <-time.After(reachPoll):
		}
	}
}

// leads reports whether this server leads the other in the term.
func (t *transport) leads(id string, term uint64) bool {
	rf := t.stream.r.raft.Load()
	if rf == nil || rf.State() != raft.Leader || rf.CurrentTerm() != term {
		return false
	}
	_, member := find(t.stream.r.Servers(), id)
	return member
}

func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return a.PrevLogEntry == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	err := again(func() error { return t.NetworkTransport.RequestVote(id, addr, args, resp) })
	t.reach.record(string(id), err)
	return err
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	err := again(func() error { return t.NetworkTransport.RequestPreVote(id, addr, args, resp) })
	t.reach.record(string(id), err)
	return err
}

// TimeoutNow implements raft.Transport.
func (t *transport) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return again(func() error { return t.NetworkTransport.TimeoutNow(id, addr, args, resp) })
}

// again asks again where the connection turns out to be broken: those that wait in
// NetworkTransport's pool may be so for long, of a server that lives, since its key
// was removed or it began anew. Each try takes one out of the pool, and the last
// dials. What Raft asks may be asked twice.
func again(ask func() error) error {
	err := ask()
	for range transportPool {
		if !isBroken(err) {
			return err
		}
		err = ask()
	}
	return err
}

// isBroken reports whether an exchange failed because its connection is no more,
// rather than because none could be had.
func isBroken(err error) bool {
	if none := (*dialError)(nil); err == nil || errors.As(err, &none) {
		return false
	}
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		// The decoder of messages keeps no more than the text.
		if errors.Is(err, e) || strings.HasSuffix(err.Error(), e.Error()) {
			return true
		}
	}
	return false
}

// dialError is why a server could not be connected with.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// addresses says where another server is. Raft asks by ID, and gets an address
// for [stream.Dial].
type addresses struct {
	r     *Replica
	mu    sync.Mutex // guards known
	known map[raft.ServerID]string
}

// ServerAddr implements raft.ServerAddressProvider. A server that was removed
// is still told so.
func (a *addresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if !a.r.stream.awaitOpen() {
		return "", errNotRunning
	}
	s, member := find(a.r.Servers(), string(id))
	if a.r.cfg.Address != nil {
		if addr, ok := a.r.cfg.Address(string(id)); ok {
			s.Addr, member = addr, true
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if member {
		a.known[id] = s.Addr
	}
	addr, ok := a.known[id]
	if !ok {
		return "", errors.New("no such server")
	}
	return raft.ServerAddress(target(addr, string(id))), nil
}

// reach is which servers answer, and who follows this one.
type reach struct {
	logger *slog.Logger

	mu   sync.Mutex // guards following
	lost map[string]bool
	last map[string]followed
}

// followed says that a server, when it was asked at some time, followed this
// one as the leader of a term.
type followed struct {
	term uint64
	at   time.Time
}

// record takes down how an exchange with a server went, and says so when that
// is another than before.
func (r *reach) record(id string, err error) {
	if no := (*refusedError)(nil); errors.As(err, &no) || errors.Is(err, errNotRunning) {
		return // said by the stream layer, or the end
	}
	r.mu.Lock()
	if r.lost == nil {
		r.lost = make(map[string]bool)
	}
	changed := r.lost[id] != (err != nil)
	r.lost[id] = err != nil
	r.mu.Unlock()
	switch {
	case !changed:
	case err != nil:
		r.logger.Warn("raft server is out of reach", "peer", id, "err", err)
	default:
		r.logger.Info("raft server is in reach again", "peer", id)
	}
}

// isLost reports whether the last exchange that was noted failed.
func (r *reach) isLost(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost[id]
}

func (r *reach) follows(id string, term uint64, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = make(map[string]followed)
	}
	r.last[id] = followed{term, at}
}

// ledSince reports whether a majority of the voters followed self in the term
// when they were asked after since.
func (r *reach) ledSince(voters []Server, self string, term uint64, since time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	count, yes := 0, 0
	for _, s := range voters {
		if !s.Voter {
			continue
		}
		count++
		if f := r.last[s.ID]; s.ID == self || f.term == term && !f.at.Before(since) {
			yes++
		}
	}
	return yes > count/2
}
