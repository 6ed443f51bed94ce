package main

import (
	"context"
	"log/slog"
	"os"
	"syscall"
	"testing"
	"testing/synctest"

	"meibo/cmd/meibo/config"
)

func TestSignals_ARestartIsNotALeaveUnlessTheConfigurationSaysSo(t *testing.T) {
	for _, tc := range []struct {
		sig  os.Signal
		c    config.Cluster
		want bool
	}{
		{syscall.SIGTERM, config.Cluster{SkipLeaveOnInterrupt: true}, false},
		{os.Interrupt, config.Cluster{SkipLeaveOnInterrupt: true}, false},
		{syscall.SIGTERM, config.Cluster{LeaveOnTerminate: true, SkipLeaveOnInterrupt: true}, true},
		{os.Interrupt, config.Cluster{LeaveOnTerminate: true, SkipLeaveOnInterrupt: true}, false},
		{os.Interrupt, config.Cluster{}, true},
		{syscall.SIGTERM, config.Cluster{}, false},
	} {
		if got := leavesOn(tc.sig, tc.c); got != tc.want {
			t.Errorf("%v with %+v: leaves %v, want %v", tc.sig, tc.c, got, tc.want)
		}
	}
}

func TestSignals_LeaveBeforeTheEnd(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	yes := func(os.Signal) bool { return true }
	run := func(t *testing.T, leave func(context.Context) error, signals ...os.Signal) (stopped chan struct{}, send chan os.Signal) {
		send = make(chan os.Signal, 2)
		for _, s := range signals {
			send <- s
		}
		stopped = make(chan struct{})
		stopOn(t.Context(), send, yes, leave, func() { close(stopped) }, quiet)
		return stopped, send
	}
	synctest.Test(t, func(t *testing.T) {
		left := false
		stopped, _ := run(t, func(context.Context) error { left = true; return nil }, syscall.SIGTERM)
		<-stopped
		if !left {
			t.Error("stopped without leaving")
		}
	})
	// One that nobody answers takes leaveTime at most; a second signal cuts it short. Both end, or this hangs.
	stuck := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	synctest.Test(t, func(t *testing.T) {
		stopped, _ := run(t, stuck, syscall.SIGTERM)
		<-stopped
	})
	synctest.Test(t, func(t *testing.T) {
		stopped, _ := run(t, stuck, syscall.SIGTERM, syscall.SIGTERM)
		<-stopped
	})
}
