package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// host is a machine that every test runs on.
var host = Host{
	Name: func() (string, error) { return "host1", nil },
	Template: func(s string) (string, error) {
		if strings.Contains(s, `GetInterfaceIP "lo"`) {
			return "127.0.0.1", nil
		}
		return "", nil
	},
	Addresses: func() ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("fd00::7")}, nil
	},
	Route: func(v6 bool) netip.Addr { return netip.Addr{} },
}

// write makes a directory of files, given as name and content in turn.
func write(t testing.TB, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		if err := os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// load reads HCL on top of what every configuration needs.
func load(t testing.TB, hcl string) (*Config, []Warning, error) {
	t.Helper()
	dir := write(t, "a.hcl", hcl)
	c, w, err := loadAll(Sources{Paths: []string{filepath.Join(dir, "a.hcl")}, Host: host, Partial: true})
	for i := range w {
		w[i].File = strings.TrimPrefix(w[i].File, dir+"/")
	}
	return c, w, relative(err, dir)
}

// loadAll counts a definition that is left out as a fault like any other.
func loadAll(src Sources) (*Config, []Warning, error) {
	c, w, err := Load(src)
	if err == nil && len(c.Agent.LeftOut) > 0 {
		err = c.Agent.Faults()
	}
	return c, w, err
}

// relative takes the directory out of faults.
func relative(err error, dir string) error {
	if fs, ok := err.(Faults); ok {
		for _, f := range fs {
			f.File = strings.TrimPrefix(f.File, dir+"/")
		}
	}
	return err
}

func mustLoad(t testing.TB, hcl string) *Config {
	t.Helper()
	c, _, err := load(t, hcl)
	if err != nil {
		t.Fatalf("load:\n%v", err)
	}
	return c
}

func TestLoad_DefaultsAreConsuls(t *testing.T) {
	c := mustLoad(t, `data_dir = "/nowhere"`)
	if got, want := c.Listen[0].String(), "127.0.0.1:8600"; got != want {
		t.Errorf("DNS on %s, want %s", got, want)
	}
	if got, want := c.HTTP.Listen[0].String(), "127.0.0.1:8500"; got != want {
		t.Errorf("HTTP on %s, want %s", got, want)
	}
	if c.Zone.Domain != "consul." || c.Node.Datacenter != "dc1" || c.Node.Name != "host1" {
		t.Errorf("domain %q, datacenter %q, node %q", c.Zone.Domain, c.Node.Datacenter, c.Node.Name)
	}
	if got, want := c.Node.Advertise.String(), "10.0.0.7"; got != want {
		t.Errorf("advertises %s, want %s", got, want)
	}
	if got, want := c.CacheDir, "/nowhere/view"; got != want {
		t.Errorf("cache_dir %q, want %q", got, want)
	}
}
