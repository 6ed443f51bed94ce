package config

import (
	"encoding/base64"
	"net/netip"
	"path/filepath"

	"meibo/cluster/gossip"
	"meibo/cluster/leader"
	"meibo/cluster/link"
)

// GossipConfig returns what cluster/gossip takes; the ID is empty unless one is
// configured. Bind is invalid where ports.serf_lan switches gossip off. A host
// that must not be met by others listens on loopback, whatever bind_addr says.
func (c *Config) GossipConfig() gossip.Config {
	bind := c.reachable(c.Cluster.SerfLAN)
	g := gossip.Config{
		ID: c.Node.ID, Name: c.Node.Name, Datacenter: c.Node.Datacenter, Bind: bind,
		RetryJoin: c.Cluster.RetryJoin, RetryJoinExec: c.Cluster.RetryJoinExec, RetryInterval: c.Cluster.RetryInterval, RetryMax: c.Cluster.RetryMax,
		RejoinAfterLeave: c.Cluster.RejoinAfterLeave, Allowed: c.Cluster.AllowedLAN, ReconnectTimeout: c.Cluster.ReconnectTimeout,
		Tuning: gossip.Tuning(c.Gossip),
	}
	if bind.IsValid() {
		g.Advertise = c.reachable(netip.AddrPortFrom(c.Node.Advertise, bind.Port()))
	}
	if c.DataDir != "" {
		g.Dir = filepath.Join(c.DataDir, "serf")
	}
	return g
}

// LinkConfig returns what cluster/link takes, with Listen as GossipConfig has
// Bind. The ID of Self is empty unless one is configured; the keys are
// Key and those kept in KeyringPath.
func (c *Config) LinkConfig() link.Config {
	l := link.Config{Self: link.Peer{ID: c.Node.ID, Name: c.Node.Name, Datacenter: c.Node.Datacenter}}
	if port := c.Cluster.ServerPort; port > 0 {
		l.Listen = c.reachable(netip.AddrPortFrom(c.Node.Bind, uint16(port)))
	}
	return l
}

// reachable moves an address that others could reach to loopback where they
// must not.
func (c *Config) reachable(a netip.AddrPort) netip.AddrPort {
	switch {
	case !a.IsValid(), a.Addr().IsLoopback(), c.MeetsOthers():
		return a
	case a.Addr().Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())
}

// Key returns the configured secret's bytes, nil where there is none.
func (c *Config) Key() []byte {
	key, _ := base64.StdEncoding.DecodeString(c.Cluster.Encrypt.Reveal()) // checked by Load
	return key
}

// ViewPath is the file that the view is kept in, "" for none.
func (c *Config) ViewPath() string {
	if c.CacheDir == "" {
		return ""
	}
	return filepath.Join(c.CacheDir, "catalog.view")
}

// AutopilotConfig returns what cluster/leader takes of autopilot.
func (c *Config) AutopilotConfig() leader.Autopilot {
	a := leader.Autopilot(c.Cluster.Autopilot)
	if a.ServerStabilizationTime == 0 {
		a.ServerStabilizationTime = -1 // at once, not the default
	}
	return a
}
