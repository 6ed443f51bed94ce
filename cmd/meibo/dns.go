package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"meibo/cache"
	"meibo/cluster"
	"meibo/cluster/retry"
	"meibo/cmd/meibo/config"
	"meibo/forwarder"
	"meibo/resolver"
	"meibo/resolver/consul"
	"meibo/resolver/listen"
	"meibo/resolver/local"
	"meibo/resolver/resolvconf"
	"meibo/resolver/wire"
)

// maxExchange bounds a question to upstreams, whatever recursor_timeout makes of their number: glibc gives up after 5 s.
const maxExchange = 4 * time.Second

// dnsService is everything that answers DNS on this host. It needs a view and nothing else of the cluster.
type dnsService struct {
	log       *slog.Logger
	cache     *cache.Cache
	forwarder *forwarder.Forwarder
	zone      *consul.Zone
	names     consul.Config // domains and datacenter, which wait for a restart
	special   *local.Special
	hosts     *local.Hosts
	resolver  *resolver.Resolver
	listener  *listen.Listener // nil: switched off
	listening []netip.AddrPort
	answers   string        // the file that keeps them over a restart; "": none does
	restart   chan struct{} // holds one: the hosts or the upstreams are to be watched anew

	mu          sync.Mutex // guards following: what a reload changes
	cfg         *config.Config
	upstreams   *resolvconf.Watcher // nil while the configuration names the upstreams
	upstreamsOf string              // the file that it follows
}

// newDNS binds the listeners, so that a taken port ends the start, and answers nothing yet.
func newDNS(cfg *config.Config, node *cluster.Node, files []*os.File, log *slog.Logger) (*dnsService, error) {
	v := node.View()
	d := &dnsService{log: log, cfg: cfg, answers: answersFile(cfg), names: cfg.ZoneConfig(), special: local.NewSpecial(local.SpecialConfig{}), restart: make(chan struct{}, 1)}
	var err error
	if d.cache, err = cache.New(cfg.CacheConfig()); err != nil {
		return nil, err
	}
	if d.forwarder, err = forwarder.New(forwarder.Config{Logger: log}); err != nil {
		return nil, err
	}
	d.zone, err = consul.New(consul.Options{
		Config: cfg.ZoneConfig(), State: func() consul.State { return v.Load() }, Want: v.Want, Moved: v.BumpEpoch,
		Neighbour: node.Neighbour, Logger: log,
		Chase: func(ctx context.Context, q *wire.Query) (resolver.Result, error) { return d.resolver.Lookup(ctx, q) },
	})
	if err != nil {
		return nil, err
	}
	hosts := cfg.HostsConfig()
	hosts.Logger = log
	hosts.Changed = func(names []wire.Name) { d.cache.Drop(names...) }
	if d.hosts, err = local.NewHosts(hosts); err != nil {
		return nil, err
	}
	rc := cfg.ResolverConfig()
	rc.Cache, rc.Logger = d.cache, log
	rc.Version, rc.ServerID = "meibo "+version, cfg.Node.Name
	if d.resolver, err = resolver.New(rc); err != nil {
		return nil, err
	}
	addrs := cfg.Listen
	if len(files) > 0 && !cfg.ListenSet {
		addrs = nil // where sockets are handed over, they say where, unless the configuration does
	}
	if len(addrs) == 0 && len(files) == 0 {
		log.Warn("dns is switched off: no address to listen on (ports.dns)")
	} else if d.listener, err = listen.New(listen.Config{Addrs: addrs, Files: files, Handler: d.resolver, Logger: log}); err != nil {
		return nil, err
	} else {
		d.listening = d.listener.Addrs()
	}
	// Only now it is known which addresses are our own and must not be asked.
	d.forwarder.SetSelf(d.listening)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.findUpstreamsLocked()
	if err := d.applyLocked(); err != nil {
		if d.listener != nil {
			d.listener.Close()
		}
		return nil, err
	}
	d.loadAnswers()
	return d, nil
}

// run answers until ctx ends or the listeners are lost; the latter is the one failure that ends the daemon.
func (d *dnsService) run(ctx context.Context) error {
	// The listeners end before what answers for them, so that nothing is accepted that can't be answered.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var parts errgroup.Group
	parts.Go(func() error { return d.resolver.Run(inner) })
	parts.Go(func() error { return d.forwarder.Run(inner) })
	parts.Go(func() error { return d.watch(inner) })
	var err error
	if d.listener != nil {
		err = d.listener.Run(ctx)
	} else {
		<-ctx.Done()
	}
	d.saveAnswers()
	stop()
	if e := parts.Wait(); err == nil {
		err = e
	}
	return err
}

// watch follows the hosts files and, where they come from there, the upstreams of resolv.conf; anew after each reload.
func (d *dnsService) watch(ctx context.Context) error {
	for {
		turn, stop := context.WithCancel(ctx)
		d.mu.Lock()
		upstreams := d.upstreams
		d.mu.Unlock()
		var parts sync.WaitGroup
		follow := func(what string, run func(context.Context) error) {
			parts.Go(func() {
				if err := run(turn); err != nil && turn.Err() == nil {
					d.log.Warn("changes are not followed any more: reload after a change", "what", what, "err", err)
				}
			})
		}
		follow("hosts files", d.hosts.Run)
		follow("networks", d.watchNetworks)
		if upstreams != nil {
			follow("resolv.conf", upstreams.Run)
		}
		select {
		case <-ctx.Done():
		case <-d.restart:
		}
		stop()
		parts.Wait()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// networksAgain is how often the networks that this host is attached to are looked at: they change with interfaces, of
// which nobody tells.
const networksAgain = 10 * time.Second

// watchNetworks keeps the clients whose questions are forwarded those of the networks at hand.
func (d *dnsService) watchNetworks(ctx context.Context) error {
	for ctx.Err() == nil {
		retry.Wait(ctx, networksAgain)
		d.mu.Lock()
		d.resolver.SetClients(d.clientsLocked())
		d.mu.Unlock()
	}
	return nil
}

// clientsLocked are the networks whose questions are forwarded.
func (d *dnsService) clientsLocked() []netip.Prefix {
	if d.cfg.AllowRecursion != nil {
		return d.cfg.AllowRecursion
	}
	return attached()
}

// attached are the networks that this host has an address in.
func attached() []netip.Prefix {
	networks := []netip.Prefix{}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return networks // loopback is left
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			networks = append(networks, p.Masked())
		}
	}
	return networks
}

// saysWhoIsServed tells at the start for whom questions are forwarded, where more than this host can ask.
func (d *dnsService) saysWhoIsServed() {
	if !slices.ContainsFunc(d.listening, func(a netip.AddrPort) bool { return !a.Addr().IsLoopback() }) {
		return
	}
	d.mu.Lock()
	networks := d.clientsLocked()
	d.mu.Unlock()
	d.log.Info("dns is served beyond this host; questions are forwarded for loopback and these networks, others get REFUSED (allow_recursion)",
		"listen", joined(d.listening), "networks", joined(networks))
}

// check says what reload would refuse.
func (d *dnsService) check(cfg *config.Config) error {
	_, err := local.NewHosts(cfg.HostsConfig())
	return errors.Join(err, cfg.ZoneConfig().Check(), d.forwarder.Check(d.routes(cfg, nil)))
}

// reload takes what of a new configuration can be taken without a restart. On an error everything stays as it was.
func (d *dnsService) reload(cfg *config.Config) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	oldConfig, oldUpstreams, oldOf := d.cfg, d.upstreams, d.upstreamsOf
	// The hosts come first: the table has their fixed domains.
	if err := d.hosts.SetConfig(cfg.HostsConfig()); err != nil {
		return err
	}
	d.cfg = cfg
	d.findUpstreamsLocked()
	if err := d.applyLocked(); err != nil {
		d.cfg, d.upstreams, d.upstreamsOf = oldConfig, oldUpstreams, oldOf
		return errors.Join(err, d.hosts.SetConfig(oldConfig.HostsConfig()))
	}
	select {
	case d.restart <- struct{}{}:
	default:
	}
	return nil
}

// findUpstreamsLocked looks for the host's own upstreams when the configuration names none. A watcher there is stays: it
// knows what resolv.conf named last, should it name nothing just now.
func (d *dnsService) findUpstreamsLocked() {
	if len(d.cfg.Forward.Recursors) > 0 {
		d.upstreams = nil
		return
	}
	if d.upstreams != nil && d.upstreamsOf == d.cfg.Forward.ResolvFile {
		return
	}
	var err error
	d.upstreamsOf = d.cfg.Forward.ResolvFile
	d.upstreams, err = resolvconf.NewWatcher(resolvconf.Config{
		Path: d.upstreamsOf, Self: d.listening, Logger: d.log, Changed: func(resolvconf.Upstreams) { d.upstreamsChanged() },
	})
	if err != nil {
		d.log.Warn("names outside our own zones are refused until there is an upstream", "err", err)
	}
}

// upstreamsChanged routes by the new name servers of resolv.conf.
func (d *dnsService) upstreamsChanged() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.applyLocked(); err != nil {
		d.log.Warn("upstreams kept as they were", "err", err)
	}
}

// applyLocked puts routes and zone in force. The table comes before the zone's epoch moves: an answer of the zone that
// was followed over an old route is then one of before the move, which nobody is given.
func (d *dnsService) applyLocked() error {
	var found []netip.AddrPort
	if d.upstreams != nil {
		found = d.upstreams.Upstreams().Servers
	}
	routes := d.routes(d.cfg, found)
	if err := d.forwarder.Update(routes); err != nil {
		return err
	}
	special := local.SpecialConfig{BogusPriv: d.cfg.BogusPriv()}
	for _, fixed := range d.cfg.HostsConfig().Fixed {
		special.Routes = append(special.Routes, fixed.Suffix)
	}
	for _, r := range routes {
		if r.Part {
			continue
		}
		if r.Suffix != wire.Root {
			special.Routes = append(special.Routes, r.Suffix)
			continue
		}
		for _, server := range r.Servers {
			special.Upstreams = append(special.Upstreams, server.Addr())
		}
	}
	d.special.SetConfig(special)
	d.resolver.SetClients(d.clientsLocked())
	if err := d.resolver.SetTable(d.table()); err != nil {
		return err
	}
	d.resolver.SetFilter(d.cfg.FilterConfig())
	zone := d.cfg.ZoneConfig()
	zone.Domain, zone.AltDomain, zone.Datacenter = d.names.Domain, d.names.AltDomain, d.names.Datacenter
	if err := d.zone.SetConfig(zone); err != nil {
		return err
	}
	d.publish(routes)
	return nil
}

// publish writes the servers of all other names to where kubelet and the like find them, which must not be told of this
// daemon: resolv.conf in the folder that systemd made for it.
func (d *dnsService) publish(routes []forwarder.Route) {
	folders := filepath.SplitList(os.Getenv("RUNTIME_DIRECTORY"))
	at := slices.IndexFunc(routes, func(r forwarder.Route) bool { return r.Suffix == wire.Root && !r.Part })
	if len(folders) == 0 || at < 0 {
		return
	}
	up := resolvconf.Upstreams{Servers: routes[at].Servers}
	if data, err := os.ReadFile(cmp.Or(d.cfg.Forward.ResolvFile, resolvconf.DefaultPath)); err == nil {
		file := resolvconf.Parse(string(data))
		up.Search, up.Options = file.Search, file.Options
	}
	if err := resolvconf.Publish(filepath.Join(folders[0], "resolv.conf"), up); err != nil {
		d.log.Warn("the upstream servers were not written down for kubelet and others", "err", err)
	}
}

// routes are those of cfg, where found are the servers of resolv.conf.
func (d *dnsService) routes(cfg *config.Config, found []netip.AddrPort) []forwarder.Route {
	routes := cfg.Routes(found)
	routes = append(routes, privateParts(routes, cfg.HostsConfig().Fixed)...)
	for i := range routes {
		routes[i].Timeout = min(routes[i].Timeout, maxExchange)
	}
	return routes
}

// privateParts has names that mean something in a private network alone asked of private upstreams, where the default route
// has others as well: those deny what they can't know, and may be faster.
func privateParts(routes []forwarder.Route, fixed []local.Fixed) (parts []forwarder.Route) {
	at := slices.IndexFunc(routes, func(r forwarder.Route) bool { return r.Suffix == wire.Root })
	if at < 0 {
		return nil
	}
	part := routes[at]
	part.Part = true
	part.Servers = slices.DeleteFunc(slices.Clone(part.Servers), func(server netip.AddrPort) bool { return !local.IsPrivate(server.Addr()) })
	if len(part.Servers) == 0 || len(part.Servers) == len(routes[at].Servers) {
		return nil
	}
	for _, zone := range local.PrivateZones() {
		explicit := func(r forwarder.Route) bool { return r.Suffix != wire.Root && zone.HasSuffix(r.Suffix) }
		isFixed := func(f local.Fixed) bool { return f.Suffix != wire.Root && zone.HasSuffix(f.Suffix) }
		if !slices.ContainsFunc(routes, explicit) && !slices.ContainsFunc(fixed, isFixed) {
			part.Suffix = zone
			parts = append(parts, part)
		}
	}
	return parts
}

// table says who answers which names: the longest suffix, then rank. Fixed addresses come before servers of the same suffix,
// which are asked for other types.
func (d *dnsService) table() resolver.Table {
	return resolver.Table{
		Whole:  d.hosts,
		Mounts: slices.Concat(d.hosts.Mounts(), d.forwarder.Mounts(), d.zone.Mounts(local.ReverseZones()...), d.special.Mounts()),
	}
}

func (d *dnsService) collectors() []prometheus.Collector {
	all := []prometheus.Collector{d.cache.Collector(), d.resolver.Collector(), d.forwarder.Collector(), d.zone.Collector()}
	if d.listener != nil {
		all = append(all, d.listener.Collector())
	}
	return all
}
