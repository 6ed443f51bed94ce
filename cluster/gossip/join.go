package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"meibo/cluster/membership"
	"meibo/cluster/retry"
)

const (
	// lookupWait bounds the look-up of a name to join.
	lookupWait = 5 * time.Second
	// joinsAtOnce bounds how many are called at a time.
	joinsAtOnce = 8
	// Leaving: the intent is told for at most leaveTold, and gossip goes on for
	// leaveLinger after memberlist has told it too.
	leaveTold   = time.Second
	leaveWait   = 3 * time.Second
	leaveLinger = 500 * time.Millisecond
	// pingAgain is how often Ping asks again.
	pingAgain = 250 * time.Millisecond
)

var errLeft = errors.New("gossip: this host has left: restart it to come back")

// Join calls hosts by address and compares lists with them. It returns how many
// were reached, and an error that names the others if none was.
func (g *Gossip) Join(ctx context.Context, addrs []string) (int, error) {
	reached, _, err := g.join(ctx, addrs)
	return reached, err
}

// join does what Join does, and returns those of addrs that were not reached, or of
// which an address wasn't.
func (g *Gossip) join(ctx context.Context, addrs []string) (reached int, missing []string, err error) {
	select {
	case <-g.started:
	case <-ctx.Done():
		return 0, addrs, errNotRunning
	}
	if g.Members().Self().Status == membership.Left {
		return 0, addrs, errLeft
	}
	var mu sync.Mutex // guards the results
	var failures []error
	var wg sync.WaitGroup
	slots := make(chan struct{}, joinsAtOnce)
	for _, given := range addrs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			n, err := g.joinOne(ctx, given)
			mu.Lock()
			defer mu.Unlock()
			reached += n
			if err != nil {
				missing, failures = append(missing, given), append(failures, err)
			}
		})
	}
	wg.Wait()
	if reached > 0 {
		return reached, missing, nil
	}
	return 0, missing, byCause(failures)
}

// joinError is why a host was not reached.
type joinError struct {
	to  string
	err error
}

func (e *joinError) Error() string { return "join " + e.to + ": " + e.err.Error() }
func (e *joinError) Unwrap() error { return e.err }

// byCause is one error of those of several hosts, in which each cause is said once.
func byCause(failures []error) error {
	slices.SortFunc(failures, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	var causes []*joinError
	var rest []error
	for _, f := range failures {
		one := new(joinError)
		if !errors.As(f, &one) {
			rest = append(rest, f)
			continue
		}
		same := slices.IndexFunc(causes, func(c *joinError) bool { return c.err.Error() == one.err.Error() })
		if same < 0 {
			causes = append(causes, &joinError{one.to, one.err})
			continue
		}
		causes[same].to += ", " + one.to
	}
	for _, c := range causes {
		rest = append(rest, c)
	}
	return errors.Join(rest...)
}

// joinOne calls all addresses of one given host.
func (g *Gossip) joinOne(ctx context.Context, given string) (reached int, err error) {
	targets, err := g.resolve(ctx, given)
	if err != nil {
		return 0, &joinError{given, err}
	}
	for _, to := range targets {
		if to == g.self.At() {
			reached++ // itself, in a list that all servers share
			continue
		}
		if ctx.Err() != nil {
			return reached, &joinError{given, ctx.Err()}
		}
		if e := g.reach(to); e != nil {
			err = &joinError{named(given, to), g.blame(flat(e))}
			continue
		}
		reached++
	}
	return reached, err
}

// named writes an address as it was given, and as it was taken.
func named(given string, to netip.AddrPort) string {
	if given == to.String() {
		return given
	}
	return given + " (" + to.String() + ")"
}

// blame adds to what kept this host from joining what to do about it here.
func (g *Gossip) blame(err error) error {
	if name, ok := serfNode(err.Error()); ok {
		return consulError{name}
	}
	if !strings.Contains(err.Error(), "installed keys could decrypt") {
		return err
	}
	keys := "the key in this host's configuration (encrypt)"
	if path := g.cfg.Keyring.Path(); path != "" {
		keys = "this host's keys, kept in " + path
	}
	if held, _ := g.cfg.Keyring.Keys(); len(held) > 1 {
		return fmt.Errorf("%w: the key that this host encrypts with is not that cluster's any more; it has others, and changes over when a host of the cluster calls it", errOldKey)
	}
	return fmt.Errorf("%s, are not that cluster's, or were removed from its keyring (no installed keys could decrypt): if its key was changed while this host was away, or another one was configured here at first, "+
		"stop this host, put the cluster's key into encrypt, remove that file and its .past, and start it", keys)
}

// errOldKey is why a host is not reached that one may be reached by.
var errOldKey = errors.New("the host there can't read this one's")

// resolve finds the addresses of HOST or HOST:PORT. The port is this host's own
// unless it is said.
func (g *Gossip) resolve(ctx context.Context, given string) ([]netip.AddrPort, error) {
	port := g.self.Port
	if p := g.cfg.Bind.Port(); p != 0 {
		port = p
	}
	if a, err := netip.ParseAddrPort(given); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a.Addr().Unmap(), a.Port())}, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(given, "[]")); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a.Unmap(), port)}, nil
	}
	if strings.Contains(given, "provider=") {
		return nil, errors.New("look-up at a cloud provider isn't supported: give host names or addresses")
	}
	if strings.HasPrefix(given, "exec=") {
		return nil, errors.New("a program is run for retry_join alone: give host names or addresses")
	}
	host := given
	if h, p, err := net.SplitHostPort(given); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("port %q is not a number from 1 to 65535", p)
		}
		host, port = h, uint16(n)
	}
	ctx, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var out []netip.AddrPort
	for _, a := range found {
		if to := netip.AddrPortFrom(a.Unmap(), port); !slices.Contains(out, to) {
			out = append(out, to)
		}
	}
	return out, nil
}

// joinAgain calls the configured hosts: all of them at start and for as long as nobody
// else is there, and then, less and less often, those that were never reached: who was
// met first may know no more than this host.
func (g *Gossip) joinAgain(ctx context.Context) {
	addrs := slices.Concat(g.cfg.RetryJoin, g.cfg.StartJoin)
	slices.Sort(addrs)
	addrs = slices.Compact(addrs)
	if len(addrs)+len(g.cfg.RetryJoinExec) == 0 {
		return
	}
	missing, due := addrs, time.Time{}
	var said unreached
	pause, seldom := callFirst, callFirst
	for attempt := 1; ; attempt++ {
		alone := g.alone()
		switch {
		case alone:
			var n int
			var err error
			n, missing, err = g.joinAll(ctx, addrs)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && withoutConsul(err) == nil:
				g.logger.Debug("gossip: only Consul was reached; trying again", "attempt", attempt, "dur", pause, "err", err)
			case err != nil:
				err := withoutConsul(err)
				g.logger.Log(ctx, said.level(err, attempt), "gossip: nobody was reached; trying again", "attempt", attempt, "dur", pause, "err", err)
			case g.alone():
				g.logger.Debug("gossip: joined nobody but itself", "reached", n)
			default:
				g.logger.Info("gossip: joined", "reached", n, "missing", len(missing))
			}
			if err != nil && g.cfg.RetryMax > 0 && attempt >= g.cfg.RetryMax {
				g.logger.Error("gossip: gave up joining after retry_max attempts: use `meibo join`, or restart", "attempt", attempt, "err", err)
				return
			}
		case len(missing) > 0 && !time.Now().Before(due):
			var n int
			n, missing, _ = g.join(ctx, missing)
			g.logger.Debug("gossip: hosts that were not reached are called again", "reached", n, "missing", len(missing))
			due = time.Now().Add(jitter(seldom))
			seldom = min(2*seldom, callSeldom)
		}
		if !alone {
			attempt, pause = 0, callFirst
		}
		// The first attempts follow each other faster, so that hosts that are
		// started together find each other; a limited number is spent slowly.
		wait := jitter(g.cfg.RetryInterval)
		if g.cfg.RetryMax == 0 && attempt > 0 {
			wait = min(jitter(pause), wait)
			pause = min(2*pause, g.cfg.RetryInterval)
		}
		if len(missing) > 0 && !g.alone() {
			wait = min(wait, max(time.Until(due), callFirst))
		}
		if !retry.Wait(ctx, wait) {
			return
		}
	}
}

// unreached is what was last said of hosts that are not reached.
type unreached struct {
	text string
	at   time.Time
}

// oldKeyIsNews is from which attempt on an old key doesn't mend itself.
const oldKeyIsNews = 4

// ownPort is what each try has another of.
var ownPort = regexp.MustCompile(`:\d+->`)

// level is at which level it is said: the same once in a while is enough.
func (u *unreached) level(err error, attempt int) slog.Level {
	if attempt < oldKeyIsNews && errors.Is(err, errOldKey) {
		return slog.LevelInfo
	}
	text := ownPort.ReplaceAllString(err.Error(), "->")
	if text == u.text && time.Since(u.at) < quiet {
		return slog.LevelDebug
	}
	u.text, u.at = text, time.Now()
	return slog.LevelWarn
}

// joinAll joins the hosts at addrs and those that programs print, and returns which of
// all of them are missing. What one program says is no reason not to call the others'
// hosts.
func (g *Gossip) joinAll(ctx context.Context, addrs []string) (reached int, missing []string, err error) {
	all := slices.Clone(addrs)
	var errs []error
	for _, argv := range g.cfg.RetryJoinExec {
		found, err := addresses(ctx, argv)
		if err != nil {
			errs = append(errs, err)
		}
		all = append(all, found...)
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) == 0 {
		return 0, nil, errors.Join(errs...)
	}
	reached, missing, err = g.join(ctx, all)
	if reached == 0 {
		return 0, missing, errors.Join(append(errs, err)...)
	}
	for _, e := range errs {
		g.logger.Warn("gossip: joined without what a program was to say", "err", e)
	}
	return reached, missing, nil
}

// alone reports whether gossip has nobody else.
func (g *Gossip) alone() bool {
	t := g.Members()
	return t.Self().Status != membership.Left && !slices.ContainsFunc(t.Members(), func(m *membership.Member) bool {
		return m != t.Self() && m.InTouch()
	})
}

// callLost calls members that gossip has lost, again and again: nobody else
// does, and a split would last. Having met the first, it compares lists with a
// few others.
func (g *Gossip) callLost(ctx context.Context) {
	pause := callFirst
	// Together hosts call some five times a second: who comes back is met soon in a small
	// cluster too.
	most := func() time.Duration {
		return min(max(time.Duration(len(g.Members().Members()))*callEach, callLeast), callEvery)
	}
	var joined <-chan struct{} = g.joined
	var again <-chan time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	for armed := true; ; {
		t := g.Members()
		if !armed && slices.ContainsFunc(t.Members(), (*membership.Member).Lost) {
			timer.Reset(jitter(min(pause, most())))
			armed = true
		}
		changed := t.Changed()
		if armed {
			changed = nil
		}
		select {
		case <-changed:
		case <-timer.C:
			g.callSome(callsEach, (*membership.Member).Lost)
			pause, armed = min(2*pause, callEvery), false
		case <-joined:
			g.callSome(syncPeers, (*membership.Member).InTouch)
			joined, again, pause = nil, time.After(syncAgain), callEvery
		case <-again:
			g.callSome(syncPeers, (*membership.Member).InTouch)
		case <-ctx.Done():
			return
		}
	}
}

// callSome calls up to n of the other members that whom is true of.
func (g *Gossip) callSome(n int, whom func(*membership.Member) bool) {
	t := g.Members()
	if t.Self().Status == membership.Left {
		return
	}
	var to []netip.AddrPort
	for _, m := range t.Members() {
		if m != t.Self() && m.Addr.IsValid() && whom(m) {
			to = append(to, m.At())
		}
	}
	rand.Shuffle(len(to), func(i, j int) { to[i], to[j] = to[j], to[i] })
	for _, a := range to[:min(n, len(to))] {
		g.call(a)
	}
}

// dialOut compares lists with those who are to be called.
func (g *Gossip) dialOut(ctx context.Context) {
	for {
		select {
		case to := <-g.dial:
			if err := g.reach(to); err != nil {
				g.logger.Debug("gossip: call", "addr", to, "err", flat(err))
			}
		case <-ctx.Done():
			return
		}
	}
}

// Leave tells everybody that this host goes: they will say Left of it, not
// Failed. Gossip goes on until Run ends, but as one who has left.
func (g *Gossip) Leave(ctx context.Context) error {
	ml := g.ml.Load()
	if ml == nil {
		return errNotRunning
	}
	alone := g.alone()
	var told *broadcast // queued here, to be told when it is out
	g.with(func(m *membership.Machine, now time.Time) {
		if m.Table().Self().Status != membership.Left {
			told = &broadcast{body: encodeMessage(m.Leave(now)), sent: make(chan struct{})}
		}
	})
	if told == nil || alone {
		return nil
	}
	g.broadcasts.QueueBroadcast(told)
	g.hasten()
	retry.WaitFor(ctx, leaveTold, told.sent)
	g.hasten()
	err := ml.Leave(leaveWait)
	retry.Wait(ctx, leaveLinger)
	if err != nil {
		return fmt.Errorf("gossip: leave: %w", err)
	}
	return ctx.Err()
}

// ForceLeave has a dead member count as left, everywhere; with prune it is
// forgotten at once. One that lives isn't touched, this host among them: it
// would contradict.
func (g *Gossip) ForceLeave(name string, prune bool) error {
	known := false
	g.with(func(m *membership.Machine, now time.Time) { known = m.ForceLeave(now, name, prune) })
	if !known {
		return noMember(name)
	}
	return nil
}

func noMember(name string) error {
	return fmt.Errorf("gossip: no member is called %q: see `meibo members`", name)
}

// Ping asks a member for a sign of life until ctx ends, and returns how long
// the answer took.
func (g *Gossip) Ping(ctx context.Context, name string) (time.Duration, error) {
	answers := make(chan time.Duration, 1)
	answer := func(rtt time.Duration) {
		select {
		case answers <- rtt:
		default:
		}
	}
	for name != g.self.Name {
		known := false
		g.with(func(m *membership.Machine, now time.Time) { known = m.Ping(now, name, answer) })
		if !known {
			return 0, noMember(name)
		}
		select {
		case rtt := <-answers:
			return rtt, nil
		case <-time.After(pingAgain):
		case <-ctx.Done():
			return 0, fmt.Errorf("gossip: %q doesn't answer: %w", name, ctx.Err())
		}
	}
	return 0, nil
}
