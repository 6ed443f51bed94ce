package config

import (
	"fmt"
	"slices"
	"strings"

	"meibo/cluster/httpapi"
	"meibo/forwarder"
	"meibo/resolver/local"
)

// Report is what Validate found of a sound configuration.
type Report struct {
	Files    []string
	Services int
	Checks   int // of the node and of services
	Warnings []Warning
	// LeftOut are the definitions that the daemon would start without; Validate's
	// error then says why.
	LeftOut []LeftOut
}

// String returns the report as lines for people; the first says that the
// configuration is valid, in Consul's words.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Configuration is valid! (%s, %s, %s)\n", count(len(r.Files), "file"), count(r.Services, "service"), count(r.Checks, "check"))
	for _, w := range r.Warnings {
		level := "warning"
		if w.Serious {
			level = "WARNING"
		}
		fmt.Fprintf(&b, "%s: %s\n", level, w)
	}
	return b.String()
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// Validate reads files and directories as `meibo agent` would, format "hcl" or
// "json" or by extension, and changes nothing. A part of a configuration (only
// services, say) is valid too. The error is a [Faults]; the report then holds
// the warnings all the same.
func Validate(paths []string, format string) (Report, error) {
	c, warnings, err := Load(Sources{Paths: paths, Format: format, Partial: true, Look: true})
	r := Report{Warnings: warnings}
	if err != nil {
		return r, err
	}
	if c.DataDir == "" {
		r.Warnings = append(r.Warnings, Warning{Serious: true, Key: "data_dir", Text: "not set here: `meibo agent` does not start without it, be it from another file or -data-dir; or use -dev"})
	}
	r.Files, r.Services, r.Checks = c.Files, len(c.Agent.Services), c.Agent.CountChecks()
	if r.LeftOut = c.Agent.LeftOut; len(r.LeftOut) > 0 {
		return r, c.Agent.Faults()
	}
	return r, nil
}

// CountChecks returns how many checks there are, those inside services included.
func (a *Agent) CountChecks() int {
	n := len(a.Checks)
	for _, s := range a.Services {
		n += len(s.Checks)
	}
	return n
}

// parts asks the rooms that take a share of the configuration whether they will, so that
// what loads also starts. What a key's own check found is not said again.
func (b *builder) parts(c *Config) {
	if len(b.faults) > 0 {
		return
	}
	b.refused(c.ZoneConfig().Check(), "datacenter", "domain", "alt_domain", "dns_config", "view.max_stale")
	f, err := forwarder.New(forwarder.Config{Self: c.Listen})
	b.refused(err, "recursors")
	for _, r := range c.Routes(nil) {
		if err := f.Check([]forwarder.Route{r}); err != nil {
			at, key := b.routeAt(r.Suffix.String())
			b.fault(&Fault{File: at.file, Line: at.line, Key: key, Text: err.Error()})
		}
	}
	_, err = local.NewHosts(local.HostsConfig{Files: []string{}, Records: c.Hosts.Records})
	b.refused(err, "hosts.records")
	b.refused(httpapi.CheckAccess(c.HTTPConfig()), "http_config.allowed_hosts")
}

// routeAt is where the servers of a suffix are named.
func (b *builder) routeAt(suffix string) (position, string) {
	for _, bl := range slices.Backward(b.blocks("forward")) {
		if suffixes, _ := suffixesOf(bl.label); slices.Contains(suffixes, suffix) {
			return bl.at, fmt.Sprintf("forward %q", shorten(bl.label))
		}
	}
	return b.at("recursors"), "recursors"
}

// refused reports what a room said of one of the keys: the one that its error begins
// with, else the first that is set.
func (b *builder) refused(err error, keys ...string) {
	if err == nil {
		return
	}
	key, text := "", err.Error()
	for _, k := range keys {
		if strings.HasPrefix(text, k) {
			b.wrong(k, text)
			return
		}
		if key == "" && b.isSet(k) {
			key = k
		}
	}
	if key == "" {
		key = keys[0]
	}
	b.wrong(key, text)
}
