package logging

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestJournalEntry_IsWhatWasLogged: whatever slog writes as a line comes apart into what it was made from.
func TestJournalEntry_IsWhatWasLogged(t *testing.T) {
	for name, tt := range map[string]struct {
		msg     string
		args    []any
		message string
		fields  map[string]string
	}{
		"plain":          {"meibo started", []any{"node", "h1", "server", true}, "meibo started node=h1 server=true", map[string]string{"MEIBO_NODE": "h1", "MEIBO_SERVER": "true"}},
		"quotes":         {"a b", []any{"err", `read "x": no = y` + "\nmore"}, `a b err="read \"x\": no = y\nmore"`, map[string]string{"MEIBO_ERR": `read "x": no = y` + "\nmore"}},
		"empty":          {"", []any{"a", ""}, ` a=""`, map[string]string{"MEIBO_A": ""}},
		"groups, spaces": {"m", []any{slog.Group("g", "Key-1", time.Second), "a key", 1}, `m g.Key-1=1s "a key"=1`, map[string]string{"MEIBO_G_KEY_1": "1s", "MEIBO_A_KEY": "1"}},
		"no key":         {"m", []any{"", "x"}, `m ""=x`, map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			slog.New(slog.NewTextHandler(&b, nil)).Info(tt.msg, tt.args...)
			message, fields := journalEntry([]byte(b.String()))
			tt.fields["SYSLOG_IDENTIFIER"] = "meibo"
			if d := cmp.Diff(tt.fields, fields); d != "" || message != tt.message {
				t.Errorf("%s became %q, fields (-want +got):\n%s", b.String(), message, d)
			}
		})
	}
	if message, _ := journalEntry([]byte("no pair at all\n")); message != "no pair at all" {
		t.Errorf("got %q", message)
	}
}
