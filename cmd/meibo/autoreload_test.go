package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestAutoReload_FilesAreReadAgainWhenTheyChange(t *testing.T) {
	s := newSite(t, `auto_reload_config = true`)
	p := s.start(t)
	s.up(t)
	answers := func(what, name, address string) {
		t.Helper()
		eventually(t, what, func() error {
			if address == "" {
				return wantNone(s.dns, name)
			}
			return wantAnswer(s.dns, name, dns.TypeA, "A "+address)
		})
	}
	late := func(address string) string {
		return fmt.Sprintf(`service { name = "late" address = %q port = 1 }`, address)
	}
	writeFile(t, s.dir, "conf/late.hcl", late("192.0.2.20"))
	answers("a file that was added is read", "late.service.consul", "192.0.2.20")

	writeFile(t, s.dir, "new", late("192.0.2.21"))
	must(t, os.Rename(filepath.Join(s.dir, "new"), filepath.Join(s.dir, "conf", "late.hcl")))
	answers("a file renamed over another is read", "late.service.consul", "192.0.2.21")

	writeFile(t, s.dir, "conf/late.hcl", `servise {}`)
	p.Said(t, "configuration not taken", "late.hcl:1")
	must(t, wantAnswer(s.dns, "late.service.consul", dns.TypeA, "A 192.0.2.21"))

	writeFile(t, s.dir, "elsewhere/real.hcl", late("192.0.2.22"))
	must(t, os.Remove(filepath.Join(s.dir, "conf", "late.hcl")))
	must(t, os.Symlink(filepath.Join(s.dir, "elsewhere", "real.hcl"), filepath.Join(s.dir, "conf", "late.hcl")))
	answers("a link is followed", "late.service.consul", "192.0.2.22")
	writeFile(t, s.dir, "elsewhere/real.hcl", late("192.0.2.23"))
	answers("what it leads to is watched", "late.service.consul", "192.0.2.23")

	must(t, os.Remove(filepath.Join(s.dir, "conf", "late.hcl")))
	answers("a file that was removed is forgotten", "late.service.consul", "")
	p.Stop(t)
	if n := strings.Count(p.Output.String(), "configuration not taken"); n != 1 {
		t.Errorf("a bad file was tried %d times", n)
	}
}

// wantNone asks for a name that is not to exist.
func wantNone(server, name string) error {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	reply, _, err := new(dns.Client).Exchange(m, server)
	if err != nil {
		return err
	}
	if reply.Rcode != dns.RcodeNameError {
		return fmt.Errorf("got %s", reply)
	}
	return nil
}
