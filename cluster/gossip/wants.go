package gossip

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"meibo/cluster/membership"
)

const (
	// eachLine: when more happens at once, one line of the log counts it.
	eachLine      = 8
	maxBroadcasts = 1024
)

// do does what the members' rules want done. It is called with no lock held.
func (g *Gossip) do(w membership.Wants) {
	g.log(w.Events)
	ml := g.ml.Load()
	if ml == nil {
		return
	}
	for _, s := range w.Sends { // who isn't reached won't answer
		if err := ml.SendToAddress(memberlist.Address{Addr: s.To.String()}, encodeMessage(s.Message)); err != nil {
			g.logger.Debug("gossip: send", "addr", s.To, "err", err)
		}
	}
	for _, m := range w.Broadcasts {
		g.broadcasts.QueueBroadcast(&broadcast{body: encodeMessage(m)})
	}
	if len(w.Broadcasts) > 0 {
		g.broadcasts.Prune(maxBroadcasts)
		g.hasten()
	}
	for _, to := range w.Syncs {
		g.call(to)
	}
}

// broadcast is a message to everybody.
type broadcast struct {
	body []byte
	sent chan struct{} // closed when it was told often enough; may be nil
}

// Invalidates implements memberlist.Broadcast.
func (*broadcast) Invalidates(memberlist.Broadcast) bool { return false }

// UniqueBroadcast implements memberlist.UniqueBroadcast.
func (*broadcast) UniqueBroadcast() {}

// Message implements memberlist.Broadcast.
func (b *broadcast) Message() []byte { return b.body }

// Finished implements memberlist.Broadcast.
func (b *broadcast) Finished() {
	if b.sent != nil {
		close(b.sent)
	}
}

func (g *Gossip) log(events []membership.Event) {
	many := make(map[*membership.Line]int)
	for _, e := range events {
		if many[e.Line]++; many[e.Line] <= eachLine {
			g.logger.Log(context.Background(), e.Level, e.Text, e.Args...)
		}
	}
	for line, n := range many {
		if n > eachLine {
			g.logger.Log(context.Background(), line.Level, line.Text, "more", n-eachLine)
		}
	}
}

// notifyLives calls OnLife.
func (g *Gossip) notifyLives(ctx context.Context) {
	for {
		select {
		case <-g.tell:
		case <-ctx.Done():
			return
		}
		g.mu.Lock()
		lives := g.changedLives
		g.changedLives = make(map[string]struct{})
		g.mu.Unlock()
		for id := range lives {
			g.cfg.OnLife(id)
		}
	}
}

// call has lists compared with a host soon, unless they were just now.
func (g *Gossip) call(to netip.AddrPort) {
	now := time.Now()
	g.mu.Lock()
	again := now.Sub(g.called[to]) < callAgain || len(g.called) >= maxCalled
	if !again {
		g.called[to] = now
	}
	g.mu.Unlock()
	if again {
		return
	}
	select {
	case g.dial <- to:
	default:
	}
}

// forgetCalls is called with mu held.
func (g *Gossip) forgetCalls(now time.Time) {
	maps.DeleteFunc(g.called, func(_ netip.AddrPort, at time.Time) bool { return now.Sub(at) >= callAgain })
}
