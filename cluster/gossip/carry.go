package gossip

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// eachLine: when more happens at once, one line of the log counts it.
	eachLine = 8
)

// carry does what the ledger wants done. It is called with no lock held.
func (g *Gossip) carry(out outbox) {
	g.log(out)
	ml := g.ml.Load()
	if ml == nil {
		return
	}
	for _, p := range out.pings {
		m := message{kind: pingMessage, nonce: p.nonce, name: p.name, id: p.id, from: g.self.name, reply: g.self.addr}
		g.send(ml, p.to, m)
	}
	for _, t := range out.tells {
		g.send(ml, t.to, t.m)
	}
	for _, m := range out.casts {
		g.delegate.casts.QueueBroadcast(&cast{body: m.encode()})
	}
	if len(out.casts) > 0 {
		g.delegate.casts.Prune(maxCasts)
	}
	for _, to := range out.calls {
		g.call(to)
	}
}

// send tells one host something. Who isn't reached won't answer.
func (g *Gossip) send(ml *memberlist.Memberlist, to netip.AddrPort, m message) {
	if err := ml.SendToAddress(memberlist.Address{Addr: to.String()}, m.encode()); err != nil {
		g.logger.Debug("gossip: send", "addr", to, "err", err)
	}
}

// cast is a message to everybody.
type cast struct {
	body []byte
	sent chan struct{} // closed when it was told often enough; may be nil
}

// Invalidates implements memberlist.Broadcast.
func (*cast) Invalidates(memberlist.Broadcast) bool { return false }

// UniqueBroadcast implements memberlist.UniqueBroadcast.
func (*cast) UniqueBroadcast() {}

// Message implements memberlist.Broadcast.
func (c *cast) Message() []byte { return c.body }

// Finished implements memberlist.Broadcast.
func (c *cast) Finished() {
	if c.sent != nil {
		close(c.sent)
	}
}

// What the log says of each kind of event.
var eventLines = map[EventKind]saying{
	Joined:   {slog.LevelInfo, "gossip: member is alive"},
	Gone:     {slog.LevelInfo, "gossip: member left"},
	Died:     {slog.LevelWarn, "gossip: member is dead: three pings unanswered, or its port refused"},
	Updated:  {slog.LevelDebug, "gossip: member tells something else of itself"},
	Reaped:   {slog.LevelInfo, "gossip: member was dead for too long and counts as left"},
	Conflict: {slog.LevelError, "gossip: two hosts claim the same"},
	Held:     {slog.LevelInfo, "gossip: member is back and is left out until it has been steady"},
}

func (g *Gossip) log(out outbox) {
	for _, l := range out.lines {
		g.logger.Log(context.Background(), l.level, l.text, l.args...)
	}
	many := make(map[EventKind]int)
	for _, e := range out.events {
		if many[e.Kind]++; many[e.Kind] > eachLine || e.Member.Name == g.self.name {
			continue
		}
		args := []any{"node", e.Member.Name, "addr", netip.AddrPortFrom(e.Member.Addr, e.Member.Port)}
		if e.Text != "" {
			args = append(args, "err", e.Text)
		}
		if e.Kind == Died {
			args = append(args, "by", e.Member.ToldBy)
		}
		if e.Kind == Held {
			args = append(args, "until", e.Member.HeldUntil.Format(time.TimeOnly), "gone", e.Member.Flaps)
		}
		line := eventLines[e.Kind]
		g.logger.Log(context.Background(), line.level, line.text, args...)
	}
	for _, kind := range slices.Sorted(maps.Keys(many)) {
		if n := many[kind]; n > eachLine {
			g.logger.Log(context.Background(), eventLines[kind].level, eventLines[kind].text, "more", n-eachLine)
		}
	}
}

// tellAll calls OnLife.
func (g *Gossip) tellAll(ctx context.Context) {
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
