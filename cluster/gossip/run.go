package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"meibo/cluster/membership"
)

const (
	// A turn of the members' rules while something is due, and while nothing is:
	// the latter measures whether this process gets to run. It is as long as there
	// are others at all, each of whom wakes this process too.
	busyTurn = 50 * time.Millisecond
	idleTurn = 500 * time.Millisecond
	// stall is a delay of our own beyond which we suspect nobody.
	stall      = 200 * time.Millisecond
	sweepEvery = 5 * time.Second
	askServers = time.Second // about deaths that the mass-failure guard doesn't believe

	// Failed members are called again, a few at random each time; a member is
	// called once within callAgain.
	callEvery  = 10 * time.Second
	callEach   = 200 * time.Millisecond // for each member, where that is less
	callLeast  = 1500 * time.Millisecond
	callFirst  = time.Second     // while nobody has been met
	callSeldom = 5 * time.Minute // at last, hosts of retry_join that were never reached
	callsEach  = 3
	callAgain  = 1500 * time.Millisecond
	maxDials   = 64
	dialers    = 4
	maxCalled  = 4096
	syncPeers  = 3 // to compare lists with at start, and again after syncAgain
	syncAgain  = 5 * time.Second
	tagWait    = 500 * time.Millisecond
)

// Run gossips until ctx ends. That is no leave: others find out, or don't if
// this host is back within two seconds.
func (g *Gossip) Run(ctx context.Context) error {
	if g.ran.Swap(true) {
		return errRunTwice
	}
	before := g.Members().Self().Meta
	ml, awaitEnd, err := g.start(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("gossip: %w", err), g.transport.Shutdown())
	}
	g.ml.Store(ml)
	if err := g.updateTagsSince(before, ml); err != nil {
		g.logger.Debug("gossip: this host's tags are not told yet", "err", err)
	}
	close(g.started)
	var wg sync.WaitGroup
	wg.Go(func() { g.runTurns(ctx) })
	wg.Go(func() { g.notifyLives(ctx) })
	wg.Go(func() { g.callLost(ctx) })
	wg.Go(func() { g.joinAgain(ctx) })
	wg.Go(func() { g.followKeys(ctx) })
	wg.Go(func() { g.save(ctx) })
	for range dialers {
		wg.Go(func() { g.dialOut(ctx) })
	}
	g.transport.open()
	<-ctx.Done()
	err = ml.Shutdown()
	wg.Wait()
	awaitEnd()
	return err
}

// runTurns tells the members what came in, and the time.
func (g *Gossip) runTurns(ctx context.Context) {
	due := time.Now().Add(busyTurn)
	timer := time.NewTimer(busyTurn)
	defer timer.Stop()
	rounds := g.rounds.Load()
	var k keeper
	for {
		fired := false
		select {
		case <-ctx.Done():
			return
		case <-g.inbox.ready:
		case <-timer.C:
			fired = true
		}
		now := time.Now()
		late := now.Sub(due)
		busy := k.turn(g, late > stall)
		others := !g.alone()
		rounds.follow(now, others)
		pause := sweepEvery
		switch {
		case busy:
			pause = busyTurn
		case others:
			pause = idleTurn
		}
		next := now.Add(pause)
		if fired && late < pause {
			next = due.Add(pause) // in step with memberlist's probes
		}
		if fired || late > stall || next.Before(due) {
			due = next
			timer.Reset(time.Until(due))
		}
	}
}

// keeper is when runTurns last did what it doesn't do each turn.
type keeper struct{ swept, asked time.Time }

// turn takes what is in the inbox and does what is due.
func (k *keeper) turn(g *Gossip, held bool) (busy bool) {
	events, resync := g.inbox.drain()
	var alive []membership.Node
	if resync {
		for _, n := range g.ml.Load().Members() {
			if node, err := nodeOf(n); err == nil {
				alive = append(alive, node)
			}
		}
	}
	var protected []string
	g.with(func(m *membership.Machine, now time.Time) {
		if held {
			m.Stalled(now)
		}
		for _, tell := range events {
			tell(m, now)
		}
		if resync {
			m.Resync(now, alive)
		}
		if now.Sub(k.swept) >= sweepEvery {
			k.swept = now
			m.Sweep(now)
			g.forgetCalls(now)
		}
		busy = m.Step(now)
		if g.cfg.Confirmed != nil && now.Sub(k.asked) >= askServers {
			if protected = m.Protected(); protected != nil {
				k.asked = now
			}
		}
	})
	for _, id := range protected {
		if g.cfg.Confirmed(id) {
			g.with(func(m *membership.Machine, now time.Time) { m.Confirm(now, id) })
		}
	}
	return busy
}

// learnKeys takes over what another host told of removed keys, and says what came
// of it.
func (g *Gossip) learnKeys(from string, orders []keyOrder) {
	dropped, stuck, err := g.cfg.Keyring.learn(orders)
	switch {
	case err != nil:
		g.logger.Error("gossip: cannot keep which keys were removed", "err", err)
	case stuck:
		g.logger.Error("gossip: all keys of this host were removed from the cluster's keyring, others won't hear it: "+
			"stop it, put a present key (`meibo keyring list` at another host) into encrypt, and start it", "path", g.cfg.Keyring.Path(), "from", from)
	}
	for _, key := range dropped {
		g.logger.Info("gossip: a key that was removed from the cluster's keyring while this host was away is removed here too",
			"key", "sha256:"+hashOf(key)[:8], "from", from)
	}
}

// followKeys gives memberlist the keys of the ring as they change.
func (g *Gossip) followKeys(ctx context.Context) {
	for {
		keys, changed := g.cfg.Keyring.Keys()
		if err := mirror(g.ring, keys); err != nil {
			g.logger.Error("gossip: take keys", "err", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// save keeps the snapshot of members.
func (g *Gossip) save(ctx context.Context) {
	if g.cfg.Dir == "" {
		return
	}
	ticker := time.NewTicker(snapshotEvery)
	defer ticker.Stop()
	for done := false; !done; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			done = true
		}
		g.mu.Lock()
		unsaved := g.unsaved
		g.unsaved = false
		var s membership.Snapshot
		if unsaved {
			s = g.machine.Snapshot()
		}
		g.mu.Unlock()
		if !unsaved {
			continue
		}
		if err := writeSnapshot(g.cfg.Dir, s); err != nil {
			g.logger.Error("gossip: keep the list of members", "err", err)
			g.mu.Lock()
			g.unsaved = true
			g.mu.Unlock()
		}
	}
}

// jitter spreads d by a fifth each way.
func jitter(d time.Duration) time.Duration {
	return d*4/5 + time.Duration(rand.Int64N(int64(d)*2/5))
}

// reach is where lists are compared.
func (g *Gossip) reach(to netip.AddrPort) error {
	ml := g.ml.Load()
	if ml == nil {
		return errNotRunning
	}
	_, err := ml.Join([]string{to.String()})
	return err
}

// updateTagsSince tells what was set while memberlist came up with the tags of
// before.
func (g *Gossip) updateTagsSince(before string, ml *memberlist.Memberlist) error {
	g.tagMu.Lock()
	defer g.tagMu.Unlock()
	if g.Members().Self().Meta == before {
		return nil
	}
	return ml.UpdateNode(tagWait)
}
