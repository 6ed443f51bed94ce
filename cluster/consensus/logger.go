package consensus

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// logger gives Raft's log lines to slog. Raft speaks of each step of an
// election at Info; only what it warns of is worth an operator's attention,
// so all below goes to Debug.
//
// Of a cluster of one not even that: there is nobody it could lose. Of
// several, what Raft says of each try is said once by [reach] instead, and of
// the rest each line once a minute.
type logger struct {
	to    *slog.Logger
	alone func() bool
	said  *seldom
	name  string
	args  []any
}

func newLogger(to *slog.Logger, alone func() bool) hclog.Logger {
	return &logger{to: to, alone: alone, said: new(seldom)}
}

var levels = map[hclog.Level]slog.Level{
	hclog.NoLevel: slog.LevelDebug, hclog.Trace: slog.LevelDebug - 4, hclog.Debug: slog.LevelDebug,
	hclog.Info: slog.LevelDebug, hclog.Warn: slog.LevelWarn, hclog.Error: slog.LevelError,
}

// ordinary is what Raft warns of at every start of a cluster of one.
const ordinary = "heartbeat timeout reached, starting election"

// everyTry is what Raft says of each try to reach a server.
var everyTry = map[string]bool{
	"failed to heartbeat to":                                   true,
	"failed to appendEntries to":                               true,
	"failed to contact":                                        true,
	"failed to make requestVote RPC":                           true,
	"failed to start pipeline replication to":                  true,
	"failed to pipeline appendEntries":                         true,
	"failed to send snapshot to":                               true,
	"failed to decode incoming command":                        true,
	"failed to flush response":                                 true,
	"failed to accept connection":                              true,
	"unable to get address for server, using fallback address": true,
	"no known peers, aborting election":                        true,
	"appendEntries rejected, sending older logs":               true,
	"failed to get previous log":                               true,
	"previous log term mis-match":                              true,
	// Of servers that were removed, and of those without a vote; [Replica.hear]
	// says it.
	"heartbeat timeout reached, not part of a stable configuration or a non-voter, not triggering a leader election": true,
	"not part of stable configuration, aborting election":                                                            true,
	"rejecting pre-vote request since node is not in configuration":                                                  true,
	"rejecting vote request since node is not in configuration":                                                      true,
	// A leader's end, as after handing over; [Replica.publish] says it.
	"peer has newer term, stopping replication": true,
}

// Log implements hclog.Logger.
func (l *logger) Log(level hclog.Level, msg string, args ...any) {
	to := levels[level]
	if to >= slog.LevelWarn && (everyTry[msg] || msg == ordinary && l.alone() || !l.said.now(msg)) {
		to = slog.LevelDebug
	}
	if level == hclog.Off || !l.to.Enabled(context.Background(), to) {
		return
	}
	l.to.Log(context.Background(), to, "raft: "+msg, renameArgs(args)...)
}

// renameArgs writes Raft's keys as ours are written, and its late-formatted
// values out.
func renameArgs(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch v := a.(type) {
		case hclog.Format:
			out[i] = fmt.Sprintf(fmt.Sprint(v[0]), v[1:]...)
		case string:
			if i%2 == 0 && v == "error" {
				v = "err"
			}
			out[i] = v
		default:
			out[i] = a
		}
	}
	return out
}

func (l *logger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *logger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *logger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *logger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *logger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *logger) enabled(level hclog.Level) bool {
	return l.to.Enabled(context.Background(), levels[level])
}

func (l *logger) IsTrace() bool { return l.enabled(hclog.Trace) }
func (l *logger) IsDebug() bool { return l.enabled(hclog.Debug) }
func (l *logger) IsInfo() bool  { return l.enabled(hclog.Info) }
func (l *logger) IsWarn() bool  { return l.enabled(hclog.Warn) }
func (l *logger) IsError() bool { return l.enabled(hclog.Error) }

func (l *logger) ImpliedArgs() []any { return l.args }
func (l *logger) Name() string       { return l.name }

func (l *logger) With(args ...any) hclog.Logger {
	all := append(append([]any(nil), l.args...), args...)
	return &logger{to: l.to.With(renameArgs(args)...), alone: l.alone, said: l.said, name: l.name, args: all}
}

func (l *logger) Named(name string) hclog.Logger {
	return &logger{to: l.to, alone: l.alone, said: l.said, name: name, args: l.args}
}
func (l *logger) ResetNamed(name string) hclog.Logger { return l.Named(name) }

// SetLevel does nothing: slog decides.
func (l *logger) SetLevel(hclog.Level) {}

func (l *logger) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Warn} {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Error
}

func (l *logger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.to.Handler(), slog.LevelDebug)
}

func (l *logger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return slog.NewLogLogger(l.to.Handler(), slog.LevelDebug).Writer()
}
