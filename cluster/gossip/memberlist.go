package gossip

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/memberlist"

	"meibo/cluster/membership"
)

// This file has all that works around memberlist. Each part says what memberlist
// would have to offer so that the part could go.

// memberlist returns memberlist's configuration. Compression is off: each
// packet would cost 64 KiB of garbage, and gossip is small.
//
// DeadNodeReclaimTime lets any name be taken over, since NotifyAlive has decided by
// then. To go: a return value of AliveDelegate that says "in the place of the old".
func (cfg Config) memberlist() *memberlist.Config {
	ml := memberlist.DefaultLANConfig()
	ml.Name = cfg.Name
	ml.BindPort = int(cfg.Bind.Port())
	ml.GossipNodes, ml.GossipInterval = cfg.Tuning.Nodes, cfg.Tuning.Interval
	ml.ProbeInterval, ml.ProbeTimeout = cfg.Tuning.ProbeInterval, min(cfg.Tuning.ProbeTimeout, cfg.Tuning.ProbeInterval)
	ml.SuspicionMult, ml.RetransmitMult = cfg.Tuning.SuspicionMult, cfg.Tuning.RetransmitMult
	ml.IndirectChecks = 5
	ml.TCPTimeout = 5 * time.Second
	ml.EnableCompression = false
	ml.DeadNodeReclaimTime = time.Nanosecond // who may take a name over, NotifyAlive decides
	ml.UDPBufferSize = 1400
	ml.HandoffQueueDepth = 4096
	for _, p := range cfg.Allowed {
		p = p.Masked()
		ml.CIDRsAllowed = append(ml.CIDRsAllowed, net.IPNet{
			IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
		})
	}
	return ml
}

// create starts memberlist, and lets it begin where no earlier life of this
// host has been: with an incarnation from the clock. Else what was recorded of
// an earlier life would be news, and others who have this host dead would not
// hear of its return until they happen to compare lists. To go: a first incarnation
// in memberlist's Config.
func (g *Gossip) create() (*memberlist.Memberlist, error) {
	cfg := g.cfg.memberlist()
	cfg.Transport = g.transport
	cfg.BindPort = int(g.self.Port)
	cfg.Logger = newLines(g.logger, g.accuse, g.hasten)
	d := delegate{g}
	cfg.Delegate, cfg.Events, cfg.Alive, cfg.Conflict, cfg.Merge, cfg.Ping = d, d, d, d, d, d
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
	accusation, err := accusation(g.self.Name, uint32(time.Now().Unix()), keys)
	if err != nil {
		return nil, errors.Join(err, ml.Shutdown())
	}
	g.rounds.Store(newRounds(ml, g.cfg.Tuning, g.broadcasts))
	g.transport.inject(accusation)
	return ml, nil
}

// accusation is a packet in which a host suspects itself in a given
// incarnation; it refutes that with the next one.
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

// runs numbers the Gossips of a process, to tell their goroutines apart.
var runs atomic.Uint64

// start creates memberlist, and returns with it what waits for the goroutines that
// it started: they inherit profiler labels. To go: a Shutdown that waits for them.
func (g *Gossip) start(ctx context.Context) (ml *memberlist.Memberlist, awaitEnd func(), err error) {
	label := pprof.Labels("gossip", strconv.FormatUint(runs.Add(1), 10))
	pprof.Do(ctx, label, func(context.Context) { ml, err = g.create() })
	return ml, func() { g.awaitEnd(label) }, err
}

func (g *Gossip) awaitEnd(label pprof.LabelSet) {
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
		if time.Since(began) > endWait {
			g.logger.Warn("gossip: memberlist hasn't stopped")
			return
		}
		time.Sleep(wait)
	}
}

// mirror makes memberlist's ring equal to keys. memberlist's RemoveKey shifts
// the list in place under its readers, unless the key is the last: so what
// stands behind a key that goes is taken out with it and put back. To go: a Keyring
// that takes a whole list at once.
func mirror(ring *memberlist.Keyring, keys [][]byte) error {
	for _, key := range keys {
		if err := ring.AddKey(key); err != nil {
			return err
		}
	}
	if len(keys) > 0 {
		if err := ring.UseKey(keys[0]); err != nil {
			return err
		}
	}
	have := slices.Clone(ring.GetKeys())
	first := slices.IndexFunc(have, func(key []byte) bool { return !hasKey(keys, key) })
	if first < 0 {
		return nil
	}
	for _, key := range slices.Backward(have[first:]) {
		if err := ring.RemoveKey(key); err != nil {
			return err
		}
	}
	for _, key := range have[first:] {
		if hasKey(keys, key) {
			if err := ring.AddKey(key); err != nil {
				return err
			}
		}
	}
	return nil
}

// flat takes an error of memberlist's Join, which is written as a list, down to
// one line. To go: errors that can be unwrapped.
func flat(err error) error {
	text := err.Error()
	if _, after, ok := strings.Cut(text, "* "); ok {
		text = after
	}
	if _, after, ok := strings.Cut(text, "failed to join "); ok {
		if _, reason, ok := strings.Cut(after, ": "); ok {
			text = reason
		}
	}
	return errors.New(strings.Join(strings.Fields(text), " "))
}

const (
	// quiet is how long the same kind of warning of memberlist's about the same
	// host is told once only.
	quiet = 5 * time.Minute
	// maxTold bounds what is remembered of that: strangers choose how many
	// addresses they come from. Beyond it hosts aren't told apart.
	maxTold = 128
	// accusedKept is how long memberlist may take from the line of its log to the
	// event.
	accusedKept = 500 * time.Millisecond
	maxAccused  = 64
	endWait     = 10 * time.Second // for memberlist's goroutines at the end
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
// they mean. All else is chatter, or is told better by the members.
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

// lines takes memberlist's log, which it writes as text. To go: typed errors, or a
// slog.Handler.
type lines struct {
	to     *slog.Logger
	accuse func(name string, dead bool) // this host's own suspicions and verdicts; must not block
	any    func()                       // something happens, and may have to be told; must not block

	mu      sync.Mutex // guards following
	told    map[string]time.Time
	keyedAt time.Time       // when a host of another key was last told of
	consuls map[string]bool // by name
}

func newLines(to *slog.Logger, accuse func(name string, dead bool), any func()) *log.Logger {
	return log.New(&lines{to: to, accuse: accuse, any: any, told: make(map[string]time.Time), consuls: make(map[string]bool)}, "", 0)
}

// Write implements io.Writer; memberlist writes a line at a time.
func (l *lines) Write(line []byte) (int, error) {
	l.any()
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

// accuse takes what memberlist's log says of whom this host itself suspects, or
// calls dead. To go: an event for a probe that failed, and the accuser in NotifyLeave.
func (g *Gossip) accuse(name string, dead bool) {
	g.inbox.put(maxChanges, func(m *membership.Machine, now time.Time) {
		switch {
		case !dead:
			m.ProbeFailed(now, name)
			return
		case len(g.accused) > maxAccused:
			clear(g.accused)
		}
		g.accused[name] = now
	})
}

// accuserOf is this host's name if it just called the host dead itself; nobody
// knows of others.
func (g *Gossip) accuserOf(now time.Time, name string) string {
	if at, ok := g.accused[name]; ok && now.Sub(at) < accusedKept {
		return g.self.Name
	}
	return ""
}

// serfMinimum is the lowest version of Serf's delegate that Consul ever spoke.
const serfMinimum = 2

var lineIncompatible = regexp.MustCompile(`Node '(.*)' delegate protocol version \(([0-9]+)\) is incompatible`)

// serfNode is the name of the host that speaks Serf, by what memberlist says of
// a merge that it refused. To go: an error of its own with the node and its
// versions.
func serfNode(text string) (name string, ok bool) {
	m := lineIncompatible.FindStringSubmatch(text)
	if m == nil {
		return "", false
	}
	if version, err := strconv.Atoi(m[2]); err != nil || version < serfMinimum {
		return "", false
	}
	return m[1], true
}

// consul warns of a host that speaks Serf once, as far as that can be
// remembered.
func (l *lines) consul(name, text string) {
	l.mu.Lock()
	again := l.consuls[name] || len(l.consuls) >= maxTold
	if !again {
		l.consuls[strings.Clone(name)] = true
	}
	l.mu.Unlock()
	if !again {
		l.to.Warn("gossip: "+isConsul(name), "memberlist", text)
	}
}
