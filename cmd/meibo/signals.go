package main

import (
	"context"
	"log/slog"
	"os"
	"syscall"
	"time"

	"meibo/cmd/meibo/config"
)

// leaveTime bounds how long a daemon that was told to stop tries to leave its cluster; it is Consul's.
const leaveTime = 15 * time.Second

// leavesOn reports whether a signal is to have this host leave its cluster, not just stop.
func leavesOn(sig os.Signal, c config.Cluster) bool {
	if sig == syscall.SIGTERM {
		return c.LeaveOnTerminate
	}
	return !c.SkipLeaveOnInterrupt
}

// stopOn calls stop at the first signal, or when ctx ends. Where leaves says so this host leaves its cluster before; a
// second signal cuts that short. It returns when nothing of it goes on any more.
func stopOn(ctx context.Context, signals <-chan os.Signal, leaves func(os.Signal) bool, leave func(context.Context) error, stop func(), log *slog.Logger) {
	defer stop()
	var sig os.Signal
	select {
	case <-ctx.Done():
		return
	case sig = <-signals:
	}
	isLeave := leaves(sig)
	log.Info("asked to end", "signal", sig, "leave", isLeave)
	if !isLeave {
		return
	}
	leaving, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	left := make(chan error, 1)
	go func() { left <- leave(leaving) }()
	var err error
	select {
	case err = <-left:
	case <-signals:
		cancel()
		err = <-left
	}
	if err != nil {
		log.Warn("did not leave the cluster; the others will count this host as failed", "err", err)
	}
}
