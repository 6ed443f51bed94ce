package httpapi

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meibo/cluster/acl"
)

// Limits and times that hold when [Config] leaves them zero.
const (
	DefaultQueryTime   = 300 * time.Second // Consul's default_query_time
	DefaultMaxQuery    = 600 * time.Second // Consul's max_query_time
	DefaultMaxBlocking = 2000              // some 8 KiB each
	DefaultMaxCarried  = 20_000            // of other hosts: a share of what a fleet of 5,000 waits for
	DefaultMaxBody     = 512 << 10         // Consul's bound for a KV value, the largest body there is
)

// apiLevel is the version of Consul whose API this is; clients parse it to choose what
// they may ask for.
const apiLevel = "1.21.0"

// Config is all that an [API] needs. The zero value of each optional field works.
type Config struct {
	Logger  *slog.Logger // nil: discard
	Agent   Agent        // required
	Backend Backend      // required
	ACL     acl.Resolver // nil: [acl.AllowAll]
	// Forwarder carries requests about the catalog to a server that can answer them; nil:
	// all are answered here.
	Forwarder Forwarder
	Operator  Operator // nil: the operator's endpoints are 501

	Node       string // this host's node name
	Datacenter string // this host's datacenter, lower case; empty: dc1
	// DefaultToken is used for requests that carry none; nil: the anonymous token.
	DefaultToken func() string

	// Names are what this host is called, its node name apart; a request's Host may be
	// one of them, an address, localhost, a name under Domain or AltDomain, or one of
	// AllowedHosts (where a leading "*." stands for any labels).
	Names             []string
	Domain, AltDomain string // with or without the final dot; empty Domain: consul
	AllowedHosts      []string

	// The keys of Consul's http_config.
	ResponseHeaders map[string]string
	BlockEndpoints  []string       // prefixes of paths
	AllowWriteFrom  []netip.Prefix // empty: everybody
	// OperatorOpen lets everybody who reaches the API do what an operator does; else
	// that goes over the control socket alone. Control is its path at the moment, empty
	// while there is none; nil: there never is.
	OperatorOpen bool
	Control      func() string

	QueryTime time.Duration // how long a blocking query waits unless it says; 0: DefaultQueryTime
	MaxQuery  time.Duration // the longest it may ask for; 0: DefaultMaxQuery
	// DiscoveryMaxStale answers reads below /v1/catalog and /v1/health that name no
	// consistency from what is at hand, if that is no older; 0 asks the leader.
	DiscoveryMaxStale time.Duration
	MaxBlocking       int   // blocking queries of this host's clients at once; 0: DefaultMaxBlocking
	MaxCarried        int   // blocking queries carried here by other hosts; 0: DefaultMaxCarried
	MaxBody           int64 // bytes of a request's body; 0: DefaultMaxBody

	// Version is meibo's own, as in "0.1.0"; clients see it after Consul's API level.
	Version, Revision, BuildDate string

	Gatherer prometheus.Gatherer // for /metrics; nil: an empty registry
	// MetricsPrefix takes the place of "meibo" in the names of our own metrics; "" leaves them.
	MetricsPrefix string
	// NoPrometheus refuses Prometheus' format where Consul does without a retention
	// time: at /v1/agent/metrics. /metrics is always served.
	NoPrometheus bool
	// Mounts are further handlers by path prefix (ending in "/"), behind the same guard:
	// those of other rooms, which this package needn't know.
	Mounts map[string]http.Handler
}

// API is the HTTP API of one daemon: an http.Handler, and a Prometheus collector of its
// own metrics. Safe for concurrent use. It starts nothing; [Server] serves it.
type API struct {
	cfg      Config
	log      *slog.Logger
	access   atomic.Pointer[access]
	agent    *agentSet
	catalog  *catalogSet
	operator *operatorSet
	routes   *router
	metrics  *metrics
}

// New checks the configuration and builds the API.
func New(cfg Config) (*API, error) {
	if cfg.Agent == nil || cfg.Backend == nil {
		return nil, errors.New("httpapi: Agent and Backend are required")
	}
	setDefaults(&cfg)
	a := &API{cfg: cfg, log: cfg.Logger, metrics: newMetrics()}
	if err := a.SetAccess(cfg); err != nil {
		return nil, err
	}
	e := a.endpoints(cfg.MaxBlocking)
	a.agent = &agentSet{endpoints: e, cfg: &a.cfg}
	a.catalog = &catalogSet{
		endpoints: e, backend: cfg.Backend, forwarder: cfg.Forwarder, datacenter: cfg.Datacenter, agent: cfg.Agent, discoveryStale: cfg.DiscoveryMaxStale,
	}
	a.operator = &operatorSet{catalogSet: a.catalog, operator: cfg.Operator}
	a.routes = newRouter(a.agent.routes(), a.catalog.routes(), a.operator.routes(), a.operator.keyringRoutes(), absentRoutes())
	return a, nil
}

// endpoints makes what sets of handlers share, for so many blocking queries at once.
func (a *API) endpoints(blocking int) *endpoints {
	return &endpoints{
		mayOperate: a.mayOperate, control: a.cfg.Control, log: a.log, acl: a.cfg.ACL, metrics: a.metrics, maxBody: a.cfg.MaxBody,
		waits: newWaits(a.cfg.QueryTime, a.cfg.MaxQuery, blocking, a.metrics),
	}
}

// access is what a reload may change: who may ask, and what every answer says.
type access struct {
	guard        *guard
	headers      map[string]string
	operatorOpen bool
}

func newAccess(cfg *Config) (*access, error) {
	g, err := newGuard(cfg)
	if err != nil {
		return nil, err
	}
	return &access{guard: g, headers: cfg.ResponseHeaders, operatorOpen: cfg.OperatorOpen}, nil
}

// CheckAccess returns the error of SetAccess, and changes nothing.
func CheckAccess(cfg Config) error {
	_, err := newAccess(&cfg)
	return err
}

// SetAccess takes AllowedHosts, ResponseHeaders, BlockEndpoints, AllowWriteFrom and
// OperatorOpen of cfg for all later requests; names and domains stay those that New was given.
func (a *API) SetAccess(cfg Config) error {
	cfg.Node, cfg.Names, cfg.Domain, cfg.AltDomain = a.cfg.Node, a.cfg.Names, a.cfg.Domain, a.cfg.AltDomain
	next, err := newAccess(&cfg)
	if err == nil {
		a.access.Store(next)
	}
	return err
}

func setDefaults(cfg *Config) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.ACL == nil {
		cfg.ACL = acl.AllowAll{}
	}
	if cfg.Datacenter == "" {
		cfg.Datacenter = "dc1"
	}
	if cfg.Control == nil {
		cfg.Control = func() string { return "" }
	}
	if cfg.Domain == "" {
		cfg.Domain = "consul"
	}
	if cfg.QueryTime <= 0 {
		cfg.QueryTime = DefaultQueryTime
	}
	if cfg.MaxQuery <= 0 {
		cfg.MaxQuery = DefaultMaxQuery
	}
	if cfg.MaxBlocking <= 0 {
		cfg.MaxBlocking = DefaultMaxBlocking
	}
	if cfg.MaxCarried <= 0 {
		cfg.MaxCarried = DefaultMaxCarried
	}
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = DefaultMaxBody
	}
	if cfg.Version == "" {
		cfg.Version = "0.0.0-dev"
	}
	if cfg.Gatherer == nil {
		cfg.Gatherer = prometheus.NewRegistry()
	}
	cfg.Gatherer = renamed(cfg.Gatherer, cfg.MetricsPrefix)
}

// fullVersion is what clients see: the API level, then whose it is.
func (c *Config) fullVersion() string { return fmt.Sprintf("%s+meibo%s", apiLevel, c.Version) }

// ServeHTTP answers one request from a client of this host.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	started := time.Now()
	route := "none"
	defer func() { a.metrics.observe(route, rec.status, time.Since(started)) }()
	defer a.recoverPanic(rec, r)

	h, access := w.Header(), a.access.Load()
	h.Set("X-Content-Type-Options", "nosniff")
	for k, v := range access.headers {
		h.Set(k, v)
	}
	if err := access.guard.check(r); err != nil {
		a.metrics.refused.Inc()
		a.log.Debug("http request refused", "addr", r.RemoteAddr, "host", r.Host, "err", err)
		writeError(rec, err)
		return
	}
	if _, own := a.routes.find(r.URL.Path); !own {
		if prefix, m := a.mount(r.URL.Path); m != nil {
			route = prefix
			m.ServeHTTP(rec, r)
			return
		}
	}
	route = a.routes.serve(rec, r.WithContext(WithScope(r.Context(), a.scopeOf(r))))
}

// mount finds the handler of another room, the longest prefix first.
func (a *API) mount(path string) (prefix string, h http.Handler) {
	for p, m := range a.cfg.Mounts {
		if len(p) > len(prefix) && (strings.HasPrefix(path, p) || path+"/" == p) {
			prefix, h = p, m
		}
	}
	return prefix, h
}

// Catalog is the handlers of the catalog and of the servers without this host's guard, for
// requests that other hosts carried here: each must have a [Scope] in its context. What
// the request itself says of its datacenter and token counts more than that.
func (a *API) Catalog() http.Handler {
	set := *a.catalog
	set.discoveryStale = 0
	set.endpoints = a.endpoints(a.cfg.MaxCarried)
	set.endpoints.mayOperate, set.agent = nil, nil // the host decided that the client asked
	routes := newRouter(set.routes(), (&operatorSet{catalogSet: &set, operator: a.cfg.Operator}).routes(), absentRoutes())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w}
		started := time.Now()
		route := "none"
		defer func() { a.metrics.observe(route, rec.status, time.Since(started)) }()
		defer a.recoverPanic(rec, r)
		route = routes.serve(rec, carriedScope(r))
	})
}

// recoverPanic turns a panic into a 500 and a counter: one bad request must not take the
// daemon, its DNS included, down. The runtime's own abort passes.
func (a *API) recoverPanic(w *recorder, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler { //nolint:errorlint // a sentinel panic value
		panic(p)
	}
	a.metrics.panics.Inc()
	a.log.Error("panic in an http handler", "path", r.URL.Path, "err", p, "stack", stack())
	if w.status == 0 {
		writeError(w, errorf(http.StatusInternalServerError, "internal error: this request hit a bug; the daemon's log has the details"))
	}
}

// Describe implements prometheus.Collector.
func (a *API) Describe(ch chan<- *prometheus.Desc) { a.metrics.describe(ch) }

// Collect implements prometheus.Collector.
func (a *API) Collect(ch chan<- prometheus.Metric) { a.metrics.collect(ch) }

// Paths lists the paths that are served, sorted; those that end in "/" take an argument.
func (a *API) Paths() []string {
	var paths []string
	for _, r := range slices.Concat(a.agent.routes(), a.catalog.routes(), a.operator.routes(), a.operator.keyringRoutes()) {
		paths = append(paths, r.path)
	}
	slices.Sort(paths)
	return paths
}
