package gossip

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/netip"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/memberlist"
)

const (
	// A turn of the keeper while something is due, and while nothing is: the
	// latter measures whether this process gets to run.
	busyTurn = 50 * time.Millisecond
	idleTurn = 250 * time.Millisecond
	// stall is a delay of our own beyond which we accuse nobody.
	stall      = 200 * time.Millisecond
	sweepEvery = 5 * time.Second
	askServers = time.Second // about deaths under the brake

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
	maxCasts   = 1024
	settleWait = 10 * time.Second // for memberlist's goroutines at the end
)

// runs numbers the Gossips of a process, to tell their goroutines apart.
var runs atomic.Uint64

// Run gossips until ctx ends. That is no leave: others find out, or don't if
// this host is back within two seconds.
func (g *Gossip) Run(ctx context.Context) error {
	if g.ran.Swap(true) {
		return errRunTwice
	}
	label := pprof.Labels("gossip", strconv.FormatUint(runs.Add(1), 10))
	var ml *memberlist.Memberlist
	var err error
	before := g.delegate.meta.Load()
	pprof.Do(ctx, label, func(context.Context) { ml, err = g.create() })
	if err != nil {
		return errors.Join(fmt.Errorf("gossip: %w", err), g.transport.Shutdown())
	}
	g.ml.Store(ml)
	if err := g.tellTagsSince(before, ml); err != nil {
		g.logger.Debug("gossip: this host's tags are not told yet", "err", err)
	}
	close(g.started)
	var wg sync.WaitGroup
	wg.Go(func() { g.keep(ctx) })
	wg.Go(func() { g.tellAll(ctx) })
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
	g.settle(label)
	return err
}

// create starts memberlist, and lets it begin where no earlier life of this
// host has been: with an incarnation from the clock. Else what was recorded of
// an earlier life would be news, and others who have this host dead would not
// hear of its return until they happen to compare lists.
func (g *Gossip) create() (*memberlist.Memberlist, error) {
	cfg := g.cfg.memberlist()
	cfg.Transport = g.transport
	cfg.BindPort = int(g.self.addr.Port())
	cfg.Logger = newLines(g.logger, g.accused)
	cfg.Delegate, cfg.Events, cfg.Alive = g.delegate, g.delegate, g.delegate
	cfg.Conflict, cfg.Merge, cfg.Ping = g.delegate, g.delegate, g.delegate
	ring, err := memberlist.NewKeyring(nil, nil)
	if err != nil {
		return nil, err
	}
	keys, _ := g.cfg.Keyring.Keys()
	if err := mirror(ring, keys); err != nil {
		return nil, err
	}
	cfg.Keyring, g.ring = ring, ring
	ml, err := memberlist.Create(cfg)
	if err != nil {
		return nil, err
	}
	accusation, err := accusation(g.self.name, uint32(time.Now().Unix()), keys)
	if err != nil {
		return nil, errors.Join(err, ml.Shutdown())
	}
	g.transport.inject(accusation)
	return ml, nil
}

// accusation is a packet in which a host suspects itself in a given
// incarnation; it refutes that with the next one. (memberlist has no other way
// to set the first.)
func accusation(name string, incarnation uint32, keys [][]byte) ([]byte, error) {
	const suspectMessage = 3 // memberlist's number
	buf := bytes.NewBuffer([]byte{suspectMessage})
	body := struct {
		Incarnation uint32
		Node, From  string
	}{incarnation, name, name}
	if err := codec.NewEncoder(buf, &codec.MsgpackHandle{}).Encode(&body); err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return buf.Bytes(), nil
	}
	block, err := aes.NewCipher(keys[0])
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	const version = 1 // of memberlist's encryption: no padding
	sealed := make([]byte, 1+gcm.NonceSize(), 1+gcm.NonceSize()+buf.Len()+gcm.Overhead())
	sealed[0] = version
	rand.Read(sealed[1:])
	return gcm.Seal(sealed, sealed[1:], buf.Bytes(), nil), nil
}

// settle waits for the goroutines that memberlist started. It offers no way to;
// but goroutines inherit profiler labels.
func (g *Gossip) settle(label pprof.LabelSet) {
	var want string
	pprof.Do(context.Background(), label, func(ctx context.Context) {
		v, _ := pprof.Label(ctx, "gossip")
		want = fmt.Sprintf("%q:%q", "gossip", v)
	})
	for wait, began := time.Millisecond, time.Now(); ; wait = min(2*wait, 100*time.Millisecond) {
		var b bytes.Buffer
		if pprof.Lookup("goroutine").WriteTo(&b, 1) != nil || !bytes.Contains(b.Bytes(), []byte(want)) {
			return
		}
		if time.Since(began) > settleWait {
			g.logger.Warn("gossip: memberlist hasn't stopped")
			return
		}
		time.Sleep(wait)
	}
}

// keep is the ledger's keeper: it gives it what came in, and the time.
func (g *Gossip) keep(ctx context.Context) {
	due := time.Now().Add(idleTurn)
	timer := time.NewTimer(idleTurn)
	defer timer.Stop()
	k := keeper{g: g, accused: make(map[string]time.Time)}
	for {
		fired := false
		select {
		case <-ctx.Done():
			return
		case <-g.mail.ready:
		case <-timer.C:
			fired = true
		}
		now := time.Now()
		held := now.Sub(due) > stall
		busy := k.turn(held)
		next := now.Add(idleTurn)
		if busy {
			next = now.Add(busyTurn)
		}
		if fired || held || next.Before(due) {
			due = next
			timer.Reset(time.Until(due))
		}
	}
}

// keeper is what keep remembers between turns.
type keeper struct {
	g         *Gossip
	accused   map[string]time.Time // whom this host itself called dead lately
	swept     time.Time
	asked     time.Time
	contacted bool
}

// turn takes what is in the mailbox and does what is due.
func (k *keeper) turn(held bool) (busy bool) {
	g := k.g
	in := g.mail.take()
	var alive []*memberlist.Node
	if in.resync {
		alive = g.ml.Load().Members()
	}
	braking := false
	g.with(func(l *ledger, now time.Time) {
		if held {
			l.stalledUntil(now)
		}
		k.take(l, now, in)
		if in.resync {
			g.resync(l, now, alive)
		}
		if now.Sub(k.swept) >= sweepEvery {
			k.swept = now
			l.sweep(now)
			l.expire(now)
			g.forgetCalls(now)
		}
		busy = l.step(now)
		braking = l.brake.on
		if !k.contacted && len(l.living()) > 0 {
			k.contacted, l.contact = true, now
			close(g.joined)
		}
	})
	if braking && g.cfg.Confirmed != nil && time.Since(k.asked) >= askServers {
		k.asked = time.Now()
		g.askServers()
	}
	return busy
}

// take gives the ledger what came in.
func (k *keeper) take(l *ledger, now time.Time, in parcel) {
	for _, t := range in.turns {
		switch t.kind {
		case turnJoined:
			l.joined(now, t.node)
		case turnUpdated:
			l.updated(now, t.node)
		case turnLeft:
			by := ""
			if at, ok := k.accused[t.node.name]; ok && now.Sub(at) < stallIgnore {
				by = l.self.Name
			}
			l.left(now, t.node.name, by)
		case turnSuspect:
			if t.dead {
				k.accused[t.node.name] = now
			} else {
				l.suspected(now, t.node.name)
			}
		case turnContest:
			l.contested(now, t.node)
		}
	}
	if len(k.accused) > maxDials {
		clear(k.accused)
	}
	for _, h := range in.hearsay {
		l.heard(now, h)
		k.g.learnKeys(h)
	}
	for _, a := range in.acks {
		if r := l.byName[a.name]; r != nil && r.at() == a.addr {
			l.answered(now, r, a.rtt)
		}
	}
	for _, m := range in.mail {
		k.g.receive(l, now, m)
	}
}

// receive takes a message of another host's.
func (g *Gossip) receive(l *ledger, now time.Time, m mail) {
	switch m.kind {
	case pingMessage:
		if m.name == g.self.name && m.id == g.self.id && m.reply.IsValid() {
			pong := message{kind: pongMessage, nonce: m.nonce, name: g.self.name, id: g.self.id, life: g.born}
			l.out.tells = append(l.out.tells, tellTo{to: m.reply, m: pong})
		}
	case pongMessage:
		l.pong(now, m.message, m.at)
	case noticeMessage:
		l.notice(now, m.message)
	case leaveMessage, forceMessage, doubtMessage:
		l.intent(now, m.message)
	}
}

// resync makes the ledger say what memberlist says, after turns were lost.
func (g *Gossip) resync(l *ledger, now time.Time, alive []*memberlist.Node) {
	here := make(map[string]bool, len(alive))
	for _, n := range alive {
		here[n.Name] = true
		if m, err := decodeMeta(n.Meta); err == nil {
			l.joined(now, node{name: n.Name, addr: addrOf(n), meta: m})
		}
	}
	for _, r := range l.living() {
		if !here[r.Name] {
			l.left(now, r.Name, "")
		}
	}
}

// accused is told by memberlist's log whom this host itself suspects or calls
// dead; nothing else tells.
func (g *Gossip) accused(name string, dead bool) {
	g.mail.turn(turn{kind: turnSuspect, node: node{name: name}, dead: dead})
}

// askServers ends what the brake holds where a server confirms it.
func (g *Gossip) askServers() {
	g.mu.Lock()
	ids := g.ledger.suspects()
	g.mu.Unlock()
	for _, id := range ids {
		if g.cfg.Confirmed(id) {
			g.with(func(l *ledger, now time.Time) { l.confirm(now, id) })
		}
	}
}

// learnKeys takes over what another host told of removed keys, and says what came
// of it.
func (g *Gossip) learnKeys(h hearsay) {
	dropped, stuck, err := g.cfg.Keyring.learn(h.keys)
	switch {
	case err != nil:
		g.logger.Error("gossip: cannot keep which keys were removed", "err", err)
	case stuck:
		g.logger.Error("gossip: all keys of this host were removed from the cluster's keyring, others won't hear it: "+
			"stop it, put a present key (`meibo keyring list` at another host) into encrypt, and start it", "path", g.cfg.Keyring.Path(), "from", h.from)
	}
	for _, key := range dropped {
		g.logger.Info("gossip: a key that was removed from the cluster's keyring while this host was away is removed here too",
			"key", "sha256:"+hashOf(key)[:8], "from", h.from)
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
		var s snapshot
		if unsaved {
			s = g.ledger.keep()
		}
		g.mu.Unlock()
		if !unsaved {
			continue
		}
		if err := s.write(g.cfg.Dir); err != nil {
			g.logger.Error("gossip: keep the list of members", "err", err)
			g.mu.Lock()
			g.unsaved = true
			g.mu.Unlock()
		}
	}
}

// jitter spreads d by a fifth each way.
func jitter(d time.Duration) time.Duration {
	return d*4/5 + time.Duration(mathrand.Int64N(int64(d)*2/5))
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

// tellTagsSince tells what was set while memberlist came up with the tags of
// before.
func (g *Gossip) tellTagsSince(before *[]byte, ml *memberlist.Memberlist) error {
	g.tagMu.Lock()
	defer g.tagMu.Unlock()
	if g.delegate.meta.Load() == before {
		return nil
	}
	return ml.UpdateNode(tagWait)
}
