package config

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"meibo/cmd/meibo/logging"
	"meibo/resolver/wire"
)

// builder makes a Config of merged settings.
type builder struct {
	*loader
	set     settings
	awaited bool // this host lacks an address that it is to be known by
}

// get returns the setting of a path, its default where nothing is set. A bad
// setting counts as its default, so that one fault does not cause another.
func (b *builder) get(path string) *setting {
	if s := b.set[path]; s != nil && !s.bad {
		return s
	}
	k := tables[""].byPath[path]
	return &setting{key: k, value: k.defaultValue(), bad: b.set[path] != nil}
}

// isSet tells a setting from a default.
func (b *builder) isSet(path string) bool { return b.set[path] != nil }

// defaultValue parses the key's default; without one it is the zero value.
func (k *Key) defaultValue() any {
	if k.Default == "" {
		return k.zero()
	}
	c := conversion{decoder: decoder{&report{}}, key: k}
	v, ok := c.typed(&tree{shape: shapeText, text: k.Default})
	if !ok {
		panic("default of " + k.Path + " is not a value of its type")
	}
	return v
}

func (k *Key) zero() any {
	switch k.Type {
	case Bool:
		return false
	case Int, Size:
		return int64(0)
	case Number:
		return float64(0)
	case Duration:
		return time.Duration(0)
	case Strings:
		return []entry(nil)
	case StringMap:
		return map[string]string(nil)
	case DurationMap:
		return map[string]time.Duration(nil)
	case ListMap:
		return map[string][]string(nil)
	case Any:
		return []*tree(nil)
	case Blocks, Named:
		return []*block(nil)
	}
	return ""
}

func (b *builder) text(path string) string            { return b.get(path).value.(string) }
func (b *builder) secret(path string) Secret          { return Secret(b.text(path)) }
func (b *builder) is(path string) bool                { return b.get(path).value.(bool) }
func (b *builder) size(path string) int64             { return b.get(path).value.(int64) }
func (b *builder) duration(path string) time.Duration { return b.get(path).value.(time.Duration) }
func (b *builder) entries(path string) []entry        { return b.get(path).value.([]entry) }
func (b *builder) texts(path string) []string         { return texts(b.entries(path)) }
func (b *builder) blocks(path string) []*block        { return b.get(path).value.([]*block) }
func (b *builder) trees(path string) []*tree          { return b.get(path).value.([]*tree) }

func (b *builder) pairs(path string) map[string]string {
	return b.get(path).value.(map[string]string)
}

// int returns an integer that fits a C int on every machine.
func (b *builder) int(path string) int {
	return int(max(math.MinInt32, min(math.MaxInt32, b.size(path))))
}

// at is the place of a key's value, of a block's first key that is set; none for a default.
func (b *builder) at(path string) position {
	if s := b.set[path]; s != nil {
		return s.at
	}
	for _, k := range tables[""].keys {
		if s := b.set[k.Path]; s != nil && strings.HasPrefix(k.Path, path+".") {
			return s.at
		}
	}
	return position{}
}

// wrong reports a setting that is of the right type and still does not do.
func (b *builder) wrong(path, text string) {
	at := b.at(path)
	b.fault(&Fault{File: at.file, Line: at.line, Key: path, Text: text})
}

func (b *builder) caution(path, text string) {
	at := b.at(path)
	b.warn(Warning{File: at.file, Line: at.line, Key: path, Text: text})
}

func (b *builder) build() *Config {
	c := &Config{
		Dev: b.src.Dev, PidFile: b.text("pid_file"), AutoReload: b.is("auto_reload_config"), Debug: b.is("enable_debug"),
		Files: b.read, settings: b.set,
	}
	b.directories(c)
	c.Node = b.node()
	c.Listen = b.listen()
	c.ListenSet = b.isSet("listen") || b.isSet("ports.dns") || b.isSet("addresses.dns")
	if b.isSet("allow_recursion") {
		c.AllowRecursion = append([]netip.Prefix{}, b.prefixes("allow_recursion")...)
	}
	c.HTTP = b.http()
	c.Zone = b.zone(c.Node.Datacenter)
	c.Forward = b.forward()
	c.Cache = b.cache()
	c.Hosts = b.hosts()
	c.Filter = b.filter()
	c.View = View{WholeBelow: b.size("view.whole_below"), Keep: b.duration("view.keep"), MaxStale: b.duration("view.max_stale"), StaleAnswer: b.text("view.stale_answer")}
	if c.View.WholeBelow == 0 {
		c.View.WholeBelow = -1 // never whole, not the default
	}
	c.Cluster = b.cluster(c.Node)
	c.Node.Awaited = b.awaited
	b.encryption(c)
	b.unreachable(c)
	c.Raft = Raft{
		Multiplier: b.int("performance.raft_multiplier"), SnapshotThreshold: b.int("raft_snapshot_threshold"),
		TrailingLogs: b.int("raft_trailing_logs"),
	}
	c.Gossip = b.gossip()
	c.ACL = b.acl()
	c.TLS = b.tls()
	c.Log = b.log()
	c.Telemetry = Telemetry{
		MetricsPrefix: b.text("telemetry.metrics_prefix"),
		NoPrometheus:  b.duration("telemetry.prometheus_retention_time") == 0,
	}
	c.Agent = b.agent(c)
	c.Watches = b.watches()
	if addrs, there := b.src.Host.unitSockets(); b.src.Look && there && !c.ListenSet {
		c.Listen = addrs // those that are handed over
	}
	all := b.sockets(c)
	b.clashes(c, all)
	b.parts(c)
	if b.src.Look {
		b.look(c, all)
	}
	return c
}

// directories settles where things are kept.
func (b *builder) directories(c *Config) {
	dir := b.text("data_dir")
	if b.src.Dev {
		return
	}
	if dir == "" {
		if !b.src.Partial && !b.get("data_dir").bad {
			b.fault(&Fault{Key: "data_dir", Text: "not set: name a directory for the agent's state, or use -dev to keep everything in memory"})
		}
		return
	}
	for _, path := range []string{"data_dir", "cache_dir"} {
		if info, err := os.Stat(b.text(path)); err == nil && !info.IsDir() {
			at := b.get(path).at
			b.fault(&Fault{File: at.file, Line: at.line, Key: path, Expected: "a directory", Got: "the file " + b.text(path)})
		}
	}
	c.DataDir = dir
	if c.CacheDir = b.text("cache_dir"); c.CacheDir == "" {
		c.CacheDir = filepath.Join(dir, "view")
	}
}

func (b *builder) cache() Cache {
	c := Cache{
		MaxBytes: b.size("cache.max_bytes"), MaxEntries: b.int("cache.max_entries"),
		MinTTL: b.duration("cache.min_ttl"), MaxTTL: b.duration("cache.max_ttl"), NegativeMaxTTL: b.duration("cache.negative_max_ttl"),
		NegativeTTL: b.duration("cache.negative_ttl"), MaxClientTTL: b.duration("cache.max_client_ttl"), Persist: b.is("cache.persist"), Stale: b.duration("cache.stale"),
	}
	if c.MinTTL > c.MaxTTL {
		b.wrong("cache.min_ttl", fmt.Sprintf("%s is above cache.max_ttl, %s", c.MinTTL, c.MaxTTL))
	}
	return c
}

func (b *builder) hosts() Hosts {
	h := Hosts{Files: b.texts("hosts.files"), Records: b.texts("hosts.records"), Domain: b.text("hosts.domain"), TTL: b.duration("hosts.ttl").Truncate(time.Second), TypeTransparent: b.is("hosts.type_transparent")}
	if !b.isSet("hosts.files") {
		h.Files = []string{"/etc/hosts"}
	}
	b.circles()
	return h
}

// circles warns of aliases among the static records that lead back to themselves: nobody
// finds anything by them.
func (b *builder) circles() {
	list := b.entries("hosts.records")
	aliases := map[string]string{}
	for _, e := range list {
		if name, target := aliasOf(e.text); target != "" {
			aliases[name] = target
		}
	}
	told := map[string]bool{}
	for _, e := range list {
		first, name := aliasOf(e.text)
		way := []string{first}
		for name != "" && name != first && len(way) <= len(aliases) {
			way, name = append(way, name), aliases[name]
		}
		if name == "" || name != first || told[first] {
			continue
		}
		for _, n := range way {
			told[n] = true
		}
		b.warn(Warning{File: e.at.file, Line: e.at.line, Key: "hosts.records", Text: strings.Join(append(way, first), " → ") + " is a circle of aliases, which leads to no address"})
	}
}

// aliasOf returns the names of a CNAME record, in lower case and without the last dot;
// no target: it is another one.
func aliasOf(record string) (name, target string) {
	f := strings.Fields(strings.ToLower(record))
	for i := 1; i+1 < len(f) && i <= 3; i++ { // behind a TTL and a class
		if f[i] == "cname" {
			return strings.TrimSuffix(f[0], "."), strings.TrimSuffix(f[i+1], ".")
		}
		if _, ok := wire.ParseType(f[i]); ok {
			break
		}
	}
	return "", ""
}

func (b *builder) filter() Filter {
	return Filter{
		Types: b.texts("filter.types"), DomainNeeded: b.is("filter.domain_needed"), BogusPriv: b.text("filter.bogus_priv"),
		BogusNXDomain: b.prefixes("filter.bogus_nxdomain"), StopDNSRebind: b.is("filter.stop_dns_rebind"),
		RebindDomainOK: b.texts("filter.rebind_domain_ok"), RebindLocalhostOK: b.is("filter.rebind_localhost_ok"),
	}
}

func (b *builder) acl() ACL {
	a := ACL{
		Enabled: b.is("acl.enabled"), DefaultPolicy: b.text("acl.default_policy"), DownPolicy: b.text("acl.down_policy"),
		TokenTTL: b.duration("acl.token_ttl"), PolicyTTL: b.duration("acl.policy_ttl"), RoleTTL: b.duration("acl.role_ttl"),
		PersistTokens: b.is("acl.enable_token_persistence"),
		Tokens: Tokens{
			InitialManagement: b.secret("acl.tokens.initial_management"), Agent: b.secret("acl.tokens.agent"),
			AgentRecovery: b.secret("acl.tokens.agent_recovery"), Default: b.secret("acl.tokens.default"),
			Replication: b.secret("acl.tokens.replication"), DNS: b.secret("acl.tokens.dns"),
			ServiceRegistration: b.secret("acl.tokens.config_file_service_registration"),
		},
	}
	if a.RoleTTL == 0 {
		a.RoleTTL = a.PolicyTTL
	}
	return a
}

// tls takes from tls.defaults what tls.https does not set.
func (b *builder) tls() TLS {
	own := func(name string) string {
		if s := b.text("tls.https." + name); s != "" {
			return s
		}
		return b.text("tls.defaults." + name)
	}
	verify := b.is("tls.defaults.verify_incoming")
	if b.isSet("tls.https.verify_incoming") {
		verify = b.is("tls.https.verify_incoming")
	}
	return TLS{
		CAFile: own("ca_file"), CAPath: own("ca_path"), CertFile: own("cert_file"), KeyFile: own("key_file"),
		MinVersion: own("tls_min_version"), VerifyIncoming: verify,
	}
}

var levels = map[string]slog.Level{
	"TRACE": LevelTrace, "DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo, "WARN": slog.LevelWarn, "ERROR": slog.LevelError,
}

func (b *builder) log() Log {
	l := Log{
		Level: levels[b.text("log_level")], Sublevels: map[string]slog.Level{}, JSON: b.is("log_json"), File: b.text("log_file"),
		RotateBytes: b.int("log_rotate_bytes"), RotateDuration: b.duration("log_rotate_duration"), RotateMaxFiles: b.int("log_rotate_max_files"),
		Syslog: b.is("enable_syslog"), SyslogFacility: b.text("syslog_facility"),
	}
	for part, name := range b.pairs("log_sublevels") {
		if _, ok := logging.Part(part); !ok {
			b.caution("log_sublevels", fmt.Sprintf("there is no part %q; the parts are %s", shorten(part), strings.Join(logging.Parts(), ", ")))
		}
		l.Sublevels[part], _ = parseLevel(name) // checked with the key
	}
	return l
}

// parseLevel reads a level by any of its names.
func parseLevel(name string) (slog.Level, bool) {
	name = strings.ToUpper(name)
	if other, ok := levelNames[name]; ok {
		name = other
	}
	level, ok := levels[name]
	return level, ok
}

func (b *builder) watches() []map[string]any {
	var all []map[string]any
	for _, t := range b.trees("watches") {
		objects, ok := t.objects()
		if !ok {
			b.fault(&Fault{File: t.at.file, Line: t.at.line, Key: "watches", Expected: "a list of blocks", Got: t.describe(true)})
		}
		for _, o := range objects {
			all = append(all, o.value().(map[string]any))
		}
	}
	return all
}

func (b *builder) prefixes(path string) []netip.Prefix {
	var all []netip.Prefix
	for _, e := range b.entries(path) {
		if p, ok := parseNetwork(e.text); ok && !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// normalDomain returns a domain with its final dot, or "".
func normalDomain(s string) string {
	if s = strings.Trim(s, "."); s == "" {
		return ""
	}
	return s + "."
}
