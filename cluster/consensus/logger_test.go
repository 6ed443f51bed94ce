package consensus

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// lines is a writer that several goroutines may write to.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func TestStart_OfAClusterOfOneWarnsOfNothing(t *testing.T) {
	for name, dir := range map[string]string{"memory": "", "new": t.TempDir(), "old": filled(t, 3, 0)} {
		said := new(lines)
		p := run(t, dir, func(c *Config, _ *Replica) { c.Logger = slog.New(slog.NewTextHandler(said, nil)) })
		p.awaitLeader()
		if text := said.String(); strings.Contains(text, "WARN") || strings.Contains(text, "ERROR") {
			t.Errorf("%s: the log says\n%s", name, text)
		}
	}
}
