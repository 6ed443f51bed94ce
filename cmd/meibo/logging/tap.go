package logging

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// tapLines is how many lines a follower may be behind before it loses some.
const tapLines = 512

// tap is somebody who follows the log in Consul's form.
type tap struct {
	level slog.Level
	form  slog.Handler

	mu    sync.Mutex // guards following, and orders lines
	lines chan []byte
	lost  int
	ended bool
}

// Follow returns the lines of the log from now on, of the level and above whatever
// the configuration says, in the form of Consul's log: text, or JSON with its
// names. The channel is closed when ctx ends. Who is slow loses lines, and is told
// how many.
func (l *Log) Follow(ctx context.Context, level slog.Level, json bool) <-chan []byte {
	t := &tap{level: level, lines: make(chan []byte, tapLines)}
	if json {
		t.form = slog.NewJSONHandler(t, &slog.HandlerOptions{Level: slog.Level(-128), ReplaceAttr: consulNames})
	} else {
		t.form = &consulText{to: t}
	}
	l.taps.add(t)
	context.AfterFunc(ctx, func() {
		l.taps.remove(t)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.ended = true
		close(t.lines)
	})
	return t.lines
}

// Write takes one line. It never waits.
func (t *tap) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return len(b), nil
	}
	if t.lost > 0 && cap(t.lines)-len(t.lines) > 1 {
		t.lines <- fmt.Appendf(nil, "[WARN] Monitor dropped %d logs during monitor request\n", t.lost)
		t.lost = 0
	}
	select {
	case t.lines <- append([]byte(nil), b...):
	default:
		t.lost++
	}
	return len(b), nil
}

// taps are those who follow; least is the lowest level that any wants.
type taps struct {
	mu    sync.Mutex // orders changes
	all   atomic.Pointer[[]*tap]
	least atomic.Int64
}

// none is above all levels.
const none = 1 << 20

func newTaps() *taps {
	t := &taps{}
	t.set(nil)
	return t
}

func (t *taps) set(all []*tap) {
	least := int64(none)
	for _, one := range all {
		least = min(least, int64(one.level))
	}
	t.all.Store(&all)
	t.least.Store(least)
}

func (t *taps) add(one *tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set(append(append([]*tap(nil), *t.all.Load()...), one))
}

func (t *taps) remove(one *tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var left []*tap
	for _, other := range *t.all.Load() {
		if other != one {
			left = append(left, other)
		}
	}
	t.set(left)
}

// handle gives the record to all who want it; with are the attributes and groups that its
// logger has.
func (t *taps) handle(ctx context.Context, r slog.Record, with []func(slog.Handler) slog.Handler) {
	all := *t.all.Load()
	if len(all) == 0 {
		return
	}
	frame, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
	part := partOf(frame.Function)
	for _, one := range all {
		if r.Level < one.level {
			continue
		}
		r, h := r.Clone(), one.form
		if _, text := h.(*consulText); text {
			r.Message = part + ": " + r.Message
		} else {
			h = h.WithAttrs([]slog.Attr{slog.String("@module", part)})
		}
		for _, add := range with {
			h = add(h)
		}
		_ = h.Handle(ctx, r) // a tap takes every line
	}
}

// consulNames are the names that Consul's log has in JSON.
func consulNames(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return inSeconds(groups, a)
	}
	switch a.Key {
	case slog.TimeKey:
		return slog.String("@timestamp", a.Value.Time().Format(consulTime))
	case slog.LevelKey:
		return slog.String("@level", strings.ToLower(levelName(a.Value.Any().(slog.Level))))
	case slog.MessageKey:
		a.Key = "@message"
	}
	return inSeconds(groups, a)
}

const consulTime = "2006-01-02T15:04:05.000Z07:00"

func levelName(level slog.Level) string {
	switch {
	case level < slog.LevelDebug:
		return "TRACE"
	case level < slog.LevelInfo:
		return "DEBUG"
	case level < slog.LevelWarn:
		return "INFO"
	case level < slog.LevelError:
		return "WARN"
	}
	return "ERROR"
}

// consulText writes lines as Consul's log has them: time, level in brackets, message,
// and key=value after a colon.
type consulText struct {
	to     io.Writer
	prefix string // of groups
	attrs  string
}

// Enabled implements slog.Handler.
func (h *consulText) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (h *consulText) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	at := r.Time
	if at.IsZero() {
		at = time.Now()
	}
	fmt.Fprintf(&b, "%s %-7s %s", at.Format(consulTime), "["+levelName(r.Level)+"]", strings.ReplaceAll(r.Message, "\n", " "))
	attrs := h.attrs
	r.Attrs(func(a slog.Attr) bool {
		attrs += attrText(h.prefix, a)
		return true
	})
	if attrs != "" {
		b.WriteString(":" + attrs)
	}
	b.WriteByte('\n')
	_, err := io.WriteString(h.to, b.String())
	return err
}

// WithAttrs implements slog.Handler.
func (h *consulText) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	for _, a := range attrs {
		with.attrs += attrText(h.prefix, a)
	}
	return &with
}

// WithGroup implements slog.Handler.
func (h *consulText) WithGroup(name string) slog.Handler {
	with := *h
	if name != "" {
		with.prefix += name + "."
	}
	return &with
}

func attrText(prefix string, a slog.Attr) string {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		text := ""
		for _, one := range v.Group() {
			text += attrText(prefix+a.Key+".", one)
		}
		return text
	}
	text := v.String()
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == '"' || r == '=' || r == 0x7f }) {
		text = fmt.Sprintf("%q", text)
	}
	return " " + prefix + a.Key + "=" + text
}
