package consensus

import (
	"context"
	"errors"
	"fmt"
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
	transportTimeout  = 2 * time.Second
	transportPool     = 3
	transportInFlight = 2 // more lengthens the wait for a commit
	// handOverTime bounds handing leadership over: a voter that has the log
	// and answers leads within an election's time.
	handOverTime = time.Second
)

// Run opens the files, takes part in the consensus, and returns when all it
// started has ended: nil after ctx ended, else an error that says what went
// wrong and where. A leader hands leadership over before it ends. It can be
// called once; to go on, make a new Replica with a new state machine.
func (r *Replica) Run(ctx context.Context) error {
	if !r.ran.CompareAndSwap(false, true) {
		return errors.New("consensus: Run was called before; make a new Replica")
	}
	s, err := r.open()
	if err != nil {
		if r.cfg.Stream != nil {
			err = errors.Join(err, r.cfg.Stream.Close())
		}
		return err
	}
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
	snapshots := notedSnapshots{s.snapshots, &r.committedConf}
	if err := r.prepare(conf, g, snapshots, t); err != nil {
		return nil, err
	}
	rf, err := raft.NewRaft(conf, r.fsm, g, g, snapshots, t)
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	r.log.Store(&s.log)
	r.applied.CompareAndSwap(0, rf.AppliedIndex()) // the snapshot's, before anything else is applied
	return rf, nil
}

// prepare makes the files those of a server of a cluster, or of one that
// waits for a cluster.
func (r *Replica) prepare(conf *raft.Config, g *guarded, snapshots notedSnapshots, t raft.Transport) error {
	if err := r.identity.load(g, r.cfg.ID, r.cfg.Dir); err != nil {
		return err
	}
	if len(r.cfg.Recover) > 0 {
		if err := r.recover(conf, g, snapshots, t); err != nil {
			return err
		}
	}
	state, err := raft.HasExistingState(g, g, snapshots)
	if err != nil {
		return err
	}
	if !state && r.cfg.Bootstrap && r.identity.cluster() == "" {
		if err := raft.BootstrapCluster(conf, g, g, snapshots, t, r.firstConfiguration(r.cfg.Servers)); err != nil {
			return fmt.Errorf("bootstrap raft: %w", err)
		}
		r.expect(r.cfg.Servers)
		state = true
	}
	if state && r.identity.cluster() == "" {
		// Begun just now, or interrupted then, or by a version that had no
		// names for clusters, which were of one server each.
		if err := r.identity.begin(func() error { return nil }); err != nil {
			return err
		}
	}
	return snapshots.recordNewest()
}

// serve waits until ctx ends or something fails, and shuts Raft down.
func (r *Replica) serve(ctx context.Context, rf *raft.Raft, leads <-chan bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wake := make(chan struct{}, 1)
	// The filter is called for each observation, and none can get lost.
	observer := raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			poke(wake)
		}
		return false
	})
	rf.RegisterObserver(observer)
	ended := make(chan struct{})
	r.raft.Store(rf)
	close(r.opened)
	wg.Go(func() { r.watch(ctx, rf, leads, wake, ended) })
	wg.Go(func() { r.watchSpace(ctx, rf) })
	wg.Go(func() { r.pollWhenLonely(ctx, rf) })
	wg.Go(func() { r.maintainSpares(ctx) })
	r.electAlone(rf)

	var err error
	select {
	case <-ctx.Done():
	case err = <-r.guard.fault:
	}
	err = errors.Join(err, r.shutDown(rf, err == nil))
	rf.DeregisterObserver(observer)
	cancel()
	close(ended)
	wg.Wait()
	r.raft.Store(nil)
	r.log.Store(nil)
	r.publish(Leadership{})
	return err
}

// poke fills a channel of one.
func poke(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// shutDown ends Raft. What is being committed has a moment to end: Raft
// leaves some of it unanswered otherwise. Where nothing is at fault,
// leadership is handed over: the others need not notice first.
func (r *Replica) shutDown(rf *raft.Raft, healthy bool) error {
	drain := faultTime
	if healthy {
		drain = drainTime
	}
	r.inFlight.close()
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	r.inFlight.wait(ctx)
	if healthy {
		r.handOver(rf)
	}
	future := rf.Shutdown()
	close(r.guard.released)
	if r.stream != nil {
		_ = r.stream.Close() // Raft waits for those who wait for an answer
	}
	err := r.awaitEnd(future)
	ctx, cancel = context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if !r.inFlight.wait(ctx) {
		r.logger.Warn("raft left writes unanswered at its end")
	}
	return err
}

// handOver makes another voter lead, if there is one and it can be done soon.
func (r *Replica) handOver(rf *raft.Raft) {
	others := false
	for _, s := range r.Servers() {
		others = others || s.Voter && s.ID != r.cfg.ID
	}
	if !others || rf.State() != raft.Leader {
		return
	}
	done := make(chan error, 1)
	go func() { done <- r.transfer(rf, "") }()
	select {
	case err := <-done:
		if err != nil {
			r.logger.Warn("raft leadership could not be handed over", "err", err)
		}
	case <-time.After(handOverTime):
		r.logger.Warn("raft leadership could not be handed over in time", "dur", handOverTime)
	}
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

// watch publishes who leads until ended is closed, which is after Raft has:
// Raft waits for who reads leads.
func (r *Replica) watch(ctx context.Context, rf *raft.Raft, leads <-chan bool, wake <-chan struct{}, ended <-chan struct{}) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ended:
			return
		case lead := <-leads:
			if lead {
				wg.Go(func() { r.correctAddress(rf) })
				wg.Go(func() { r.addExpected(ctx) })
			}
		case <-wake:
		}
		term := rf.CurrentTerm()
		addr, id := rf.LeaderWithID()
		r.publish(Leadership{
			Leading: rf.State() == raft.Leader && string(id) == r.cfg.ID, LeaderID: string(id), LeaderAddr: string(addr), Term: term,
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
	if !r.isAlone() {
		return
	}
	c := rf.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = r.cfg.Heartbeat, r.cfg.Election
	if err := rf.ReloadConfig(c); err != nil {
		r.logger.Warn("raft keeps its first timeouts", "err", err)
	}
}

// isAlone reports whether this server is the cluster's only voter.
func (r *Replica) isAlone() bool {
	voters, self := 0, false
	for _, s := range r.Servers() {
		if s.Voter {
			voters++
			self = self || s.ID == r.cfg.ID
		}
	}
	return voters == 1 && self
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
