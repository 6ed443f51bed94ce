package config

import (
	"encoding/base64"
	"net/netip"
	"slices"
	"time"

	"meibo/cache"
	"meibo/cluster/agent"
	"meibo/cluster/catalog"
	"meibo/cluster/consensus"
	"meibo/cluster/httpapi"
	"meibo/cmd/meibo/logging"
	"meibo/forwarder"
	"meibo/resolver"
	"meibo/resolver/consul"
	"meibo/resolver/local"
	"meibo/resolver/wire"
)

// The methods here fill in what each room's Config takes from files and flags;
// what the host brings besides (loggers, other rooms) is left zero.

// ZoneConfig returns what resolver/consul takes.
func (c *Config) ZoneConfig() consul.Config {
	z := c.Zone
	seconds := func(n uint32) time.Duration { return time.Duration(n) * time.Second }
	return consul.Config{
		Domain: mustName(z.Domain), AltDomain: mustName(z.AltDomain), Datacenter: c.Node.Datacenter,
		NodeTTL: z.NodeTTL, ServiceTTL: z.ServiceTTL, MaxStale: c.View.MaxStale,
		StaleAnswer: map[string]consul.StaleAnswer{"servfail": consul.ServFail}[c.View.StaleAnswer], OnlyPassing: z.OnlyPassing, ARecordLimit: z.ARecordLimit,
		UDPAnswerLimit: z.UDPAnswerLimit, EnableTruncate: z.EnableTruncate, NoNodeMetaTXT: !z.NodeMetaTXT,
		SOA: consul.SOA{Refresh: seconds(z.SOA.Refresh), Retry: seconds(z.SOA.Retry), Expire: seconds(z.SOA.Expire), MinTTL: seconds(z.SOA.MinTTL)},
	}
}

// mustName parses a domain that Load has checked; "" stays "".
func mustName(s string) wire.Name {
	if s == "" {
		return ""
	}
	n, err := wire.ParseName(s)
	if err != nil {
		panic(err)
	}
	return n
}

// Routes returns what forwarder takes, the default route first. It has the
// recursors, or the upstreams given where none is configured; the caller finds
// those in resolv.conf. A route without a server is left out.
func (c *Config) Routes(upstreams []netip.AddrPort) []forwarder.Route {
	if len(c.Forward.Recursors) > 0 {
		upstreams = c.Forward.Recursors
	}
	mode := map[string]forwarder.Mode{"": forwarder.Fastest, "sequential": forwarder.Strict, "random": forwarder.Random}[c.Forward.Strategy]
	routes := []forwarder.Route{{Suffix: wire.Root, Servers: upstreams, Mode: mode, Timeout: min(c.Forward.Timeout, time.Hour) * time.Duration(len(upstreams))}}
	for _, r := range c.Forward.Routes {
		if !r.asks() {
			if r.Suffix == "." {
				routes[0].Servers = nil // nobody is asked
			}
			continue
		}
		to := forwarder.Route{Suffix: mustName(r.Suffix), Servers: r.Servers, Fallback: r.Fallback, Mode: forwarder.Mode(r.Mode), TrustAD: r.TrustAD}
		if r.TLS.IsSet() {
			to.TLS = &forwarder.TLS{Name: r.TLS.Name, Opportunistic: r.TLS.Opportunistic}
			for _, text := range r.TLS.Pins {
				pin, _ := base64.StdEncoding.DecodeString(text)
				to.TLS.Pins = append(to.TLS.Pins, [32]byte(pin))
			}
		}
		if r.Default {
			to.Servers = slices.Concat(r.Servers, upstreams)
		}
		if to.Suffix == wire.Root {
			routes[0] = to
			continue
		}
		routes = append(routes, to)
	}
	return slices.DeleteFunc(routes, func(r forwarder.Route) bool { return len(r.Servers) == 0 })
}

// OwnsZone reports whether the own zone answers domain: a forward block of the
// same name takes its place.
func (c *Config) OwnsZone() bool {
	own := mustName(c.Zone.Domain).Lower()
	return !slices.ContainsFunc(c.Forward.Routes, func(r Route) bool { return mustName(r.Suffix) == own })
}

// HostsConfig returns what resolver/local takes for hosts files and records.
func (c *Config) HostsConfig() local.HostsConfig {
	files := c.Hosts.Files
	if files == nil {
		files = []string{} // none, not the default
	}
	out := local.HostsConfig{Files: files, Records: c.Hosts.Records, Domain: mustName(c.Hosts.Domain), TTL: c.Hosts.TTL, TypeTransparent: c.Hosts.TypeTransparent}
	for _, r := range c.Forward.Routes {
		if r.Local || len(r.Addresses) > 0 {
			out.Fixed = append(out.Fixed, local.Fixed{Suffix: mustName(r.Suffix), Addrs: r.Addresses, TypeTransparent: r.asks()})
		}
	}
	return out
}

// asks reports whether anybody is asked about the names of a route.
func (r *Route) asks() bool { return len(r.Servers) > 0 || r.Default }

// BogusPriv returns what resolver/local takes for names of private networks.
func (c *Config) BogusPriv() local.BogusPriv {
	return map[string]local.BogusPriv{"on": local.BogusPrivOn, "off": local.BogusPrivOff, "reverse": local.BogusPrivReverse}[c.Filter.BogusPriv]
}

// FilterConfig returns what resolver keeps from clients.
func (c *Config) FilterConfig() resolver.Filter {
	f := c.Filter
	out := resolver.Filter{
		DomainNeeded: f.DomainNeeded, BogusNXDomain: f.BogusNXDomain,
		StopDNSRebind: f.StopDNSRebind, RebindLocalhostOK: f.RebindLocalhostOK,
	}
	for _, t := range f.Types {
		typ, _ := wire.ParseType(t)
		out.Types = append(out.Types, typ)
	}
	for _, domain := range f.RebindDomainOK {
		out.RebindDomainOK = append(out.RebindDomainOK, mustName(domain).Lower())
	}
	return out
}

// CacheConfig returns what cache takes.
func (c *Config) CacheConfig() cache.Config {
	out := cache.Config{MaxBytes: int(c.Cache.MaxBytes), MaxEntries: c.Cache.MaxEntries, Stale: c.Cache.Stale}
	if out.Stale == 0 {
		out.Stale = -1
	}
	return out
}

// ResolverConfig returns the bounds of lives that resolver takes.
func (c *Config) ResolverConfig() resolver.Config {
	out := resolver.Config{
		MinTTL: c.Cache.MinTTL, MaxTTL: c.Cache.MaxTTL, NegativeMaxTTL: c.Cache.NegativeMaxTTL,
		NegativeTTL: c.Cache.NegativeTTL, MaxClientTTL: c.Cache.MaxClientTTL,
	}
	if out.NegativeMaxTTL == 0 {
		out.NegativeMaxTTL = -1 // never, not the default
	}
	return out
}

// HTTPConfig returns what cluster/httpapi takes.
func (c *Config) HTTPConfig() httpapi.Config {
	h := httpapi.Config{
		Node: c.Node.Name, Datacenter: c.Node.Datacenter, Domain: c.Zone.Domain, AltDomain: c.Zone.AltDomain,
		AllowedHosts: c.HTTP.AllowedHosts, ResponseHeaders: c.HTTP.ResponseHeaders, BlockEndpoints: c.HTTP.BlockEndpoints,
		AllowWriteFrom: c.HTTP.AllowWriteFrom, OperatorOpen: c.HTTP.OperatorOpen, QueryTime: c.HTTP.DefaultQueryTime, MaxQuery: c.HTTP.MaxQueryTime,
		DiscoveryMaxStale: c.HTTP.AllowStale, MetricsPrefix: c.Telemetry.MetricsPrefix, NoPrometheus: c.Telemetry.NoPrometheus,
	}
	if token := c.ACL.Tokens.Default; token != "" {
		h.DefaultToken = token.Reveal
	}
	return h
}

// AgentConfig returns what cluster/agent takes.
func (c *Config) AgentConfig() agent.Config {
	a := agent.Config{
		DataDir: c.DataDir, Node: c.NodeRecord(), Services: c.Agent.Services, Checks: c.Agent.Checks,
		EnableScriptChecks: c.Agent.EnableScriptChecks, EnableLocalScriptChecks: c.Agent.EnableLocalScriptChecks,
		CheckUpdateInterval: c.Agent.CheckUpdateInterval, CheckOutputMaxSize: c.Agent.CheckOutputMaxSize,
		DiscardCheckOutput: c.Agent.DiscardCheckOutput, CheckTLS: c.Agent.CheckTLS,
	}
	if a.CheckUpdateInterval == 0 {
		a.CheckUpdateInterval = -1 // no time, not the default
	}
	for _, l := range c.Agent.LeftOut {
		if !l.Check && l.ID != "" {
			a.Absent = append(a.Absent, l.ID)
		}
	}
	return a
}

// NodeRecord returns this host's record; its ID is empty unless one is
// configured.
func (c *Config) NodeRecord() catalog.Node {
	return catalog.Node{
		ID: c.Node.ID, Node: c.Node.Name, Address: c.Node.Advertise.String(), Datacenter: c.Node.Datacenter,
		TaggedAddresses: c.Node.TaggedAddresses, Meta: c.Node.Meta,
	}
}

// BeginsAlone reports whether this host begins the history of a catalog by
// itself: -dev, bootstrap, bootstrap_expect = 1, or a host that is neither a
// server nor told to join others.
func (c *Config) BeginsAlone() bool {
	k := &c.Cluster
	single := !k.Server && len(k.RetryJoin)+len(k.RetryJoinExec) == 0 && len(k.RetryJoinWAN) == 0
	return c.Dev || k.Bootstrap || k.BootstrapExpect == 1 || single
}

// ConsensusConfig returns what cluster/consensus takes. performance's
// raft_multiplier scales Consul's timeouts of 1 s, 1 s and 0.5 s.
func (c *Config) ConsensusConfig() consensus.Config {
	out := consensus.Config{
		Bootstrap:     c.BeginsAlone(),
		SnapshotEvery: uint64(c.Raft.SnapshotThreshold), TrailingLogs: uint64(c.Raft.TrailingLogs),
	}
	if m := time.Duration(c.Raft.Multiplier); m > 0 {
		out.Heartbeat, out.Election, out.Lease = m*time.Second, m*time.Second, m*500*time.Millisecond
	}
	return out
}

// LogConfig returns what logging takes.
func (c *Config) LogConfig() logging.Config {
	l := logging.Config{
		Level: c.Log.Level, Sublevels: c.Log.Sublevels, JSON: c.Log.JSON,
		File: logging.File{Path: c.Log.File, Bytes: int64(c.Log.RotateBytes), Duration: c.Log.RotateDuration, MaxFiles: c.Log.RotateMaxFiles},
	}
	if c.Log.Syslog {
		l.Syslog = c.Log.SyslogFacility
	}
	return l
}
