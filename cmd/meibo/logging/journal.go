package logging

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// toJournal writes to the journal what else would go to it line by line over stderr: the message as it reads, its
// priority, and each key as a field of its own, MEIBO_KEY. (systemd.io/JOURNAL_NATIVE_PROTOCOL, "Automatic Protocol
// Upgrading")
type toJournal struct{}

// isJournal reports whether w is the stderr that systemd connected with the journal.
func isJournal(w io.Writer) bool {
	if w != os.Stderr {
		return false
	}
	is, err := journal.StderrIsJournalStream()
	return err == nil && is
}

func (toJournal) write(l line) (bool, error) {
	message, fields := journalEntry(l.text)
	err := journal.Send(message, priorityOf(l.level), fields)
	return err == nil, err
}

// Close implements io.Closer: the socket is the process's.
func (toJournal) Close() error { return nil }

func priorityOf(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}

// journalEntry takes a line of key=value pairs apart, as slog writes them: the time and the level are the journal's own.
func journalEntry(text []byte) (message string, fields map[string]string) {
	rest := string(withoutTime(text))
	fields = map[string]string{"SYSLOG_IDENTIFIER": "meibo"}
	var words []string
	for rest != "" {
		key, value, pair := "", "", ""
		key, value, rest, pair = cutPair(rest)
		switch key {
		case "level":
		case "msg":
			words = append(words, value)
		default:
			words = append(words, pair)
			if name := fieldName(key); name != "" {
				fields[name] = value
			}
		}
	}
	return strings.Join(words, " "), fields
}

// cutPair cuts off the first key=value; what is none has no key.
func cutPair(s string) (key, value, rest, pair string) {
	end := strings.IndexByte(s, '=')
	if strings.HasPrefix(s, `"`) { // a key that is quoted
		if quoted, err := strconv.QuotedPrefix(s); err == nil {
			end = len(quoted)
			key, _ = strconv.Unquote(quoted)
		}
	} else if end >= 0 {
		key = s[:end]
	}
	if end < 0 || end >= len(s) || s[end] != '=' {
		return "", "", "", s
	}
	if quoted, err := strconv.QuotedPrefix(s[end+1:]); err == nil && quoted[0] == '"' {
		value, _ = strconv.Unquote(quoted)
		end += 1 + len(quoted)
	} else if space := strings.IndexByte(s[end+1:], ' '); space >= 0 {
		value = s[end+1 : end+1+space]
		end += 1 + space
	} else {
		value = s[end+1:]
		end = len(s)
	}
	return key, value, strings.TrimPrefix(s[end:], " "), s[:end]
}

// fieldName is a key as a name of the journal's: capitals, digits and underscores. "" for none.
func fieldName(key string) string {
	name := bytes.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, []byte(key))
	if len(name) == 0 {
		return ""
	}
	return "MEIBO_" + string(name)
}
