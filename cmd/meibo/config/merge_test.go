package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// parseFlags reads a command line of the agent.
func parseFlags(t testing.TB, args ...string) *Flags {
	t.Helper()
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	f := RegisterFlags(fs)
	if err := fs.Parse(NormalizeArgs(args, fs)); err != nil {
		t.Fatal(err)
	}
	return f
}

func loadFlags(t testing.TB, args ...string) (*Config, error) {
	t.Helper()
	src := parseFlags(t, args...).Sources()
	src.Host, src.Partial = host, true
	c, _, err := Load(src)
	return c, err
}

func addrs[T interface{ String() string }](list []T) string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.String()
	}
	return strings.Join(out, " ")
}

func TestLoad_MergesAsConsul(t *testing.T) {
	dir := write(t,
		"10-a.hcl", `datacenter = "a" recursors = ["10.0.0.1"] node_meta { a = "1" b = "1" } dns_config { node_ttl = "1s" service_ttl { x = "1s" } } service { name = "one" }`,
		"20-b.json", `{"datacenter": "b", "recursors": ["10.0.0.2"], "node_meta": {"b": "2"}, "dns_config": {"only_passing": true, "service_ttl": {"y": "2s"}}, "services": [{"name": "two"}]}`,
	)
	last := filepath.Join(write(t, "last.hcl", `recursors = ["10.0.0.3"] service { name = "three" }`), "last.hcl")
	c, err := loadFlags(t, "-config-dir", dir, "-config-file="+last, "-recursor=10.0.0.9", "-recursor", "10.0.0.8", "-node-meta", "c:3", "-node-meta=a:0")
	if err != nil {
		t.Fatal(err)
	}
	if c.Node.Datacenter != "b" {
		t.Errorf("datacenter %q: the later file does not win", c.Node.Datacenter)
	}
	if got, want := addrs(c.Forward.Recursors), "10.0.0.9:53 10.0.0.8:53 10.0.0.1:53 10.0.0.2:53 10.0.0.3:53"; got != want {
		t.Errorf("recursors %s, want %s", got, want)
	}
	if d := cmp.Diff(map[string]string{"a": "0", "b": "2", "c": "3"}, c.Node.Meta); d != "" {
		t.Errorf("node_meta (-want +got):\n%s", d)
	}
	if !c.Zone.OnlyPassing || c.Zone.NodeTTL != time.Second {
		t.Error("dns_config is not merged by key")
	}
	if d := cmp.Diff(map[string]time.Duration{"x": time.Second, "y": 2 * time.Second}, c.Zone.ServiceTTL); d != "" {
		t.Errorf("service_ttl (-want +got):\n%s", d)
	}
	var names []string
	for _, s := range c.Agent.Services {
		names = append(names, s.Name)
	}
	if got, want := strings.Join(names, " "), "one two three"; got != want {
		t.Errorf("services %s, want %s", got, want)
	}
}

func TestLoad_Precedence(t *testing.T) {
	dir := write(t, "a.hcl", `log_level = "warn" bind_addr = "10.0.0.1" domain = "file" datacenter = "file"`)
	c, err := loadFlags(t, "-dev", "-config-dir", dir, "-domain", "flag", "-datacenter", "flag", "-hcl", `datacenter = "fragment"`)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.Log.Level.String(), c.Node.Bind.String(), c.Zone.Domain, c.Node.Datacenter}
	want := []string{"WARN", "10.0.0.1", "flag.", "fragment"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-dev < file < flag < -hcl (-want +got):\n%s", d)
	}
	if !c.Cluster.Server || c.DataDir != "" {
		t.Error("-dev is no server in memory")
	}
}

func TestLoad_ReadsDirectoriesAsConsul(t *testing.T) {
	dir := write(t, "b.hcl", `domain = "b"`, "a.hcl", `domain = "a"`, "c.json", `{"alt_domain": "c"}`, "README", "=", "z.hcl~", "=")
	sub := filepath.Join(dir, "sub.hcl")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	elsewhere := write(t, "d", `datacenter = "linked"`)
	if err := os.Symlink(filepath.Join(elsewhere, "d"), filepath.Join(dir, "d.hcl")); err != nil {
		t.Fatal(err)
	}
	c, warnings, err := Load(Sources{Paths: []string{dir}, Host: host, Partial: true})
	if err != nil {
		t.Fatal(err)
	}
	if c.Zone.Domain != "b." || c.Zone.AltDomain != "c." || c.Node.Datacenter != "linked" {
		t.Errorf("domain %q, alt_domain %q, datacenter %q", c.Zone.Domain, c.Zone.AltDomain, c.Node.Datacenter)
	}
	skipped := 0
	for _, w := range warnings {
		if strings.HasPrefix(w.Text, "skipped") {
			skipped++
		}
	}
	if skipped != 2 {
		t.Errorf("%d files skipped with a warning, want 2: %v", skipped, warnings)
	}
	if len(c.Files) != 4 {
		t.Errorf("read %v", c.Files)
	}
}

func TestLoad_ForcesFormat(t *testing.T) {
	dir := write(t, "a.conf", `{"domain": "json"}`)
	c, err := loadFlags(t, "-config-dir", dir, "-config-format", "json")
	if err != nil {
		t.Fatal(err)
	}
	if c.Zone.Domain != "json." {
		t.Errorf("domain %q", c.Zone.Domain)
	}
	if _, err := loadFlags(t, "-config-format=yaml"); err == nil || err.Error() != `flag -config-format: expected one of hcl, json, got "yaml"` {
		t.Errorf("yaml: %v", err)
	}
}

func TestLoad_NamesUnreadableFiles(t *testing.T) {
	dir := write(t, "a.hcl", "")
	if err := os.Symlink("gone", filepath.Join(dir, "b.hcl")); err != nil {
		t.Fatal(err)
	}
	_, _, err := Load(Sources{Paths: []string{dir, filepath.Join(dir, "none.hcl")}, Host: host, Partial: true})
	want := "b.hcl: read configuration: a dangling symbolic link: gone, which it points to, is not there: mend or remove the link\nnone.hcl: read configuration: no such file or directory"
	if err = relative(err, dir); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestLoad_FaultsOfFlags(t *testing.T) {
	_, err := loadFlags(t, "-dns-port", "x", "-bind=eth0", "-encrypt=s3cr3t", "-retry-interval", "10")
	want := `flag -bind: key "bind_addr": expected an IP address or a template, got "eth0"
flag -dns-port: key "ports.dns": expected an integer from -1 to 65535, got "x"
flag -encrypt: key "encrypt": expected base64 of 16, 24 or 32 bytes (meibo keygen makes one), or "none", got another string
flag -retry-interval: key "retry_interval": expected a duration such as "10s", got "10"`
	if err == nil {
		t.Fatal("loads")
	}
	got := strings.Split(err.Error(), "\n")
	slices.Sort(got)
	if d := cmp.Diff(strings.Split(want, "\n"), got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestFlags_AreConsuls(t *testing.T) {
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	RegisterFlags(fs)
	for _, name := range strings.Fields(`server bootstrap-expect bootstrap bind client advertise advertise-wan config-file config-dir config-format
		data-dir datacenter node node-id node-meta domain alt-domain recursor dns-port http-port https-port grpc-port grpc-tls-port server-port serf-lan-port
		serf-wan-port serf-lan-bind serf-wan-bind serf-lan-allowed-cidrs serf-wan-allowed-cidrs retry-join retry-interval retry-max retry-join-wan
		retry-interval-wan retry-max-wan join join-wan encrypt enable-script-checks enable-local-script-checks log-level log-file log-json log-rotate-bytes
		log-rotate-duration log-rotate-max-files pid-file rejoin ui ui-dir ui-content-path dev disable-host-node-id disable-keyring-file raft-protocol protocol
		default-query-time max-query-time auto-reload-config hcl syslog allow-write-http-from check_output_max_size primary-gateway read-replica
		non-voting-server segment`) {
		if fs.Lookup(name) == nil {
			t.Errorf("no flag -%s", name)
		}
	}
}

func TestFlags_SetWhatTheySay(t *testing.T) {
	c, err := loadFlags(t, "-server", "-bootstrap-expect=1", "-node", "n1", "-dns-port", "53", "-http-port=-1", "-client", "127.0.0.1 ::1",
		"-join", "10.0.0.8", "-retry-join", "10.0.0.9", "-check_output_max_size=10", "-log-level=err", "-enable-local-script-checks=true", "-ui=false", "--pid-file", "/p")
	if err != nil {
		t.Fatal(err)
	}
	if !c.Cluster.Server || c.Cluster.BootstrapExpect != 1 || c.Node.Name != "n1" || c.Agent.CheckOutputMaxSize != 10 || !c.Agent.EnableLocalScriptChecks || c.PidFile != "/p" {
		t.Errorf("got %+v", c.Cluster)
	}
	if got, want := addrs(c.Listen), "127.0.0.1:53 [::1]:53"; got != want {
		t.Errorf("listens on %s, want %s", got, want)
	}
	if len(c.HTTP.Listen) != 0 {
		t.Errorf("HTTP on %v although its port is -1", c.HTTP.Listen)
	}
	slices.Sort(c.Cluster.RetryJoin)
	if got, want := strings.Join(c.Cluster.RetryJoin, " "), "10.0.0.8 10.0.0.9"; got != want {
		t.Errorf("joins %s, want %s", got, want)
	}
}

func TestNormalizeArgs(t *testing.T) {
	fs := pflag.NewFlagSet("agent", pflag.ContinueOnError)
	RegisterFlags(fs)
	fs.BoolP("verbose", "v", false, "")
	tests := []struct{ in, want string }{
		{"-dev", "--dev"},
		{"-config-file=x -config-dir y", "--config-file=x --config-dir y"},
		{"--dev -server", "--dev --server"},
		{"-node -dev -server", "--node -dev --server"}, // the value of -node
		{"-dns-port -1", "--dns-port -1"},
		{"-hcl x=-1", "--hcl x=-1"},
		{"-v -h", "-v -h"},
		{"-nonsense", "--nonsense"},
		{"a -dev b", "a --dev b"},
		{"-- -dev", "-- -dev"},
		{"-", "-"},
		{"", ""},
	}
	for _, tt := range tests {
		if got := strings.Join(NormalizeArgs(strings.Fields(tt.in), fs), " "); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestLoad_WritesBlocksAndListsAlike(t *testing.T) {
	want := mustLoad(t, `ports { dns = 53 } services = [{ name = "a" tags = ["x"] meta = { k = "v" } }] node_meta { a = "1" }`)
	for _, hcl := range []string{
		`ports = { dns = 53 } service { name = "a" tags = ["x"] meta { k = "v" } } node_meta = { a = "1" }`,
		`ports = [{ dns = 53 }] services { name = "a" tags = ["x"] meta = [{ k = "v" }] } node_meta = [{ a = "1" }]`,
		`ports { http = 1 } ports { "DNS" = 53 http = 8500 } Service = [{ Name = ["a"] Tags = ["x"] META { k = "v" } }] node_meta { a = "1" }`,
		"# comment\n// comment\n/* comment */ ports { dns = 0x35 }, service { name = \"a\" tags = [\"x\",] meta { k = \"v\" } },\nnode_meta { a = \"1\" }",
	} {
		c, _, err := load(t, hcl)
		if err != nil {
			t.Errorf("%s: %v", hcl, err)
			continue
		}
		for _, ch := range Diff(want, c) {
			t.Errorf("%s: %s differs", hcl, ch.Key)
		}
	}
}

func TestLoad_ReadsHeredocs(t *testing.T) {
	c := mustLoad(t, "check {\n name = \"a\"\n ttl = \"1m\"\n notes = <<-EOF\n    two\n    lines\n    EOF\n}")
	if got, want := c.Agent.Checks[0].Notes, "two\nlines\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
