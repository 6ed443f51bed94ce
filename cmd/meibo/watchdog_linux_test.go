package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestWatchdog_IsFedWhileTheDaemonAnswers: systemd is told for as long as own questions are answered, and no longer.
func TestWatchdog_IsFedWhileTheDaemonAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	systemd, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer systemd.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "40000")
	t.Setenv("WATCHDOG_PID", "")
	os.Unsetenv("WATCHDOG_PID")
	told := func(within time.Duration) string {
		b := make([]byte, 64)
		must(t, systemd.SetReadDeadline(time.Now().Add(within)))
		n, err := systemd.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return ""
		}
		must(t, err)
		return string(b[:n])
	}
	var log syncBuffer
	var stuck atomic.Bool
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		feedWatchdog(ctx, slog.New(slog.NewTextHandler(&log, nil)), func(ctx context.Context) error {
			if stuck.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
	}()
	for range 3 {
		if got := told(patience); got != "WATCHDOG=1" {
			t.Fatalf("told %q", got)
		}
	}
	stuck.Store(true)
	eventually(t, "nothing more is told", func() error {
		if got := told(200 * time.Millisecond); got != "" {
			return errors.New(got)
		}
		return nil
	})
	if !strings.Contains(log.String(), "does not answer its own question") {
		t.Errorf("log: %s", log.String())
	}
	stop()
	<-done
	if _, there := os.LookupEnv("WATCHDOG_USEC"); there {
		t.Error("the programs of checks would believe the watchdog to be theirs")
	}
}

// A watchdog that nobody set is not waited for.
func TestWatchdog_NoneIsSet(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "")
	feedWatchdog(t.Context(), slog.New(slog.DiscardHandler), nil)
}

func TestWatchdog_TheDaemonWorks(t *testing.T) {
	d, _ := reloadable(t, "")
	must(t, d.dns.works(t.Context()))
}
