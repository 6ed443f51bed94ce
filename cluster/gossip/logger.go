package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	// quiet is how long the same kind of warning of memberlist's about the same
	// host is told once only.
	quiet = 5 * time.Minute
	// maxTold bounds what is remembered of that: strangers choose how many
	// addresses they come from. Beyond it hosts aren't told apart.
	maxTold = 128
)

// Lines of memberlist's that say what no delegate is told: whom this host
// itself suspects, and whom it called dead.
const (
	lineSuspect = "Suspect " // NAME has failed, no acks received
	lineDead    = "Marking " // NAME as failed, suspect timeout reached (…)
	endSuspect  = " has failed, no acks"
	endDead     = " as failed, suspect "
)

// Of a packet alone nobody can tell which end has the wrong key; of those of several
// hosts it may be this one.
const (
	otherKey  = "a host gossips with a key that this one does not have: one of the two lacks the cluster's present key, see `meibo keyring list` on another host"
	otherKeys = "several hosts gossip with keys that this one does not have: it may be this host that lacks the cluster's present key, see `meibo keyring list` on another host"
)

// warnings are the lines of memberlist's that an operator should see, and what
// they mean. All else is chatter, or is told better by the ledger.
var warnings = []struct{ part, means string }{
	{"No installed keys could decrypt", otherKey},
	{"no installed keys could decrypt", otherKey},
	{"remote state is encrypted and encryption is not configured", "a host with a key gossips with us, who have none: configure encrypt here"},
	{"encryption is configured but remote state is not encrypted", "a host without any key gossips with us: give it this cluster's key, or keep it away"},
	{"over TCP but UDP probes failed", "a member answers over TCP and not over UDP: let UDP through between them"},
	{"handler queue full", "gossip comes faster than it is handled: messages are dropped"},
	{"Too many pending push/pull", "too many hosts compare their lists with ours at once: they will try again"},
	{"size is", "the list of members nears memberlist's limit"},
}

// lines takes memberlist's log, which it writes as text.
type lines struct {
	to     *slog.Logger
	accuse func(name string, dead bool) // this host's own suspicions and verdicts; must not block

	mu      sync.Mutex // guards following
	told    map[string]time.Time
	keyedAt time.Time       // when a host of another key was last told of
	consuls map[string]bool // by name
}

func newLines(to *slog.Logger, accuse func(name string, dead bool)) *log.Logger {
	return log.New(&lines{to: to, accuse: accuse, told: make(map[string]time.Time), consuls: make(map[string]bool)}, "", 0)
}

// Write implements io.Writer; memberlist writes a line at a time.
func (l *lines) Write(line []byte) (int, error) {
	text := string(bytes.TrimSpace(line))
	if strings.HasPrefix(text, "[") {
		_, text, _ = strings.Cut(text, "] ")
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	if name, ok := between(text, lineSuspect, endSuspect); ok {
		l.accuse(name, false)
	} else if name, ok := between(text, lineDead, endDead); ok {
		l.accuse(name, true)
	}
	if name, ok := serfNode(text); ok {
		l.consul(name, text)
		return len(line), nil
	}
	for _, w := range warnings {
		if !strings.Contains(text, w.part) {
			continue
		}
		if strings.HasPrefix(text, "failed to join ") && w.means == otherKey {
			break // said by who joins, with what to do about it
		}
		l.warn(w.means, text)
		return len(line), nil
	}
	if l.to.Enabled(context.Background(), slog.LevelDebug) {
		l.to.Debug("memberlist: " + text)
	}
	return len(line), nil
}

func (l *lines) warn(means, text string) {
	now := time.Now()
	l.mu.Lock()
	maps.DeleteFunc(l.told, func(_ string, at time.Time) bool { return now.Sub(at) >= quiet })
	what := means
	if len(l.told) < maxTold {
		what += sourceOf(text)
	}
	_, again := l.told[what]
	if means == otherKey && !again && !l.keyedAt.IsZero() && now.Sub(l.keyedAt) < quiet {
		means, what = otherKeys, otherKeys // of whichever host, once
		_, again = l.told[what]
	}
	if !again {
		l.told[what] = now
		if means == otherKey {
			l.keyedAt = now
		}
	}
	l.mu.Unlock()
	if !again {
		l.to.Warn("gossip: "+means, "memberlist", text)
	}
}

// sourceOf is the address in a line that ends with from=ADDRESS:PORT, without the
// port; "" if there is none.
func sourceOf(text string) string {
	_, from, _ := strings.Cut(text, "from=")
	addr, err := netip.ParseAddrPort(from)
	if err != nil {
		return ""
	}
	return addr.Addr().String()
}

// between cuts the words out of begin…end…, where the line starts with begin.
func between(text, begin, end string) (string, bool) {
	text, ok := strings.CutPrefix(text, begin)
	if !ok {
		return "", false
	}
	i := strings.LastIndex(text, end)
	if i < 0 {
		return "", false
	}
	return text[:i], true
}
