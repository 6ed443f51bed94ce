package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/miekg/dns"

	"meibo/resolver/wire"
)

// feedWatchdog tells systemd, twice in its interval, that the daemon lives, for as long as works says so; one that hangs
// is ended and started again. It returns when ctx ends, or at once where no watchdog is set. (sd_watchdog_enabled(3))
func feedWatchdog(ctx context.Context, log *slog.Logger, works func(context.Context) error) {
	interval, err := systemd.SdWatchdogEnabled(true)
	if err != nil {
		log.Warn("systemd's watchdog is set in a way that is not understood, and not fed", "err", err)
	}
	if err != nil || interval <= 0 {
		return
	}
	ticker := time.NewTicker(interval / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		turn, cancel := context.WithTimeout(ctx, interval/4)
		err := works(turn)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Error("this daemon does not answer its own question; without an answer systemd will start it anew", "dur", interval, "err", err)
		default:
			notify(log, systemd.SdNotifyWatchdog)
		}
	}
}

// works asks for a name that is answered without anybody else: what every answer needs must be there, and not stuck.
func (d *dnsService) works(ctx context.Context) error {
	name, err := wire.ParseName("localhost.")
	if err != nil {
		return err
	}
	if _, err := d.resolver.Lookup(ctx, wire.NewQuery(name, dns.TypeA)); err != nil {
		return fmt.Errorf("look up localhost: %w", err)
	}
	return nil
}
