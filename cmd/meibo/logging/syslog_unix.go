//go:build !windows && !plan9

package logging

import (
	"bytes"
	"fmt"
	"log/slog"
	"log/syslog"
)

// facilities are syslog's, by the names that Consul takes.
var facilities = map[string]syslog.Priority{
	"KERN": syslog.LOG_KERN, "USER": syslog.LOG_USER, "MAIL": syslog.LOG_MAIL, "DAEMON": syslog.LOG_DAEMON, "AUTH": syslog.LOG_AUTH,
	"SYSLOG": syslog.LOG_SYSLOG, "LPR": syslog.LOG_LPR, "NEWS": syslog.LOG_NEWS, "UUCP": syslog.LOG_UUCP, "CRON": syslog.LOG_CRON,
	"AUTHPRIV": syslog.LOG_AUTHPRIV, "FTP": syslog.LOG_FTP, "LOCAL0": syslog.LOG_LOCAL0, "LOCAL1": syslog.LOG_LOCAL1,
	"LOCAL2": syslog.LOG_LOCAL2, "LOCAL3": syslog.LOG_LOCAL3, "LOCAL4": syslog.LOG_LOCAL4, "LOCAL5": syslog.LOG_LOCAL5,
	"LOCAL6": syslog.LOG_LOCAL6, "LOCAL7": syslog.LOG_LOCAL7,
}

// toSyslog writes to the syslog of this host. It connects with the first line,
// and again after a failure.
type toSyslog struct {
	facility         syslog.Priority
	network, address string // where it is; "": where hosts have it
	w                *syslog.Writer
}

func newSyslog(facility string) writer { return &toSyslog{facility: facilities[facility]} }

func (s *toSyslog) write(l line) (bool, error) {
	if s.w == nil {
		w, err := syslog.Dial(s.network, s.address, s.facility|syslog.LOG_INFO, "meibo")
		if err != nil {
			return false, fmt.Errorf("reach syslog: %w", err)
		}
		s.w = w
	}
	err := s.say(l.level)(string(withoutTime(l.text)))
	return err == nil, err
}

func (s *toSyslog) say(level slog.Level) func(string) error {
	switch {
	case level >= slog.LevelError:
		return s.w.Err
	case level >= slog.LevelWarn:
		return s.w.Warning
	case level >= slog.LevelInfo:
		return s.w.Info
	}
	return s.w.Debug
}

// withoutTime cuts off the time and the line break: syslog adds its own.
func withoutTime(text []byte) []byte {
	text = bytes.TrimSuffix(text, []byte("\n"))
	if rest, ok := bytes.CutPrefix(text, []byte("time=")); ok {
		if _, after, ok := bytes.Cut(rest, []byte(" ")); ok {
			return after
		}
	}
	return text
}

// Close implements io.Closer.
func (s *toSyslog) Close() error {
	if s.w == nil {
		return nil
	}
	return s.w.Close()
}
