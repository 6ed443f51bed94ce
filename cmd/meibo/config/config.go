// Package config turns flags and Consul's agent configuration files into one
// typed Config.
//
// What a Consul agent loads, this package loads: HCL and JSON, Consul's keys,
// aliases and legacy names, its order of files and its rules of merging. Keys
// of parts that meibo does not have are accepted and named once in a warning; a
// key nobody knows is an error that names file, line, key and the nearest known
// key. All faults found are reported, not only the first; one within a service or
// check leaves out that definition, any other refuses the whole. One table, returned
// by Keys, says of each key its type, range, default, meaning and status, and
// drives parsing, flags, errors, Redacted and Diff.
//
// It takes more than Consul: a block where a list of blocks is due and the other
// way round, service blocks repeated, names that Consul has given up (recursor,
// a check's script, statsd_addr, atlas_*). It takes less where a value could
// mean nothing: fractions for integers, ports above 65535, statuses that no
// check has. A docker check stands as critical, with a serious warning. Of several
// private addresses one is chosen instead of refusing to start.
//
// The package reads files and the host's addresses, and starts nothing. It must
// not know who listens, and its errors, String methods and Redacted never show
// the value of a secret.
package config

import (
	"log/slog"
	"net/netip"
	"time"

	"meibo/cluster/check"
	"meibo/cluster/definition"
)

// Config is a whole configuration: checked, with defaults filled in and address
// templates evaluated. It is not changed after Load and is safe to share.
type Config struct {
	Dev bool // -dev: everything in memory, nothing read from or written to disk

	Node      Node
	Listen    []netip.AddrPort // DNS addresses; empty when DNS is switched off
	ListenSet bool             // somebody said so: sockets that are handed over come on top; else they take their place
	// AllowRecursion are the networks whose questions are forwarded, loopback apart;
	// nil: those that this host is attached to.
	AllowRecursion []netip.Prefix
	HTTP           HTTP
	Zone           Zone
	Forward        Forward
	Cache          Cache
	Hosts          Hosts
	Filter         Filter
	View           View
	Agent          Agent
	Cluster        Cluster
	Raft           Raft
	Gossip         Gossip // on the local network
	ACL            ACL
	TLS            TLS
	Log            Log
	Telemetry      Telemetry
	Watches        []map[string]any // as written; keys of consul's watches

	DataDir  string // "" only with Dev
	CacheDir string // where the view and the cache are kept; DataDir/view unless set; "" with Dev
	PidFile  string // "" writes none

	AutoReload bool // re-read when a file changes
	Debug      bool // enable_debug: profiling endpoints
	Files      []string

	settings settings
}

// Node says who this host is.
type Node struct {
	Name              string // host name unless set
	ID                string // "" means: make one and keep it in DataDir
	Datacenter        string // lower case
	PrimaryDatacenter string // lower case; Datacenter unless set
	Meta              map[string]string
	Bind              netip.Addr        // for cluster traffic; may be unspecified
	Advertise         netip.Addr        // the node's address in the catalog
	TaggedAddresses   map[string]string // lan, wan, lan_ipv4, … as far as known, then those configured
	TranslateWAN      bool
	// Awaited: there is no address yet that Bind and Advertise are to be, as when the
	// daemon starts before the network; what they are instead is for the meantime.
	Awaited bool
}

// Endpoint is an address to listen on: either AddrPort is valid or Unix is the
// path of a socket.
type Endpoint struct {
	AddrPort netip.AddrPort
	Unix     string
}

// String returns "addr:port" or "unix://path".
func (e Endpoint) String() string {
	if e.Unix != "" {
		return "unix://" + e.Unix
	}
	return e.AddrPort.String()
}

// HTTP is the HTTP API's part.
type HTTP struct {
	Listen           []Endpoint // empty when switched off
	ListenTLS        []Endpoint // empty unless ports.https is set
	AllowedHosts     []string   // further names a request's Host may have; lower case
	ResponseHeaders  map[string]string
	BlockEndpoints   []string       // path prefixes answered 403
	AllowWriteFrom   []netip.Prefix // empty: everybody
	OperatorOpen     bool           // what operators do is open to all, not to the control socket alone
	MaxHeaderBytes   int            // 0: the server's default
	MaxConnsPerHost  int            // 0: no limit
	DefaultQueryTime time.Duration  // of a blocking query that names no wait
	MaxQueryTime     time.Duration
	AllowStale       time.Duration // discovery_max_stale; 0 never
	SocketUser       string
	SocketGroup      string
	SocketMode       string // octal; "" leaves the umask's
}

// Zone is what resolver/consul answers with. Domains end in a dot and keep the
// letter case they were configured with.
type Zone struct {
	Domain         string
	AltDomain      string                   // "" for none
	NodeTTL        time.Duration            // whole seconds
	ServiceTTL     map[string]time.Duration // exact names, prefixes ending in "*", "*"
	SOA            SOA
	EnableTruncate bool
	OnlyPassing    bool
	ARecordLimit   int // 0: no limit
	UDPAnswerLimit int // 0: as many as fit
	NodeMetaTXT    bool
}

// SOA holds the timers of the zone's SOA record, in seconds.
type SOA struct{ Refresh, Retry, Expire, MinTTL uint32 }

// Forward says where questions outside the own zones go.
type Forward struct {
	Recursors  []netip.AddrPort // of the default route; empty: those of resolv.conf
	ResolvFile string           // names the recursors where there are none here
	Strategy   string           // "sequential" or "random", from dns_config.recursor_strategy; "" unless set
	Timeout    time.Duration    // for one exchange with one recursor; 0 unless set
	Routes     []Route          // sorted by suffix
}

// Route sends the names below Suffix to servers of its own.
type Route struct {
	Suffix    string // lower case, ends in a dot
	Servers   []netip.AddrPort
	Fallback  []netip.AddrPort // after Servers and those of the default route
	TLS       RouteTLS
	Addresses []netip.Addr // of all its names; servers, where there are any, are asked for other types
	Local     bool         // no names but those of hosts files and records, in place of servers
	Default   bool         // the servers of the default route, after Servers
	Mode      string       // "fastest", "strict", "all" or "random"
	TrustAD   bool         // pass the AD bit on
}

// RouteTLS says how servers are asked over TLS; the zero value: not at all.
type RouteTLS struct {
	Name          string
	Pins          []string // base64 of SHA-256
	Opportunistic bool
}

// IsSet reports whether TLS is asked for.
func (t *RouteTLS) IsSet() bool { return t.Name != "" || len(t.Pins) > 0 || t.Opportunistic }

// Cache bounds the cache of forwarded answers.
type Cache struct {
	MaxBytes       int64
	MaxEntries     int // 0: the built-in bound
	MinTTL         time.Duration
	MaxTTL         time.Duration
	NegativeMaxTTL time.Duration // 0: not at all
	NegativeTTL    time.Duration
	MaxClientTTL   time.Duration
	Persist        bool          // written at stop, read at start
	Stale          time.Duration // how long past its end an answer may stand in for a dead upstream; 0 never
}

// Hosts are the names answered from files and from the configuration.
type Hosts struct {
	Files   []string
	Records []string // "NAME [TTL] TYPE DATA"
	Domain  string   // of names without a dot; "" leaves them so
	TTL     time.Duration
	// TypeTransparent leaves types that a name has none of to zones and routes.
	TypeTransparent bool
}

// Filter is what is kept from clients of what upstreams say.
type Filter struct {
	Types             []string
	DomainNeeded      bool
	BogusPriv         string // "auto", "on", "off" or "reverse"
	BogusNXDomain     []netip.Prefix
	StopDNSRebind     bool
	RebindDomainOK    []string
	RebindLocalhostOK bool
}

// View bounds what this host keeps of the catalog.
type View struct {
	WholeBelow int64         // subscribe to everything while the catalog is smaller; below 0: never
	Keep       time.Duration // contents nobody asked for
	MaxStale   time.Duration // answers last confirmed longer ago are what StaleAnswer says; 0: never
	// StaleAnswer is "ttl" (a short one) or "servfail".
	StaleAnswer string
}

// Agent is this host's part: its definitions and how its checks run.
type Agent struct {
	Services                []definition.Service
	Checks                  []definition.Check // of the node, or of a service by ServiceID
	LeftOut                 []LeftOut          // not among them, because of a fault
	EnableScriptChecks      bool               // from files and from the API
	EnableLocalScriptChecks bool               // from files
	CheckUpdateInterval     time.Duration      // output-only changes are held back so long
	CheckOutputMaxSize      int                // bytes
	DiscardCheckOutput      bool
	CheckTLS                *check.TLS // what checks over TLS show and trust; nil: no certificate, the system's CAs

	places map[string]position // of services and checks, by "service ID" and "check ID"
}

// Cluster says how this host meets others.
type Cluster struct {
	Server               bool
	Bootstrap            bool
	BootstrapExpect      int
	Encrypt              Secret // base64 of 16, 24 or 32 bytes; "" for none
	InTheClear           bool   // encrypt = "none": no key, and that is meant
	KeyringFile          bool   // keep the keyring in DataDir
	RetryJoin            []string
	RetryJoinExec        [][]string // programs that print further ones, and their arguments
	RetryInterval        time.Duration
	RetryMax             int // 0: for ever
	RetryJoinWAN         []string
	RetryIntervalWAN     time.Duration
	RetryMaxWAN          int
	RejoinAfterLeave     bool
	LeaveOnTerminate     bool
	SkipLeaveOnInterrupt bool
	ServerPort           int // TCP, of link
	SerfLAN              netip.AddrPort
	AllowedLAN           []netip.Prefix // empty: everybody
	AllowedWAN           []netip.Prefix
	ReconnectTimeout     time.Duration
	SessionTTLMin        time.Duration
	RPCHoldTimeout       time.Duration
	LeaveDrainTime       time.Duration
	HandshakeTimeout     time.Duration // of other hosts; 0: built in
	ConnsPerMember       int           // of one other host; 0: built in
	Autopilot            Autopilot
}

// Autopilot says how a leader tends the servers.
type Autopilot struct {
	CleanupDeadServers      bool
	LastContactThreshold    time.Duration
	MaxTrailingLogs         int
	MinQuorum               int
	ServerStabilizationTime time.Duration
}

// Raft tunes consensus. Zero values leave the package's own defaults.
type Raft struct {
	Multiplier        int // 0 unless performance.raft_multiplier is set
	SnapshotThreshold int
	TrailingLogs      int
}

// Gossip tunes memberlist. Zero values leave the package's own defaults.
type Gossip struct {
	Nodes          int
	Interval       time.Duration
	ProbeInterval  time.Duration
	ProbeTimeout   time.Duration
	SuspicionMult  int
	RetransmitMult int
	HoldDown       time.Duration
	HoldDownMax    time.Duration
}

// ACL holds what is configured of tokens and policies.
type ACL struct {
	Enabled       bool
	DefaultPolicy string // "allow" or "deny"
	DownPolicy    string
	TokenTTL      time.Duration
	PolicyTTL     time.Duration
	RoleTTL       time.Duration
	PersistTokens bool
	Tokens        Tokens
}

// Tokens are the secrets of the acl.tokens stanza.
type Tokens struct {
	InitialManagement, Agent, AgentRecovery, Default, Replication, DNS, ServiceRegistration Secret
}

// TLS holds the files of the HTTPS listener.
type TLS struct {
	CAFile, CAPath, CertFile, KeyFile string
	MinVersion                        string // "TLSv1_2" …; "" for the default
	VerifyIncoming                    bool
}

// Log says what is written where.
type Log struct {
	Level          slog.Level            // TRACE is one step below Debug
	Sublevels      map[string]slog.Level // by part, as logging.Part reads it
	JSON           bool
	File           string
	RotateBytes    int
	RotateDuration time.Duration
	RotateMaxFiles int
	Syslog         bool
	SyslogFacility string
}

// Telemetry says how metrics are shown.
type Telemetry struct {
	MetricsPrefix string // takes the place of "meibo" in the names of metrics
	NoPrometheus  bool   // prometheus_retention_time = "0s"
}

// LevelTrace is log_level "TRACE", which log/slog has no name for.
const LevelTrace = slog.LevelDebug - 4

// Secret is a string that shows itself only to those who convert it.
type Secret string

const hidden = "(hidden)"

// String returns "(hidden)", or "" when there is no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText is String, for encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue is String, for log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// Warning is something that was accepted and that the operator should know of.
type Warning struct {
	Serious bool   // something that was guarded is not: log it as an error
	File    string // "" when it comes from no file
	Line    int
	Key     string
	Text    string
}

// String returns `FILE:LINE: key "x": text`.
func (w Warning) String() string {
	return place(w.File, w.Line) + keyed(w.Key) + w.Text
}
