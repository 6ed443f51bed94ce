package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// noKey is the value of encrypt that says in words what leaving it out must not:
// that hosts speak to each other unencrypted, and whoever reaches them may join.
const noKey = "none"

func (b *builder) cluster(n Node) Cluster {
	c := Cluster{
		Server: b.is("server"), Bootstrap: b.is("bootstrap"), BootstrapExpect: b.int("bootstrap_expect"),
		Encrypt: b.secret("encrypt"), KeyringFile: !b.is("disable_keyring_file") && !b.src.Dev,
		RetryJoin: b.joins("retry_join"), RetryInterval: b.duration("retry_interval"), RetryMax: b.int("retry_max"),
		RetryJoinWAN: b.joins("retry_join_wan"), RetryIntervalWAN: b.duration("retry_interval_wan"), RetryMaxWAN: b.int("retry_max_wan"),
		RejoinAfterLeave: b.is("rejoin_after_leave"), LeaveOnTerminate: b.is("leave_on_terminate"),
		SkipLeaveOnInterrupt: b.is("skip_leave_on_interrupt"), ServerPort: b.int("ports.server"),
		SerfLAN:    b.serf("serf_lan", "ports.serf_lan", n.Bind),
		AllowedLAN: b.prefixes("serf_lan_allowed_cidrs"), AllowedWAN: b.prefixes("serf_wan_allowed_cidrs"),
		ReconnectTimeout: b.duration("reconnect_timeout"), SessionTTLMin: b.duration("session_ttl_min"),
		RPCHoldTimeout: b.duration("performance.rpc_hold_timeout"),
		LeaveDrainTime: b.duration("performance.leave_drain_time"), RetryJoinExec: b.joinPrograms("retry_join"),
		HandshakeTimeout: b.duration("limits.rpc_handshake_timeout"), ConnsPerMember: b.int("limits.rpc_max_conns_per_client"),
		Autopilot: Autopilot{
			CleanupDeadServers: b.is("autopilot.cleanup_dead_servers"), LastContactThreshold: b.duration("autopilot.last_contact_threshold"),
			MaxTrailingLogs: b.int("autopilot.max_trailing_logs"), MinQuorum: b.int("autopilot.min_quorum"),
			ServerStabilizationTime: b.duration("autopilot.server_stabilization_time"),
		},
	}
	if c.Encrypt == noKey {
		c.Encrypt, c.InTheClear = "", true
	}
	if s := b.set["skip_leave_on_interrupt"]; s == nil {
		c.SkipLeaveOnInterrupt = true
	}
	b.bootstrap(&c)
	return c
}

// bootstrap checks how a cluster begins.
func (b *builder) bootstrap(c *Cluster) {
	switch {
	case c.Bootstrap && !c.Server:
		b.wrong("bootstrap", "needs server = true")
	case c.BootstrapExpect > 0 && !c.Server:
		b.wrong("bootstrap_expect", "needs server = true")
	case c.Bootstrap && c.BootstrapExpect > 0:
		b.wrong("bootstrap_expect", "cannot be set together with bootstrap")
	case b.src.Dev && c.BootstrapExpect > 0:
		b.wrong("bootstrap_expect", "cannot be set together with -dev")
	case c.BootstrapExpect == 2:
		b.caution("bootstrap_expect", "two servers: the loss of either stops writes; use 3 or 5")
	case c.BootstrapExpect > 2 && c.BootstrapExpect%2 == 0:
		b.caution("bootstrap_expect", fmt.Sprintf("an even number of servers bears no more losses than %d", c.BootstrapExpect-1))
	}
}

func (b *builder) gossip() Gossip {
	hold, most := b.duration("gossip_lan.hold_down"), b.duration("gossip_lan.hold_down_max")
	if hold > most {
		b.wrong("gossip_lan.hold_down_max", fmt.Sprintf("%s is less than hold_down, %s", most, hold))
	}
	return Gossip{
		Nodes: b.int("gossip_lan.gossip_nodes"), Interval: b.duration("gossip_lan.gossip_interval"),
		ProbeInterval: b.duration("gossip_lan.probe_interval"), ProbeTimeout: b.duration("gossip_lan.probe_timeout"),
		SuspicionMult: b.int("gossip_lan.suspicion_mult"), RetransmitMult: b.int("gossip_lan.retransmit_mult"),
		HoldDown: hold, HoldDownMax: most,
	}
}

// KeyringPath is the file that keeps gossip's keys, "" for none: where Consul
// has it.
func (c *Config) KeyringPath() string {
	if c.DataDir == "" || !c.Cluster.KeyringFile || c.Cluster.InTheClear {
		return ""
	}
	return filepath.Join(c.DataDir, "serf", "local.keyring")
}

// hasKey reports whether there is a key, configured or kept.
func (c *Config) hasKey() bool {
	if c.Cluster.Encrypt != "" {
		return true
	}
	path := c.KeyringPath()
	if path == "" {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.Size() > 0
}

// MeetsOthers reports whether this host may be met by others that are not on
// this very machine: there is a key, or it was said in words that none is
// wanted.
func (c *Config) MeetsOthers() bool { return c.Cluster.InTheClear || c.hasKey() }

// CheckJoin says why the addresses must not be joined, or nil: without a key
// only those of this machine may be.
func (c *Config) CheckJoin(addrs []string) error {
	if c.MeetsOthers() {
		return nil
	}
	for _, a := range addrs {
		if beyondLoopback(a) {
			return fmt.Errorf("%s is on another machine, and there is no key: %s", shorten(a), giveAKey)
		}
	}
	return nil
}

const giveAKey = `make one with "meibo keygen" and set encrypt to it on every host, or set encrypt = "none" to let whoever reaches this host read the catalog and join`

// encryption demands a key, or a word, before this host speaks to others.
func (b *builder) encryption(c *Config) {
	if c.MeetsOthers() || b.get("encrypt").bad {
		return
	}
	path, why := "", ""
	for _, e := range b.entries("retry_join") {
		if beyondLoopback(e.text) {
			path, why = "retry_join", "joins other machines, and encrypt is not set"
		}
	}
	if k := c.Cluster; path == "" && k.Server && k.BootstrapExpect > 1 && c.Node.Advertise.IsValid() && !c.Node.Advertise.IsLoopback() {
		path, why = "bootstrap_expect", fmt.Sprintf("waits for servers on other machines (this one advertises %s), and encrypt is not set", c.Node.Advertise)
	}
	switch {
	case path == "":
	case b.src.Partial && c.DataDir == "":
		b.caution(path, why+" here: it must be elsewhere; else "+giveAKey)
	default:
		b.wrong(path, why+": "+giveAKey)
	}
}

// beyondLoopback reports whether an address to join may be on another machine.
// A template counts as such: what it yields is an interface's address.
func beyondLoopback(s string) bool {
	host := hostOf(s)
	if a, err := netip.ParseAddr(host); err == nil {
		return !a.Unmap().IsLoopback()
	}
	return host != "localhost" && !strings.HasSuffix(host, ".localhost")
}

// hostOf is the name or address of a host to join, in lower case and without a port.
func hostOf(s string) string {
	host := strings.TrimSpace(s)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// checkJoin refuses what would never be joined.
func checkJoin(v any) string {
	s := strings.TrimSpace(v.(string))
	switch {
	case isTemplate(s), s == "", strings.Contains(s, "provider="): // refused by joins
		return ""
	case strings.HasPrefix(s, joinProgram):
		if len(strings.Fields(s[len(joinProgram):])) == 0 || strings.ContainsAny(s, "'\"") {
			return `exec=PROGRAM ARGS, which no shell reads: without quotes, arguments are parted by spaces`
		}
		return ""
	case strings.ContainsAny(s, " \t/\"") || len(s) > 260:
		return `an address or name with or without a port, such as "10.0.0.11", "10.0.0.11:8301", "[fd00::1]:8301" or "servers.example"`
	}
	return ""
}
