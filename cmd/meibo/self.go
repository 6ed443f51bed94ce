package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/httpapi"
	"meibo/cluster/membership"
	"meibo/cmd/meibo/config"
)

// What this host tells of itself to Consul's clients: the names are Consul's, the values those that are in force.

func (h hostAgent) Self() httpapi.Self {
	cfg := h.d.config()
	record := h.d.node.Record()
	return httpapi.Self{
		NodeID: record.ID, NodeName: record.Node, Datacenter: record.Datacenter, PrimaryDatacenter: cfg.Node.PrimaryDatacenter,
		Server: h.isServer(), Member: h.member(), Meta: record.Meta, Stats: h.stats(), Debug: debugConfig(cfg, record, h.isServer()),
	}
}

// debugConfig is the configuration under Consul's names, as far as the parts exist, and under those of the files.
func debugConfig(cfg *config.Config, record catalog.Node, server bool) map[string]any {
	shown := make(map[string]any)
	for line := range strings.Lines(cfg.Redacted()) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " = "); ok {
			shown[key] = value
		}
	}
	meets, dns := cfg.GossipConfig(), addresses("", cfg.Listen)
	var api []string
	for _, e := range cfg.HTTP.Listen {
		if e.Unix != "" {
			api = append(api, e.String())
		} else {
			api = append(api, tcp(e.AddrPort))
		}
	}
	for name, value := range map[string]any{
		"AdvertiseAddrLAN": record.Address, "AutoReloadConfig": cfg.AutoReload, "BindAddr": cfg.Node.Bind.String(),
		"Bootstrap": cfg.Cluster.Bootstrap, "BootstrapExpect": cfg.Cluster.BootstrapExpect,
		"CheckUpdateInterval": cfg.Agent.CheckUpdateInterval.String(), "ConnectEnabled": false, "ConfigFiles": list(cfg.Files),
		"ACLsEnabled": false, "DNSAddrs": append(addresses("tcp://", cfg.Listen), addresses("udp://", cfg.Listen)...), "DNSAltDomain": cfg.Zone.AltDomain,
		"DNSDomain": cfg.Zone.Domain, "DNSOnlyPassing": cfg.Zone.OnlyPassing, "DNSPort": port(dns), "DNSRecursors": addresses("", cfg.Forward.Recursors),
		"DataDir": cfg.DataDir, "Datacenter": record.Datacenter, "DefaultQueryTime": cfg.HTTP.DefaultQueryTime.String(), "DevMode": cfg.Dev,
		"EnableDebug": cfg.Debug, "EnableLocalScriptChecks": cfg.Agent.EnableLocalScriptChecks || cfg.Agent.EnableScriptChecks,
		"EnableRemoteScriptChecks": cfg.Agent.EnableScriptChecks, "EncryptKey": cfg.Cluster.Encrypt.String(),
		"GRPCAddrs": []string{}, "GRPCPort": -1, "GRPCTLSAddrs": []string{}, "GRPCTLSPort": -1, "HTTPAddrs": list(api), "HTTPPort": port(api),
		"HTTPSAddrs": []string{}, "HTTPSPort": -1, "LeaveOnTerm": cfg.Cluster.LeaveOnTerminate, "MaxQueryTime": cfg.HTTP.MaxQueryTime.String(),
		"NodeID": record.ID, "NodeMeta": cfg.Node.Meta, "NodeName": record.Node, "PrimaryDatacenter": cmp.Or(cfg.Node.PrimaryDatacenter, record.Datacenter),
		"ReconnectTimeoutLAN": cfg.Cluster.ReconnectTimeout.String(), "RejoinAfterLeave": cfg.Cluster.RejoinAfterLeave,
		"RetryJoinLAN": list(cfg.Cluster.RetryJoin), "SerfPortLAN": int(cfg.Cluster.SerfLAN.Port()), "SerfPortWAN": -1, "ServerMode": server,
		"ServerPort": cfg.Cluster.ServerPort, "SkipLeaveOnInt": cfg.Cluster.SkipLeaveOnInterrupt, "TaggedAddresses": record.TaggedAddresses,
		"TranslateWANAddrs": cfg.Node.TranslateWAN, "UIConfig": map[string]any{"Enabled": false},
		"Logging": map[string]any{"LogLevel": cfg.Log.Level.String(), "LogJSON": cfg.Log.JSON, "LogFilePath": cfg.Log.File, "EnableSyslog": cfg.Log.Syslog},
	} {
		shown[name] = value
	}
	if meets.Bind.IsValid() {
		shown["SerfAdvertiseAddrLAN"], shown["SerfBindAddrLAN"] = tcp(meets.Advertise), tcp(meets.Bind)
	}
	if addr, err := netip.ParseAddr(record.Address); err == nil && cfg.Cluster.ServerPort > 0 {
		shown["RPCAdvertiseAddr"] = tcp(netip.AddrPortFrom(addr, uint16(cfg.Cluster.ServerPort)))
	}
	return shown
}

func tcp(a netip.AddrPort) string { return "tcp://" + a.String() }

// built is what the build noted of its source, "" if it didn't.
func built(key string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == key {
				return s.Value
			}
		}
	}
	return ""
}

// list is never null in JSON.
func list(l []string) []string { return append([]string{}, l...) }

func addresses(scheme string, addrs []netip.AddrPort) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, scheme+a.String())
	}
	return out
}

// port is that of the first address that has one, -1 where nothing listens.
func port(addrs []string) int {
	for _, a := range addrs {
		if p, err := strconv.Atoi(a[strings.LastIndexByte(a, ':')+1:]); err == nil {
			return p
		}
	}
	return -1
}

// stats are figures by subsystem, those of `consul info`.
func (h hostAgent) stats() map[string]map[string]string {
	stats := h.d.node.Stats()
	services, checks := h.Services(), h.Checks()
	ttls := 0
	for _, c := range checks {
		if c.Type == "ttl" {
			ttls++
		}
	}
	stats["agent"] = map[string]string{
		"services": strconv.Itoa(len(services)), "checks": strconv.Itoa(len(checks)),
		"check_monitors": strconv.Itoa(len(checks) - ttls), "check_ttls": strconv.Itoa(ttls),
	}
	stats["build"] = map[string]string{
		"version": apiLevel, "version_metadata": "meibo." + strings.TrimPrefix(version, "v"), "prerelease": "", "revision": built("vcs.revision"),
	}
	stats["runtime"] = map[string]string{
		"arch": runtime.GOARCH, "os": runtime.GOOS, "version": runtime.Version(), "cpu_count": strconv.Itoa(runtime.NumCPU()),
		"goroutines": strconv.Itoa(runtime.NumGoroutine()), "max_procs": strconv.Itoa(runtime.GOMAXPROCS(0)),
	}
	stats["consul"], stats["serf_lan"] = h.clusterStats()
	return stats
}

func (h hostAgent) clusterStats() (consul, serf map[string]string) {
	count := make(map[membership.Status]int)
	servers := 0
	members := h.d.node.Members()
	for _, m := range members {
		if count[m.Status]++; m.Tags["role"] == "consul" && m.Status == membership.Alive {
			servers++
		}
	}
	cfg := h.d.config()
	serf = map[string]string{
		"members": strconv.Itoa(len(members)), "failed": strconv.Itoa(count[membership.Failed]), "left": strconv.Itoa(count[membership.Left]),
		"encrypted": strconv.FormatBool(cfg.Cluster.Encrypt != ""),
	}
	consul = map[string]string{"acl": "disabled", "server": strconv.FormatBool(h.isServer())}
	if !h.isServer() {
		consul["known_servers"] = strconv.Itoa(servers)
		return consul, serf
	}
	l := h.d.node.Leadership()
	consul["leader"], consul["leader_addr"] = strconv.FormatBool(l.Leading), l.LeaderAddr
	consul["bootstrap"], consul["known_datacenters"] = strconv.FormatBool(cfg.Cluster.Bootstrap || cfg.Dev), "1"
	return consul, serf
}

// isServer reports whether this host holds the catalog and has a port by which others could ask it.
func (h hostAgent) isServer() bool {
	return h.d.config().Cluster.ServerPort > 0 && h.d.node.HoldsCatalog()
}

// Monitor implements httpapi.Agent. A daemon whose log is another's has none to show.
func (h hostAgent) Monitor(ctx context.Context, level slog.Level, json bool) <-chan []byte {
	if h.d.lines == nil {
		none := make(chan []byte)
		context.AfterFunc(ctx, func() { close(none) })
		return none
	}
	return h.d.lines.Follow(ctx, level, json)
}

// Host implements httpapi.Agent.
func (h hostAgent) Host() map[string]any {
	name, err := os.Hostname()
	found, errs := hostFacts(h.d.config().DataDir)
	if err != nil {
		errs = append(errs, fmt.Sprintf("host name: %v", err))
	}
	host, _ := found["Host"].(map[string]any)
	if host == nil {
		host = make(map[string]any)
	}
	host["hostname"], host["os"], host["kernelArch"] = name, runtime.GOOS, runtime.GOARCH
	found["Host"], found["CollectionTime"], found["Errors"] = host, time.Now().UnixNano(), errs
	return found
}
