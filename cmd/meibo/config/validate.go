package config

import (
	"fmt"
	"strings"
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
	c, warnings, err := Load(Sources{Paths: paths, Format: format, Partial: true})
	r := Report{Warnings: warnings}
	if err != nil {
		return r, err
	}
	r.Files, r.Services, r.Checks = c.Files, len(c.Agent.Services), len(c.Agent.Checks)
	for _, s := range c.Agent.Services {
		r.Checks += len(s.Checks)
	}
	if r.LeftOut = c.Agent.LeftOut; len(r.LeftOut) > 0 {
		return r, c.Agent.Faults()
	}
	return r, nil
}
