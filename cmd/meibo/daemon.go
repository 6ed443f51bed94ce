package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"meibo/cluster"
	"meibo/cluster/acl"
	"meibo/cluster/httpapi"
	"meibo/cluster/retry"
	"meibo/cmd/meibo/config"
	"meibo/cmd/meibo/logging"
	"meibo/resolver/control"
	"meibo/resolver/listen"
)

// daemonConfig is what a daemon is made from.
type daemonConfig struct {
	Config *config.Config
	Logger *slog.Logger
	Log    *logging.Log // what Logger writes to: its levels are set anew by a reload; nil: they stay
	Files  []*os.File   // sockets handed over
	// Load reads the configuration again, for Reload, where registered tells which services
	// the API registered; nil: it can't be.
	Load     func(registered func(id string) bool) (*config.Config, []config.Warning, error)
	Warnings []config.Warning // of Config
}

// daemon is one meibo: all of it is wired here and nowhere else. Several of them can live in one process.
//
// Only the loss of DNS ends it. The catalog and the HTTP API are retried by themselves and say what is wrong meanwhile.
type daemon struct {
	load     func(registered func(id string) bool) (*config.Config, []config.Warning, error)
	log      *slog.Logger
	lines    *logging.Log // nil: not ours
	node     *cluster.Node
	dns      *dnsService
	api      *httpapi.API
	registry *prometheus.Registry
	reloads  reloads

	started *config.Config // what was in force at the start: a key that waits for a restart is compared with it

	mu      sync.Mutex // guards following, and one reload at a time
	cfg     *config.Config
	warned  map[config.Warning]bool // of cfg; they are said when they are new
	waiting []string                // keys that are other than in started

	http    chan []net.Addr        // holds the addresses of the API while it is served
	control atomic.Pointer[string] // path of the control socket while it is served
	bound   *httpapi.Server        // of the API, made with the daemon for the first turn; Run takes it
	httpErr error                  // why there was none

	leave chan struct{} // closed once this host has left its cluster: the daemon is to end
	left  sync.Once
}

// newDaemon makes every part and binds the DNS sockets; it starts nothing. A fault of anything but DNS and the
// configuration is not an error here: Run retries it.
func newDaemon(c daemonConfig) (*daemon, error) {
	d := &daemon{load: c.Load, log: c.Logger, lines: c.Log, started: c.Config, cfg: c.Config, registry: prometheus.NewRegistry(), reloads: newReloads(), http: make(chan []net.Addr, 1), leave: make(chan struct{})}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.warn(c.Warnings)
	var err error
	if d.node, err = cluster.New(nodeConfig(c.Config, d.log)); err != nil {
		return nil, err
	}
	if d.dns, err = newDNS(c.Config, d.node, c.Files, d.log); err != nil {
		return nil, err
	}
	if d.api, err = d.newAPI(c.Config); err != nil {
		return nil, err
	}
	d.node.ServeCatalog(d.api.Catalog())
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), d.node.Collector(), d.node.PartsCollector(), d.node.Agent(), d.api)
	d.registry.MustRegister(d.dns.collectors()...)
	if d.lines != nil {
		d.registry.MustRegister(d.lines)
	}
	d.registry.MustRegister(d.countLeftOut("service"), d.countLeftOut("check"), newBuildInfo(), d.reloads.taken, d.reloads.refused)
	for _, l := range d.leftOut() {
		d.log.Error("definition left out, everything else goes on: mend it, then reload", "definition", l.What(), "err", l.Why())
	}
	// Last, as nothing after it may fail: a port that is another's is told before anything is served.
	if len(c.Config.HTTP.Listen) > 0 {
		d.bound, d.httpErr = d.bindHTTP()
	}
	return d, nil
}

// leftOut are the services and checks of the files that are not used because of a fault in them: those that the
// configuration names, and those that the agent alone could know of.
func (d *daemon) leftOut() []config.LeftOut {
	cfg := d.config()
	all := slices.Clone(cfg.Agent.LeftOut)
	for _, u := range d.node.Agent().LeftOut() {
		all = append(all, cfg.Agent.Unfit(u))
	}
	return all
}

// countLeftOut is a metric of them.
func (d *daemon) countLeftOut(kind string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "meibo_config_left_out", Help: "Definitions of the files that are not used because of a fault in them.",
		ConstLabels: prometheus.Labels{"kind": kind},
	}, func() float64 {
		n := 0
		for _, l := range d.leftOut() {
			if l.Check == (kind == "check") {
				n++
			}
		}
		return float64(n)
	})
}

func nodeConfig(cfg *config.Config, log *slog.Logger) cluster.Config {
	gossip := cfg.GossipConfig()
	if cfg.Cluster.ServerPort <= 0 {
		gossip.Bind = netip.AddrPort{} // hosts speak to each other by both ports, or not at all
	}
	return cluster.Config{
		NodeName: cfg.Node.Name, NodeID: cfg.Node.ID, Datacenter: cfg.Node.Datacenter,
		Address: cfg.Node.Advertise.String(), TaggedAddresses: cfg.Node.TaggedAddresses, Meta: cfg.Node.Meta,
		DataDir: cfg.DataDir, Dev: cfg.Dev, Server: cfg.Cluster.Server, Bootstrap: cfg.Cluster.Bootstrap,
		BootstrapExpect: cfg.Cluster.BootstrapExpect, ServerPort: cfg.Cluster.ServerPort, Version: apiLevel, Program: version,
		Gossip: gossip, Key: cfg.Key(), KeyringPath: cfg.KeyringPath(), InTheClear: cfg.Cluster.InTheClear,
		Consensus: cfg.ConsensusConfig(), Autopilot: cfg.AutopilotConfig(), ViewPath: cfg.ViewPath(), ViewKeep: cfg.View.Keep,
		WholeBelow: cfg.View.WholeBelow, HoldTime: cfg.Cluster.RPCHoldTimeout,
		HandshakeTimeout: cfg.Cluster.HandshakeTimeout, ConnsPerMember: cfg.Cluster.ConnsPerMember, Scope: scopeOf, WithScope: withScope, InUse: listen.InUse,
		Agent: cfg.AgentConfig(), Logger: log,
	}
}

func (d *daemon) newAPI(cfg *config.Config) (*httpapi.API, error) {
	facts := d.facts()
	explain, err := control.New(control.Config{
		Resolver: d.dns.resolver, Cache: d.dns.cache, Instances: facts.instances, Catalog: facts.catalog, Logger: d.log,
	})
	if err != nil {
		return nil, err
	}
	api := cfg.HTTPConfig()
	api.Logger, api.ACL, api.Gatherer = d.log, acl.AllowAll{}, d.registry
	api.Agent, api.Backend, api.Operator, api.Forwarder = hostAgent{d}, catalogBackend{d.node}, clusterOperator{d}, catalogBackend{d.node}
	api.Control = d.controlAt
	api.Version, api.Revision, api.BuildDate = strings.TrimPrefix(version, "v"), built("vcs.revision"), built("vcs.time")
	api.Mounts = mountsOf(explain, cfg.Debug)
	if hostname, err := os.Hostname(); err == nil {
		api.Names = append(api.Names, hostNames(hostname, "/etc/hosts", "/etc/resolv.conf")...)
	}
	return httpapi.New(api)
}

// Run answers until ctx ends, and returns when everything has ended. Its error is the loss of DNS.
func (d *daemon) Run(ctx context.Context) error {
	// In the order of need: DNS ends last, so that lookups go on while the rest says goodbye.
	inner, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	rest, stopRest := context.WithCancel(ctx)
	defer stopRest()
	var parts sync.WaitGroup
	parts.Go(func() { d.serveHTTP(rest) })
	parts.Go(func() { d.serveControl(rest) })
	parts.Go(func() {
		if err := d.node.Run(rest); err != nil {
			d.log.Error("the node ended", "err", err)
		}
	})
	d.dns.saysWhoIsServed()
	lost := make(chan error, 1)
	go func() { lost <- d.dns.run(inner) }()
	select {
	case <-ctx.Done():
		stopRest()
		parts.Wait()
		stop(nil)
		return <-lost
	case <-d.leave:
		// Whoever asked for it still gets an answer; requests under way have a moment.
		retry.Wait(ctx, d.config().Cluster.LeaveDrainTime)
		stopRest()
		parts.Wait()
		stop(nil)
		return <-lost
	case err := <-lost:
		stopRest()
		parts.Wait()
		return errors.Join(errors.New("dns is lost, which ends the daemon"), err)
	}
}

// leaveCluster tells the others that this host goes, and has the daemon end.
func (d *daemon) leaveCluster(ctx context.Context) error {
	if err := d.node.Leave(ctx); err != nil {
		return err
	}
	d.left.Do(func() { close(d.leave) })
	return nil
}

// newListenBackoff returns the pauses before a listener is tried again.
func newListenBackoff() *retry.Backoff {
	return &retry.Backoff{Min: 250 * time.Millisecond, Max: 5 * time.Second}
}

// serveHTTP serves the API whenever its addresses can be had.
func (d *daemon) serveHTTP(ctx context.Context) {
	if len(d.started.HTTP.Listen) == 0 {
		return
	}
	said := ""
	for again := newListenBackoff(); ctx.Err() == nil; {
		err := d.serveHTTPOnce(ctx)
		if err == nil {
			continue // ctx has ended
		}
		if err.Error() != said {
			said = err.Error()
			d.log.Error("http api is not served, dns goes on; will try again", "err", err)
		}
		retry.Wait(ctx, again.Next())
	}
}

func (d *daemon) serveHTTPOnce(ctx context.Context) error {
	server, err := d.bound, error(nil)
	if d.bound = nil; server == nil {
		server, err = d.bindHTTP()
	}
	if err != nil {
		return err
	}
	d.http <- server.Addrs()
	defer func() { <-d.http }()
	return server.Run(ctx)
}

// bindHTTP binds the addresses of the API, all or none.
func (d *daemon) bindHTTP() (*httpapi.Server, error) {
	sc := httpapi.ServerConfig{Handler: d.api, ConnsPerClient: d.started.HTTP.MaxConnsPerHost, HeaderBytes: d.started.HTTP.MaxHeaderBytes, Logger: d.log}
	if sc.ConnsPerClient == 0 {
		sc.ConnsPerClient = -1 // Consul's 0 means no limit
	}
	sc.SocketUser, sc.SocketGroup = d.started.HTTP.SocketUser, d.started.HTTP.SocketGroup
	if mode, err := strconv.ParseUint(d.started.HTTP.SocketMode, 8, 12); err == nil {
		sc.SocketMode = os.FileMode(mode)
	}
	for _, endpoint := range d.started.HTTP.Listen {
		address := endpoint.String()
		if endpoint.Unix == "" {
			address = endpoint.AddrPort.String()
		}
		sc.Addrs = append(sc.Addrs, address)
	}
	server, err := httpapi.NewServer(sc)
	if err != nil {
		return nil, heldBy(err, d.started.HTTP.Listen)
	}
	return server, nil
}

// heldBy adds to an error of binding which process is in the way.
func heldBy(err error, endpoints []config.Endpoint) error {
	for _, e := range endpoints {
		if e.Unix == "" && errors.Is(err, syscall.EADDRINUSE) && strings.Contains(err.Error(), e.AddrPort.String()) {
			return fmt.Errorf("%w; it is held by %s", err, listen.Holder("tcp", e.AddrPort))
		}
	}
	return err
}

// warn logs the warnings of a configuration that were not there in the one before, wherever they stand now.
func (d *daemon) warn(warnings []config.Warning) {
	before := d.warned
	d.warned = make(map[config.Warning]bool, len(warnings))
	var news []config.Warning
	for _, w := range warnings {
		key := w
		key.Line = 0
		if !before[key] {
			news = append(news, w)
		}
		d.warned[key] = true
	}
	logWarnings(d.log, news)
}

// config is the configuration in force.
func (d *daemon) config() *config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cfg
}

// Reload reads the configuration again: all of it is checked before any of it is taken, and on an error nothing changes.
// A read that hangs is given up when ctx ends. Waiting are the keys that have changed since the start and wait for the next.
func (d *daemon) Reload(ctx context.Context) (waiting []string, err error) {
	defer func() {
		d.reloads.note(err)
		if err != nil { // whoever asked for it
			d.log.Error("configuration not taken, everything stays as it was", "err", oneLine(err))
		}
	}()
	if d.load == nil {
		return nil, errors.New("this daemon has no configuration to read again")
	}
	cfg, warnings, err := loadUnless(ctx.Done(), func() (*config.Config, []config.Warning, error) {
		return d.load(d.node.Agent().Registered)
	})
	if err != nil {
		return nil, err
	}
	if faults := cfg.Agent.Faults(); len(faults) > 0 {
		return nil, faults // a start has nothing better than to leave out; here there is what runs
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.applyConfig(cfg); err != nil {
		return nil, err
	}
	d.warn(warnings)
	told := d.waiting
	for _, change := range config.Diff(d.started, cfg) {
		if change.Restart {
			waiting = append(waiting, change.Key)
			if !slices.Contains(told, change.Key) {
				d.log.Warn("a changed key waits for a restart", "key", change.Key)
			}
		}
	}
	d.waiting = waiting
	if d.lines != nil {
		d.lines.SetLevels(cfg.Log.Level, cfg.Log.Sublevels)
	}
	d.cfg = cfg
	d.log.Info("configuration taken", "services", len(cfg.Agent.Services), "checks", cfg.Agent.CountChecks())
	return waiting, nil
}

// applyConfig has every part check its share of a configuration before the first takes its own. What can fail after that is
// the disk alone: the agent says so and is asked before DNS, so that nothing of it has changed then.
func (d *daemon) applyConfig(cfg *config.Config) error {
	a, api := d.node.Agent(), cfg.HTTPConfig()
	if err := errors.Join(httpapi.CheckAccess(api), a.CheckReload(cfg.Agent.Services, cfg.Agent.Checks)); err != nil {
		return err
	}
	if err := d.dns.check(cfg); err != nil {
		return err
	}
	if err := a.Reload(cfg.Agent.Services, cfg.Agent.Checks); err != nil {
		return err
	}
	d.node.SetMeta(cfg.Node.Meta)
	a.SetDiscardCheckOutput(cfg.Agent.DiscardCheckOutput)
	return errors.Join(d.api.SetAccess(api), d.dns.reload(cfg))
}

// sayStart tells the log what runs where.
func (d *daemon) sayStart() {
	http := joined(d.started.HTTP.Listen)
	if d.httpErr != nil {
		http = "not served yet"
	}
	d.log.Info("meibo started", "version", version, "node", d.cfg.Node.Name, "id", d.node.Record().ID, "datacenter", d.cfg.Node.Datacenter,
		"server", hostAgent{d}.isServer() && !d.node.IsProvisional(), "dns", joined(d.dns.listening), "http", http)
}

// banner says what runs where, and what to try.
func (d *daemon) banner() string {
	dns, w := d.dns.listening, new(strings.Builder)
	fmt.Fprintf(w, "==> meibo %s\n", version)
	fmt.Fprintf(w, "       Node: %s (%s), datacenter %s\n", d.cfg.Node.Name, d.node.Record().ID, d.cfg.Node.Datacenter)
	fmt.Fprintf(w, "        DNS: %s\n", joined(dns))
	if d.httpErr != nil {
		fmt.Fprintf(w, "       HTTP: not served, will be tried again: %v\n", d.httpErr)
	} else {
		fmt.Fprintf(w, "       HTTP: %s\n", joined(d.started.HTTP.Listen))
	}
	if len(dns) == 0 {
		return w.String()
	}
	fmt.Fprintf(w, "\n    Try:  %s\n\n", strings.Join(tries(d.cfg, dns[0], os.Args[0]), "\n          "))
	return w.String()
}

// tries are commands that show what the daemon does, asked at one of its addresses: by dig, and by the program itself, which
// says most of a service that is checked.
func tries(cfg *config.Config, at netip.AddrPort, program string) []string {
	asked := "consul"
	for _, s := range cfg.Agent.Services {
		asked = s.Name
	}
	explained := asked
	for _, s := range cfg.Agent.Services {
		if len(s.Checks) > 0 {
			explained = s.Name
		}
	}
	domain := ".service." + strings.TrimSuffix(cfg.Zone.Domain, ".")
	dig := fmt.Sprintf("dig @%s -p %d %s", askable(at.Addr()), at.Port(), asked+domain)
	return []string{dig, dig + " SRV", program + " lookup " + explained + domain}
}

// askable is an address that a client on this host can send to.
func askable(a netip.Addr) netip.Addr {
	if !a.IsUnspecified() {
		return a
	}
	if a.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

func joined[T fmt.Stringer](list []T) string {
	if len(list) == 0 {
		return "off"
	}
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = v.String()
	}
	return strings.Join(texts, ", ")
}
