package membership

import (
	"log/slog"
	"net/netip"
)

// Wants is what a machine wants done.
type Wants struct {
	Changed    bool     // the table shows something else
	Met        bool     // another member was met for the first time
	Lives      []string // IDs of which Table.Life says something else
	Sends      []Send
	Broadcasts []Message
	Syncs      []netip.AddrPort // hosts to compare lists with
	Events     []Event
}

// Send is a message for one host.
type Send struct {
	To      netip.AddrPort
	Message Message
}

// Event is something that happened, for the log.
type Event struct {
	*Line
	Args []any
}

// Line is what the log says of a kind of events.
type Line struct {
	Level slog.Level
	Text  string
}

var (
	alive       = &Line{slog.LevelInfo, "gossip: member is alive"}
	gone        = &Line{slog.LevelInfo, "gossip: member left"}
	died        = &Line{slog.LevelWarn, "gossip: member is dead: three pings unanswered, or its port refused"}
	updated     = &Line{slog.LevelDebug, "gossip: member tells something else of itself"}
	reaped      = &Line{slog.LevelInfo, "gossip: member was dead for too long and counts as left"}
	claimedBoth = &Line{slog.LevelError, "gossip: two hosts claim the same"}
	held        = &Line{slog.LevelInfo, "gossip: member is back and is left out until it has been steady"}
	guardBegan  = &Line{slog.LevelWarn, "gossip: more than half of the other hosts died at once, so this host suspects itself and takes out nobody"}
	guardEnded  = &Line{slog.LevelWarn, "gossip: half of the other hosts are back, or their deaths confirmed: deaths count again"}
	replaced    = &Line{slog.LevelWarn, "gossip: another host has taken over the name of one that is gone"}
	movedTo     = &Line{slog.LevelInfo, "gossip: member has another address"}
	renamedTo   = &Line{slog.LevelInfo, "gossip: member has another name"}
	inConflict  = &Line{slog.LevelError, "gossip: this host is in conflict with another"}
)

// log has something about a member in the log.
func (m *Machine) log(l *Line, r *record, args ...any) {
	m.emit(l, append([]any{"node", r.Name, "addr", r.At()}, args...)...)
}

func (m *Machine) emit(l *Line, args ...any) {
	m.want.Events = append(m.want.Events, Event{l, args})
}
