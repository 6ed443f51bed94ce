package consensus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// drainTime is how long a shutdown waits for what is being committed, and
	// faultTime how long after a fault, when little of it will be.
	drainTime = 500 * time.Millisecond
	faultTime = 20 * time.Millisecond
	// stopTime is how long Raft may take to end: a snapshot that is being
	// written ends first.
	stopTime = 20 * time.Second
	// transportTimeout bounds one exchange between servers.
	transportTimeout = 2 * time.Second
	transportPool    = 3
)

// Run opens the files, takes part in the consensus, and returns when all it
// started has ended: nil after ctx ended, else an error that says what went
// wrong and where. It can be called once; to go on, make a new Replica with a
// new state machine.
func (r *Replica) Run(ctx context.Context) error {
	if !r.ran.CompareAndSwap(false, true) {
		return errors.New("consensus: Run was called before; make a new Replica")
	}
	s, err := r.open()
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.setAside = s.setAside
	r.mu.Unlock()
	transport, err := r.transport()
	if err != nil {
		return errors.Join(err, s.close())
	}
	leads := make(chan bool)
	rf, err := r.start(s, transport, leads)
	if err != nil {
		return errors.Join(err, closeTransport(transport), s.close())
	}
	err = r.serve(ctx, rf, leads)
	return errors.Join(err, s.close())
}

func closeTransport(t raft.Transport) error {
	if c, ok := t.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

func (r *Replica) transport() (raft.Transport, error) {
	if r.cfg.Stream == nil {
		_, t := raft.NewInmemTransport(raft.ServerAddress(r.cfg.Addr))
		return t, nil
	}
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: streamLayer{r.cfg.Stream}, MaxPool: transportPool, Timeout: transportTimeout,
		Logger: newLogger(r.logger), MsgpackUseNewTimeFormat: true,
	}), nil
}

// streamLayer gives ours Raft's types.
type streamLayer struct{ StreamLayer }

// Dial implements raft.StreamLayer.
func (s streamLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.StreamLayer.Dial(string(addr), timeout)
}

// start makes Raft, in a goroutine of its own, since one that meets a fault
// is held.
func (r *Replica) start(s *stores, t raft.Transport, leads chan<- bool) (rf *raft.Raft, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = protect(func() (err error) { rf, err = r.newRaft(s, t, leads); return err })
	}()
	select {
	case fault := <-r.guard.fault:
		close(r.guard.released)
		<-done
		if rf != nil { // made all the same, from an older snapshot
			fault = errors.Join(fault, rf.Shutdown().Error())
		}
		return nil, fault
	case <-done:
		return rf, err
	}
}

func (r *Replica) newRaft(s *stores, t raft.Transport, leads chan<- bool) (*raft.Raft, error) {
	conf := r.raftConfig()
	conf.NotifyCh = leads
	g := &guarded{g: r.guard, log: s.log, stable: s.stable}
	if r.cfg.Bootstrap {
		alone := raft.Configuration{Servers: []raft.Server{{ID: conf.LocalID, Address: t.LocalAddr()}}}
		if err := raft.BootstrapCluster(conf, g, g, s.snapshots, t, alone); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			return nil, fmt.Errorf("bootstrap raft: %w", err)
		}
	}
	rf, err := raft.NewRaft(conf, r.fsm, g, g, s.snapshots, t)
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	r.applied.CompareAndSwap(0, rf.AppliedIndex()) // the snapshot's, before anything else is applied
	return rf, nil
}

// serve waits until ctx ends or something fails, and shuts Raft down.
func (r *Replica) serve(ctx context.Context, rf *raft.Raft, leads <-chan bool) error {
	var wg sync.WaitGroup
	seen := make(chan raft.Observation, 64)
	observer := raft.NewObserver(seen, false, isOfInterest)
	rf.RegisterObserver(observer)
	ended := make(chan struct{})
	removed := make(chan struct{})
	wg.Go(func() { r.watch(rf, leads, seen, removed, ended) })
	r.raft.Store(rf)
	r.electAlone(rf)

	var err error
	select {
	case <-ctx.Done():
	case err = <-r.guard.fault:
	case <-removed:
		err = ErrRemoved
	}
	r.raft.Store(nil)
	drain := drainTime
	if err != nil {
		drain = faultTime
	}
	err = errors.Join(err, r.shutDown(rf, drain))
	rf.DeregisterObserver(observer)
	close(ended)
	wg.Wait()
	r.publish(Leadership{})
	return err
}

// shutDown ends Raft. What is being committed has a moment to end: Raft
// leaves some of it unanswered otherwise.
func (r *Replica) shutDown(rf *raft.Raft, drain time.Duration) error {
	r.inFlight.close()
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	r.inFlight.wait(ctx)
	future := rf.Shutdown()
	close(r.guard.released)
	err := r.awaitEnd(future)
	ctx, cancel = context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if !r.inFlight.wait(ctx) {
		r.logger.Warn("raft left writes unanswered at its end")
	}
	return err
}

// awaitEnd waits until Raft has ended. A fault can leave bbolt's own locks
// held, and whoever waits for them never ends: then it is left behind.
func (r *Replica) awaitEnd(future raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- future.Error() }()
	select {
	case err := <-done:
		return err
	case <-time.After(stopTime):
		return fmt.Errorf("raft did not stop within %v", stopTime)
	}
}

func isOfInterest(o *raft.Observation) bool {
	switch o.Data.(type) {
	case raft.LeaderObservation, raft.RaftState:
		return true
	}
	return false
}

// watch publishes who leads, and drains what Raft must not wait for.
func (r *Replica) watch(rf *raft.Raft, leads <-chan bool, seen <-chan raft.Observation, removed, ended chan struct{}) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ended:
			return
		case lead := <-leads:
			if lead {
				wg.Go(func() { r.correctAddress(rf) })
			}
		case o := <-seen:
			if o.Data == raft.Shutdown {
				close(removed)
				seen = nil // it is said once
				continue
			}
		}
		addr, id := rf.LeaderWithID()
		r.publish(Leadership{
			Leading: rf.State() == raft.Leader && string(id) == r.cfg.ID, LeaderID: string(id), LeaderAddr: string(addr), Term: rf.CurrentTerm(),
		})
	}
}

func (r *Replica) publish(l Leadership) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lead == l {
		return
	}
	if r.lead.Leading != l.Leading {
		r.logger.Info("raft leadership changed", "leading", l.Leading, "term", l.Term)
	}
	r.lead = l
	close(r.changed)
	r.changed = make(chan struct{})
}

// electAlone has the only voter of a cluster stand for election at once,
// instead of waiting for a leader who can't be: lowering the timeouts makes
// Raft look at its timer.
func (r *Replica) electAlone(rf *raft.Raft) {
	voters, self := 0, false
	for _, s := range r.Servers() {
		if s.Voter {
			voters++
			self = self || s.ID == r.cfg.ID
		}
	}
	if voters != 1 || !self {
		return
	}
	c := rf.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = r.cfg.Heartbeat, r.cfg.Election
	if err := rf.ReloadConfig(c); err != nil {
		r.logger.Warn("raft keeps its first timeouts", "err", err)
	}
}

// correctAddress writes this server's address into the configuration when it
// is another than when it joined.
func (r *Replica) correctAddress(rf *raft.Raft) {
	for _, s := range r.Servers() {
		if s.ID == r.cfg.ID && s.Addr != r.cfg.Addr {
			f := rf.AddVoter(raft.ServerID(s.ID), raft.ServerAddress(r.cfg.Addr), 0, transportTimeout)
			if err := f.Error(); err != nil {
				r.logger.Warn("raft keeps this server's former address", "addr", s.Addr, "err", err)
			}
		}
	}
}
