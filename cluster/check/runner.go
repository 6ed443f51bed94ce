//lint:file-ignore ST1005 clients compare these texts with Consul's, capitals included

package check

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// Config is what a Runner is made from.
type Config struct {
	Definition Definition
	// Label names the check in the log.
	Label string
	// Report is called with each status that counts and its output, from the
	// goroutine of Run or Update, one call at a time. It must not call back
	// into the runner. Required.
	Report func(status, output string)
	// Alias says what an alias check follows: required for one, else unused.
	// It is called at the start, whenever Changed delivers, and every ten
	// seconds, for those that follow what cannot tell of its changes.
	Alias   func(ctx context.Context) (status, output string)
	Changed <-chan struct{}
	// ScriptsAllowed is the permission to run programs.
	ScriptsAllowed bool
	// Expires is how much is left of a TTL that was renewed before a restart;
	// 0 means all of it.
	Expires time.Duration
	// TLS is what checks over TLS show and trust; nil: no certificate, the
	// system's CAs.
	TLS *TLS
	// Slots is shared with the other runners; nil means no bound.
	Slots *Slots
	// Now is boot time; nil means the real clock. Tests give their own.
	Now    func() time.Duration
	Logger *slog.Logger // nil discards
}

// ErrScriptsDisabled refuses a script without permission, in Consul's words.
var ErrScriptsDisabled = errors.New("Scripts are disabled on this agent; to enable, configure 'enable_script_checks' or 'enable_local_script_checks' to true")

// ErrUnrunnable refuses a check of a kind that is known and that this daemon
// does not run.
var ErrUnrunnable = errors.New("docker checks are not run by meibo: run `docker exec` from a script check (args), or use an http, tcp or ttl check")

// ErrNotTTL refuses a status for a check that finds its own.
var ErrNotTTL = errors.New("check does not have associated TTL")

// Runner runs one check. Its methods may be called concurrently.
type Runner struct {
	cfg     Config
	def     *Definition
	kind    Kind
	prober  prober // nil for TTL and alias
	counter counter

	ttl ttl
}

// prober does one run. Its ctx ends at the timeout.
type prober interface {
	probe(ctx context.Context) (status, output string)
}

// New checks cfg and returns a runner that has not started.
func New(cfg Config) (*Runner, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = bootTime
	}
	if cfg.Report == nil {
		return nil, errors.New("check runner needs a Report function")
	}
	if err := cfg.Definition.Validate(); err != nil {
		return nil, err
	}
	r := &Runner{cfg: cfg, kind: cfg.Definition.Kind()}
	r.def = &r.cfg.Definition
	r.counter = newCounter(r.def)
	if r.def.Interval > 0 && r.def.Interval < MinInterval {
		cfg.Logger.Warn("check interval raised to the minimum", "check", cfg.Label, "dur", r.def.Interval)
		r.def.Interval = MinInterval
	}
	if named := r.def.Others(); len(named) > 0 {
		cfg.Logger.Warn("check names more than one kind; the others are ignored",
			"check", cfg.Label, "runs", r.kind, "ignored", named)
	}
	return r, r.prepare()
}

// prepare makes what the kind needs.
func (r *Runner) prepare() (err error) {
	d := r.def
	switch r.kind {
	case KindTTL:
		r.ttl.init(r)
	case KindAlias:
		if r.cfg.Alias == nil {
			return errors.New("alias check needs to be told how to find what it follows")
		}
	case KindHTTP:
		r.prober, err = newHTTPProber(d, r.cfg.TLS)
	case KindTCP:
		r.prober = &tcpProber{d, r.cfg.TLS}
	case KindUDP:
		r.prober = &udpProber{d}
	case KindGRPC:
		r.prober = newGRPCProber(d, r.cfg.TLS)
	case KindH2Ping:
		r.prober = &h2pingProber{d, r.cfg.TLS}
	case KindOSService:
		r.prober = &osServiceProber{d, "systemctl"}
	case KindScript:
		if !r.cfg.ScriptsAllowed {
			return ErrScriptsDisabled
		}
		r.prober = &scriptProber{d}
	case KindDocker:
		return ErrUnrunnable
	default:
		return fmt.Errorf("checks of kind %q cannot be run", r.kind)
	}
	return err
}

// Run runs the check until ctx ends, then returns nil once the run in progress
// has been stopped.
func (r *Runner) Run(ctx context.Context) error {
	switch r.kind {
	case KindTTL:
		r.ttl.run(ctx)
	case KindAlias:
		r.runAlias(ctx)
	default:
		r.runInterval(ctx)
	}
	return nil
}

// runInterval runs the prober every interval. The first run comes after a
// random part of it, so that the checks of a host that starts, or of a fleet
// that was rolled out, do not all fire at once.
func (r *Runner) runInterval(ctx context.Context) {
	timer := time.NewTimer(rand.N(r.def.Interval))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		if !r.runOnce(ctx) {
			return
		}
		// Never in a row without a pause, however long a run takes.
		timer.Reset(max(r.def.Interval-time.Since(began), r.def.Interval/10))
	}
}

// runOnce waits for a slot, runs the prober and reports; false when ctx ended.
func (r *Runner) runOnce(ctx context.Context) bool {
	if r.cfg.Slots != nil {
		done := r.cfg.Slots.acquire(ctx, r.kind)
		if done == nil {
			return false
		}
		defer done()
	}
	run, cancel := context.WithTimeout(ctx, r.def.timeout())
	defer cancel()
	status, output := r.prober.probe(run)
	if ctx.Err() != nil {
		return false // stopped in the middle: says nothing of the target
	}
	output = keepHead(output, r.def.outputSize()+outputPrefix)
	if shown, counts := r.counter.count(status); counts {
		r.cfg.Report(shown, output)
	} else {
		r.cfg.Logger.Debug("check result below its threshold", "check", r.cfg.Label, "status", status)
	}
	return true
}

// outputPrefix is room for what a probe says before the output of its target,
// such as "HTTP GET url: 200 OK Output: ".
const outputPrefix = 512

// aliasInterval is how late an alias may be where nothing tells it of changes.
const aliasInterval = 10 * time.Second

// runAlias follows another check.
func (r *Runner) runAlias(ctx context.Context) {
	ticker := time.NewTicker(aliasInterval)
	defer ticker.Stop()
	for {
		status, output := r.cfg.Alias(ctx)
		if ctx.Err() != nil {
			return
		}
		r.cfg.Report(status, keepHead(output, r.def.outputSize()+outputPrefix))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-r.cfg.Changed:
		}
	}
}

// Update gives a TTL check its status and starts its time anew. Of an output
// that is too long the beginning is kept, and it says so. Report has been called
// when it returns.
func (r *Runner) Update(status, output string) error {
	if r.kind != KindTTL {
		return ErrNotTTL
	}
	switch status {
	case Passing, Warning, Critical:
	default:
		return fmt.Errorf("check status must be passing, warning or critical, not %q", status)
	}
	r.ttl.update(status, captured(output, r.def.outputSize()))
	return nil
}

// ttl is the state of a check that turns critical when nobody renews it.
type ttl struct {
	r       *Runner
	renewed chan struct{} // capacity 1: a renewal moved the deadline

	mu      sync.Mutex // guards following, and orders calls of Report
	expires time.Duration
	expired bool
	output  string
}

func (t *ttl) init(r *Runner) {
	t.r = r
	t.renewed = make(chan struct{}, 1)
	left := r.def.TTL
	if r.cfg.Expires > 0 {
		left = min(left, r.cfg.Expires)
	}
	t.expires = r.cfg.Now() + left
}

// maxNap bounds how late an expiry is seen after the host was suspended: timers
// stand still meanwhile, boot time does not.
const maxNap = 10 * time.Second

func (t *ttl) run(ctx context.Context) {
	for {
		left, waiting := t.expire()
		var wake <-chan time.Time
		if waiting {
			wake = time.After(min(left, maxNap))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.renewed:
		case <-wake:
		}
	}
}

// expire reports the end of the TTL if it has come; else how much is left.
func (t *ttl) expire() (left time.Duration, waiting bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.expired {
		return 0, false
	}
	if left = t.expires - t.r.cfg.Now(); left > 0 {
		return left, true
	}
	t.expired = true
	output := "TTL expired"
	if t.output != "" {
		output += " (last output before timeout follows): " + t.output
	}
	t.r.cfg.Report(Critical, output)
	return 0, false
}

func (t *ttl) update(status, output string) {
	t.mu.Lock()
	t.expires = t.r.cfg.Now() + t.r.def.TTL
	t.expired = false
	t.output = output
	t.r.cfg.Report(status, output)
	t.mu.Unlock()
	select {
	case t.renewed <- struct{}{}:
	default:
	}
}
