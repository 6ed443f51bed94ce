package cluster

import (
	"errors"
	"log/slog"
	"testing"
	"time"
)

// Why attempts fail is said once until it changes, or one has lasted.
func TestBackoff_SaysTheSameOnce(t *testing.T) {
	b := newBackoff()
	for i, tt := range []struct {
		lasted time.Duration
		err    string
		level  slog.Level
		pause  time.Duration
	}{
		{0, "port is taken", slog.LevelError, time.Second},
		{0, "port is taken", slog.LevelDebug, 2 * time.Second},
		{time.Second, "no such address", slog.LevelError, 4 * time.Second},
		{0, "no such address", slog.LevelDebug, 8 * time.Second},
		{steady, "no such address", slog.LevelError, time.Second},
	} {
		if d := b.after(tt.lasted); d > tt.pause || d < tt.pause/2 {
			t.Errorf("%d: pause %v, want up to %v", i, d, tt.pause)
		}
		if got := b.level(errors.New(tt.err)); got != tt.level {
			t.Errorf("%d: %v, want %v", i, got, tt.level)
		}
	}
}
