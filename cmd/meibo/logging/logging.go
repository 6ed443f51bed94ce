// Package logging carries the daemon's log lines to stderr (or, where that is the
// journal, to it with fields), to a file that it rotates, and to syslog.
//
// Logging never holds up the daemon, never ends it and never keeps it from
// starting: a line is handed to each place it is to be written to, and a place
// that is slow, full, gone or not there yet loses lines, which are counted by
// the metric meibo_log_lost_lines_total; the other places are told once, and
// again when it is back. Lines of one place keep their order.
//
// A level can be set for each part of the program. A part is a package, named
// by its path with dots: cluster.gossip.
package logging

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config says what is logged, in what form, and where to.
type Config struct {
	Level slog.Level
	// Sublevels are levels of parts that differ, and of what is below them, by
	// the names that Part knows; others are passed over.
	Sublevels map[string]slog.Level
	JSON      bool // lines as JSON in place of key=value

	Stderr io.Writer // nil: none
	Stdout io.Writer // for Print alone; nil: none
	File   File
	Syslog string // facility, in capitals as "LOCAL0"; "": no syslog
}

// Log is a logger and the places that its lines go to. Safe for concurrent use.
type Log struct {
	logger *slog.Logger
	levels atomic.Pointer[levels]
	places []*place // of log lines
	stdout *place   // nil: none
	lost   *prometheus.Desc
	taps   *taps // who follows the log over the API
}

// closeTime is how long Close waits for a place that does not take its lines.
const closeTime = 2 * time.Second

// New returns a log. It does not fail: what can't be opened is tried again with
// each line, and said in the log.
func New(cfg Config) *Log {
	l := &Log{taps: newTaps(), lost: prometheus.NewDesc("meibo_log_lost_lines_total",
		"Lines that could not be written to a place the log goes to.", []string{"to"}, nil)}
	l.SetLevels(cfg.Level, cfg.Sublevels)
	switch {
	case isJournal(cfg.Stderr) && !cfg.JSON:
		l.places = append(l.places, newPlace("journal", toJournal{}))
	case cfg.Stderr != nil:
		l.places = append(l.places, newPlace("stderr", &stream{cfg.Stderr}))
	}
	if cfg.File.Path != "" {
		l.places = append(l.places, newPlace("file", newFile(cfg.File)))
	}
	if cfg.Syslog != "" {
		l.places = append(l.places, newPlace("syslog", newSyslog(cfg.Syslog)))
	}
	if cfg.Stdout != nil {
		l.stdout = newPlace("stdout", &stream{cfg.Stdout})
	}
	out := &output{log: l}
	options := &slog.HandlerOptions{Level: slog.Level(-128)} // levels decides
	var text slog.Handler = slog.NewTextHandler(out, options)
	if cfg.JSON {
		options.ReplaceAttr = inSeconds
		text = slog.NewJSONHandler(out, options)
	}
	l.logger = slog.New(&handler{log: l, out: out, Handler: text})
	for _, p := range l.all() {
		p.start(l.logger)
	}
	return l
}

// inSeconds writes durations as programs read them; slog's JSON has them in nanoseconds.
func inSeconds(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.Float64Value(a.Value.Duration().Seconds())
	}
	return a
}

func (l *Log) all() []*place {
	if l.stdout == nil {
		return l.places
	}
	return append(slices.Clone(l.places), l.stdout)
}

// Print writes text to stdout, which nothing else of the log goes to.
func (l *Log) Print(text string) {
	if l.stdout != nil {
		l.stdout.put(line{text: []byte(text)})
	}
}

// Logger returns the logger.
func (l *Log) Logger() *slog.Logger { return l.logger }

// SetLevels changes what is logged from now on.
func (l *Log) SetLevels(level slog.Level, parts map[string]slog.Level) {
	l.levels.Store(newLevels(level, parts))
}

// Close writes what is waiting, closes the places, and returns when that is
// done, after two seconds at most: what is stuck then is left behind. The
// logger may still be used; its lines are lost, and counted.
func (l *Log) Close() {
	deadline := time.NewTimer(closeTime)
	defer deadline.Stop()
	for _, p := range l.all() {
		p.close()
	}
	for _, p := range l.all() {
		select {
		case <-p.done:
		case <-deadline.C:
			return
		}
	}
}

// Describe implements prometheus.Collector.
func (l *Log) Describe(ch chan<- *prometheus.Desc) { ch <- l.lost }

// Collect implements prometheus.Collector.
func (l *Log) Collect(ch chan<- prometheus.Metric) {
	for _, p := range l.all() {
		ch <- prometheus.MustNewConstMetric(l.lost, prometheus.CounterValue, float64(p.lost.Load()), p.name)
	}
}

// handler leaves out what the levels leave out.
type handler struct {
	slog.Handler
	log  *Log
	out  *output
	with []func(slog.Handler) slog.Handler // attributes and groups, for those who follow
}

// Enabled implements slog.Handler. Which part logs is known only with the record.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= min(h.log.levels.Load().least, slog.Level(h.log.taps.least.Load()))
}

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.log.taps.handle(ctx, r, h.with)
	if r.Level < h.log.levels.Load().of(r.PC) {
		return nil
	}
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.level = r.Level
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.add(func(to slog.Handler) slog.Handler { return to.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	return h.add(func(to slog.Handler) slog.Handler { return to.WithGroup(name) })
}

func (h *handler) add(with func(slog.Handler) slog.Handler) slog.Handler {
	return &handler{with(h.Handler), h.log, h.out, append(slices.Clip(h.with), with)}
}

// output hands each line that a handler has written to all places.
type output struct {
	log *Log

	mu    sync.Mutex // one line at a time; guards level
	level slog.Level
}

// Write takes one line. It is called with mu held.
func (o *output) Write(b []byte) (int, error) {
	l := line{text: slices.Clone(b), level: o.level}
	for _, p := range o.log.places {
		p.put(l)
	}
	return len(b), nil
}

// levels are a level for every part.
type levels struct {
	rest, least slog.Level
	parts       map[string]slog.Level
	known       sync.Map // of PC to its level: a place in the code stays in its part
}

func newLevels(rest slog.Level, parts map[string]slog.Level) *levels {
	l := &levels{rest: rest, parts: map[string]slog.Level{}}
	for name, level := range parts {
		switch part, ok := Part(name); {
		case !ok:
			continue
		case part == "":
			l.rest = level
		default:
			l.parts[part] = level
		}
	}
	l.least = l.rest
	for _, level := range l.parts {
		l.least = min(l.least, level)
	}
	return l
}

// of returns the least level that the code at pc logs.
func (l *levels) of(pc uintptr) slog.Level {
	if len(l.parts) == 0 || pc == 0 {
		return l.rest
	}
	if level, ok := l.known.Load(pc); ok {
		return level.(slog.Level)
	}
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	level := l.rest
	for part := partOf(frame.Function); part != ""; part = before(part) {
		if own, ok := l.parts[part]; ok {
			level = own
			break
		}
	}
	l.known.Store(pc, level)
	return level
}

// before returns what stands before the last dot, "" without one.
func before(part string) string { return part[:max(0, strings.LastIndexByte(part, '.'))] }

// partOf returns the part that a function belongs to: its package's path below
// the module, with dots.
func partOf(function string) string {
	dir, name := "", function
	if i := strings.LastIndexByte(function, '/'); i >= 0 {
		dir, name = function[:i+1], function[i+1:]
	}
	name, _, _ = strings.Cut(name, ".")
	path := dir + name
	if path == "main" {
		return "meibo"
	}
	path = strings.TrimPrefix(path, "meibo/")
	return strings.ReplaceAll(strings.TrimPrefix(path, "cmd/"), "/", ".")
}

// consuls are the names that Consul gives its parts, below "agent".
var consuls = map[string]string{
	"server": "cluster", "client": "cluster", "server.raft": "cluster.consensus", "raft": "cluster.consensus",
	"server.serf": "cluster.gossip", "server.serf.lan": "cluster.gossip", "client.serf": "cluster.gossip", "client.serf.lan": "cluster.gossip",
	"server.memberlist": "cluster.gossip", "server.memberlist.lan": "cluster.gossip", "client.memberlist": "cluster.gossip", "client.memberlist.lan": "cluster.gossip",
	"leader": "cluster.leader", "server.autopilot": "cluster.leader", "server.fsm": "cluster.catalog.state",
	"anti_entropy": "cluster.agent", "http": "cluster.httpapi", "dns": "resolver", "tlsutil": "cluster.link",
}

// parts are those there are.
var parts = strings.Fields(`
	meibo meibo.config meibo.dnsmasq meibo.doctor meibo.inventory meibo.logging meibo.migrate meibo.signals cache forwarder
	resolver resolver.consul resolver.control resolver.filewatch resolver.listen resolver.local resolver.resolvconf resolver.wire
	cluster cluster.acl cluster.agent cluster.atomicfile cluster.bootstrap cluster.catalog cluster.catalog.state cluster.check
	cluster.consensus cluster.definition cluster.feed cluster.feed.frame cluster.gossip cluster.httpapi cluster.httpapi.client
	cluster.httpserve cluster.leader cluster.link cluster.membership cluster.retry cluster.rpc cluster.server cluster.view`)

// Part returns the part that a name means: a part's own name, the last label of
// it ("gossip"), or what Consul calls the part that does the same, which begins
// with "agent"; "agent" alone is all of them, "".
func Part(name string) (part string, ok bool) {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "agent" {
		return "", true
	}
	if slices.Contains(parts, name) {
		return name, true
	}
	name = strings.TrimPrefix(name, "agent.")
	if part, ok := consuls[name]; ok {
		return part, true
	}
	i := slices.IndexFunc(parts, func(p string) bool { return p == name || strings.HasSuffix(p, "."+name) })
	if i < 0 {
		return "", false
	}
	return parts[i], true
}

// Parts returns the names of all parts.
func Parts() []string { return slices.Clone(parts) }
