package gossip

import (
	"log/slog"
	"net/netip"
	"time"
)

// outbox is what the ledger wants done.
type outbox struct {
	changed bool
	lives   map[string]struct{} // IDs whose life may have changed
	names   map[string]struct{} // names whose record has changed
	pings   []pingTo
	calls   []netip.AddrPort // to compare lists with
	tells   []tellTo
	casts   []message
	events  []Event
	lines   []line
}

type pingTo struct {
	nonce    uint64
	name, id string
	to       netip.AddrPort
}

// tellTo is a message for one host.
type tellTo struct {
	to netip.AddrPort
	m  message
}

// line is one for the log.
type line struct {
	level slog.Level
	text  string
	args  []any
}

// saying is something that the log should have beside the events.
type saying struct {
	level slog.Level
	text  string
}

var (
	braked    = saying{slog.LevelWarn, "gossip: more than half of the other hosts died at once, so this host suspects itself and takes out nobody"}
	unbraked  = saying{slog.LevelWarn, "gossip: half of the other hosts are back, or their deaths confirmed: deaths count again"}
	replaced  = saying{slog.LevelWarn, "gossip: another host has taken over the name of one that is gone"}
	movedTo   = saying{slog.LevelInfo, "gossip: member has another address"}
	renamedTo = saying{slog.LevelInfo, "gossip: member has another name"}
)

func newOutbox() outbox {
	return outbox{lives: make(map[string]struct{}), names: make(map[string]struct{})}
}

// takeOut empties the outbox.
func (l *ledger) takeOut() outbox {
	out := l.out
	l.out = newOutbox()
	return out
}

// touch notes that a record has changed.
func (o *outbox) touch(r *record) {
	o.changed = true
	o.lives[r.ID] = struct{}{}
	o.names[r.Name] = struct{}{}
}

func (o *outbox) event(now time.Time, kind EventKind, r *record, text string) {
	o.changed = true
	o.events = append(o.events, Event{Kind: kind, Member: r.Member, Text: text, At: now})
}

func (o *outbox) say(s saying, args ...any) {
	o.lines = append(o.lines, line{level: s.level, text: s.text, args: args})
}
