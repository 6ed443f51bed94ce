package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"meibo/cluster/membership"
)

// Tuning is how fast gossip is. The zero value is ours: a death is told within
// about 2.5 to 4 s among ten hosts, with no false one at 20 % packet loss.
type Tuning struct {
	Nodes          int           // told at each interval; 4
	Interval       time.Duration // between rounds of telling; 100 ms
	ProbeInterval  time.Duration // between pings of some member; 500 ms
	ProbeTimeout   time.Duration // for the direct answer; 200 ms
	SuspicionMult  int           // 4
	RetransmitMult int           // 10
	HoldDown       time.Duration // of a member that is back, at first; 5 s
	HoldDownMax    time.Duration // and at most; 5 min
}

// Network is where gossip listens and dials, as net.ListenConfig and net.Dialer
// do it. The packets are UDP's.
type Network interface {
	Listen(ctx context.Context, network, address string) (net.Listener, error)
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Config is what New needs.
type Config struct {
	ID, Name, Datacenter string // ID and Name are required
	// Bind is where to listen, TCP and UDP; port 0 takes a free one. Advertise
	// is what others are told, as far as it says more than Bind.
	Bind, Advertise netip.AddrPort
	// Tags are told to everybody; they must fit 512 bytes, encoded. "id" and
	// "dc" are added.
	Tags    map[string]string
	Keyring *Keyring // nil or empty: not encrypted
	Dir     string   // of the snapshot of members; "" for none
	// Lives is what is known of the lives of hosts from before; what the snapshot
	// says, and others tell, counts more.
	Lives []membership.Life

	RetryJoin, StartJoin []string       // host, host:port, [ipv6]:port
	RetryJoinExec        [][]string     // programs and their arguments; each prints further ones, before each attempt
	RetryInterval        time.Duration  // 30 s
	RetryMax             int            // attempts; 0: for ever
	RejoinAfterLeave     bool           // call the members of the snapshot though this host left
	Allowed              []netip.Prefix // who may gossip with us; empty: everybody with the key

	// Network opens the sockets; nil: the kernel's.
	Network Network

	ReconnectTimeout time.Duration // a failed member is reaped then; 72 h
	TombstoneTimeout time.Duration // a left member is forgotten then; 24 h
	Tuning           Tuning

	// OnLife is called after Members().Life(nodeID) has changed, from one goroutine, which may
	// take its time.
	OnLife func(nodeID string)
	// Confirmed reports whether a server that has a leader says that a host is
	// dead. That overrides the mass-failure guard. It must not block; nil: nobody does.
	Confirmed func(nodeID string) bool
	Logger    *slog.Logger // nil: discard
}

func (cfg Config) withDefaults() Config {
	orDefault := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	orNumber := func(n *int, value int) {
		if *n <= 0 {
			*n = value
		}
	}
	orDefault(&cfg.RetryInterval, 30*time.Second)
	orDefault(&cfg.ReconnectTimeout, 72*time.Hour)
	orDefault(&cfg.TombstoneTimeout, 24*time.Hour)
	t := &cfg.Tuning
	orNumber(&t.Nodes, 4)
	orDefault(&t.Interval, 100*time.Millisecond)
	orDefault(&t.ProbeInterval, 500*time.Millisecond)
	orDefault(&t.ProbeTimeout, 200*time.Millisecond)
	orNumber(&t.SuspicionMult, 4)
	orNumber(&t.RetransmitMult, 10)
	orDefault(&t.HoldDown, membership.DefaultHoldDown)
	orDefault(&t.HoldDownMax, max(membership.DefaultHoldDownMax, t.HoldDown))
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

func (cfg Config) validate() error {
	switch {
	case cfg.ID == "" || cfg.Name == "":
		return errors.New("gossip: a host needs a node ID and a name")
	case len(cfg.Name) > maxName || len(cfg.ID) > maxName:
		return fmt.Errorf("gossip: node name %.40q… or its ID is longer than %d bytes", cfg.Name, maxName)
	case !cfg.Bind.Addr().IsValid():
		return errors.New("gossip: no address to bind")
	case cfg.Bind.Addr().IsUnspecified() && !cfg.Advertise.Addr().IsValid():
		return fmt.Errorf("gossip: bound to %s, which others can't be told: set the address to advertise", cfg.Bind.Addr())
	case cfg.Advertise.Addr().IsValid() && cfg.Advertise.Addr().IsUnspecified():
		return fmt.Errorf("gossip: %s can't be advertised: set this host's own address", cfg.Advertise.Addr())
	}
	return nil
}
