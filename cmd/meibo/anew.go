package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"meibo/cmd/meibo/config"
)

// addressLook is how often it is looked for an address while there is none.
const addressLook = time.Second

// awaitAddress waits until this host has the address that it is to be known by, which may come long after the daemon: it
// does not wait for the network to answer DNS. It is false when ctx has ended first.
func awaitAddress(ctx context.Context, load func() (*config.Config, []config.Warning, error)) bool {
	ticker := time.NewTicker(addressLook)
	defer ticker.Stop()
	for seen := addressesNow(); ; {
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
		now := addressesNow()
		if slices.Equal(now, seen) {
			continue
		}
		seen = now
		if cfg, _, err := load(); err == nil && !cfg.Node.Awaited {
			return true
		}
	}
}

func addressesNow() (all []string) {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return all
}

// errAnew ends a daemon that is to start anew in this very process, with the sockets of its own that queries wait in
// meanwhile.
type errAnew struct{ sockets []*os.File }

// Error implements error.
func (errAnew) Error() string { return "the daemon starts anew" }

// startAnewWithAddress has the daemon started anew once its address is there: too much is known by it (this host in
// gossip, its node in the catalog, what listens) to be changed one by one.
func (d *daemon) startAnewWithAddress(ctx context.Context, load func() (*config.Config, []config.Warning, error), stop func(), log *slog.Logger) (sockets []*os.File, ok bool) {
	if !awaitAddress(ctx, load) {
		return nil, false
	}
	if d.dns.listener != nil {
		var err error
		if sockets, err = d.dns.listener.Files(); err != nil {
			log.Error("this host has an address now, and the daemon can't start anew with it: restart it", "err", err)
			return nil, false
		}
	}
	log.Info("this host has an address now: the daemon starts anew with it, and DNS waits for a moment")
	stop()
	return sockets, true
}
