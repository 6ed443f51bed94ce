package resolvconf

import (
	"bufio"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Owner is who writes /etc/resolv.conf, and so has to be told when another does.
type Owner string

// The owners that are known.
const (
	Resolved       Owner = "systemd-resolved"
	NetworkManager Owner = "NetworkManager"
	DebianConf     Owner = "resolvconf" // Debian's
	OpenResolv     Owner = "openresolv"
	Dhclient       Owner = "dhclient"
	Dhcpcd         Owner = "dhcpcd"
	CloudInit      Owner = "cloud-init"
	Netconfig      Owner = "netconfig"         // SUSE's
	Container      Owner = "container runtime" // the file is mounted
	Nobody         Owner = "nobody"            // administrators and their tools
)

const (
	resolvedFolder   = "/run/systemd/resolve"
	resolvedFile     = resolvedFolder + "/resolv.conf"
	managerFolder    = "/run/NetworkManager"
	nsswitchFile     = "/etc/nsswitch.conf"
	openResolvFile   = "/etc/resolvconf.conf"
	dhclientHooks    = "/etc/dhcp/dhclient-enter-hooks.d"
	dhcpcdFile       = "/etc/dhcpcd.conf"
	netconfigFile    = "/etc/sysconfig/network/config"
	cloudFolder      = "/etc/cloud/cloud.cfg.d"
	cloudInstance    = "/var/lib/cloud/instance"
	debianConfFolder = "/run/resolvconf"
)

// sight is what is seen of a host's resolv.conf.
type sight struct {
	content   content
	text      string // over links
	file      File
	mounted   bool
	immutable bool
	owner     Owner
	why       string // why that is the owner
	via       string // who made the owner's configuration, such as netplan
	// resolved runs, and programs ask it whatever the file says, as nsswitch.conf has it.
	resolved, asksResolved bool
}

// look sees who owns resolv.conf: where it leads to, what its head says, and who
// is there to have written it, as heads lie.
func (t tree) look() (sight, error) {
	c, err := t.read(DefaultPath)
	if err != nil {
		return sight{}, err
	}
	s := sight{content: c, mounted: c.Kind != link && t.mounted(DefaultPath), immutable: c.Kind == regular && t.immutable(DefaultPath)}
	s.text, _ = t.follow(DefaultPath) // a link to nothing has none
	s.file = Parse(s.text)
	s.resolved = t.exists(resolvedFile)
	s.asksResolved = s.resolved && t.hostsBy("resolve")
	s.owner, s.why = t.owner(&s)
	if (s.owner == Resolved || s.owner == NetworkManager) && t.any("/etc/netplan/*.yaml") {
		s.via = "netplan"
		if t.any("/etc/netplan/*cloud-init*.yaml") {
			s.via = "netplan, of cloud-init"
		}
	}
	return s, nil
}

// heads tell who wrote a file.
var heads = []struct {
	owner Owner
	head  *regexp.Regexp
	// signs are paths of which one is there where the owner is.
	signs []string
}{
	{NetworkManager, regexp.MustCompile(`(?m)^[#;].*[Gg]enerated by NetworkManager`), []string{managerFolder}},
	{OpenResolv, regexp.MustCompile(`(?m)^[#;].*[Gg]enerated by resolvconf`), []string{openResolvFile, "/sbin/resolvconf", "/usr/sbin/resolvconf", "/usr/bin/resolvconf"}},
	{Dhcpcd, regexp.MustCompile(`(?m)^[#;].*[Gg]enerated by dhcpcd`), []string{dhcpcdFile, "/run/dhcpcd", "/sbin/dhcpcd", "/usr/sbin/dhcpcd", "/usr/bin/dhcpcd"}},
	{Dhclient, regexp.MustCompile(`(?m)^[#;].*[Gg]enerated by .*dhclient`), []string{"/etc/dhcp", "/etc/dhclient.conf", "/sbin/dhclient", "/usr/sbin/dhclient"}},
	{Netconfig, regexp.MustCompile(`(?m)^###? .*netconfig`), []string{netconfigFile}},
	{CloudInit, regexp.MustCompile(`(?m)^[#;].*([Cc]reated by cloud-init|'manage-resolv-conf' set to true|cloud-init has written this file)`), []string{cloudFolder, "/etc/cloud"}},
}

// leadsTo tells whose a link is.
var leadsTo = []struct {
	owner  Owner
	prefix string
	sign   string // there while the owner is
}{
	{Resolved, resolvedFolder + "/", resolvedFile},
	{Resolved, "/usr/lib/systemd/resolv.conf", resolvedFile},
	{Resolved, "/lib/systemd/resolv.conf", resolvedFile},
	{NetworkManager, managerFolder + "/", managerFolder},
	{DebianConf, debianConfFolder + "/", debianConfFolder},
	{DebianConf, "/etc/resolvconf/run/", debianConfFolder},
	{Netconfig, "/run/netconfig/", netconfigFile},
	{Netconfig, "/var/run/netconfig/", netconfigFile},
}

func (t tree) owner(s *sight) (owner Owner, why string) {
	if s.content.Kind == absent {
		return Nobody, "there is none"
	}
	if s.content.Kind == link {
		to := target(DefaultPath, s.content.Target)
		for _, l := range leadsTo {
			if !strings.HasPrefix(to, l.prefix) {
				continue
			}
			if t.exists(l.sign) {
				return l.owner, "it is a link to " + s.content.Target
			}
			return Nobody, "it is a link to " + s.content.Target + ", but there is no " + l.sign
		}
	}
	head, _, _ := strings.Cut(s.text, "\nnameserver")
	lies := ""
	for _, h := range heads {
		if !h.head.MatchString(head) {
			continue
		}
		if slices.ContainsFunc(h.signs, t.exists) {
			return h.owner, "its head says so"
		}
		lies = "; its head names " + string(h.owner) + ", which is not there"
	}
	if s.resolved && len(s.file.Servers) > 0 && !slices.ContainsFunc(s.file.Servers, func(a netip.Addr) bool { return !IsStub(a) }) {
		return Resolved, "it names the stub of systemd-resolved alone"
	}
	if from := t.leaseOf(s.file.Servers); from != "" && !s.mounted {
		return Dhclient, "its servers are those of " + from
	}
	switch {
	case s.mounted:
		return Container, "it is mounted" + lies
	case s.content.Kind == link:
		return Nobody, "it is a link to " + s.content.Target + lies
	}
	return Nobody, "it is a plain file" + lies
}

// IsStub reports whether an address is one of systemd-resolved's own.
func IsStub(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{127, 0, 0, 53}) || a == netip.AddrFrom4([4]byte{127, 0, 0, 54})
}

func (t tree) any(pattern string) bool {
	found, _ := filepath.Glob(t.at(pattern))
	return len(found) > 0
}

// hostsBy reports whether nsswitch.conf has host names looked up by a module.
func (t tree) hostsBy(module string) bool {
	text, _ := t.follow(nsswitchFile)
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if words := strings.Fields(line); len(words) > 0 && words[0] == "hosts:" && slices.Contains(words, module) {
			return true
		}
	}
	return false
}

// leaseOf is the file of dhclient's leases that names these servers last, "" where
// there is none.
func (t tree) leaseOf(servers []netip.Addr) string {
	if len(servers) == 0 {
		return ""
	}
	for _, pattern := range []string{"/var/lib/dhcp/dhclient*.leases", "/var/lib/dhclient/dhclient*.lease*", "/var/lib/NetworkManager/dhclient*.lease"} {
		found, _ := filepath.Glob(t.at(pattern))
		for _, at := range found {
			leased := lastLease(at)
			if len(leased) > 0 && !slices.ContainsFunc(servers, func(a netip.Addr) bool { return !slices.Contains(leased, a) }) {
				return path.Join(path.Dir(pattern), filepath.Base(at))
			}
		}
	}
	return ""
}

// lastLease are the servers of the last lease in a file of dhclient's
// (dhclient.leases(5)).
func lastLease(at string) (servers []netip.Addr) {
	f, err := os.Open(at)
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.FieldsFunc(lines.Text(), func(r rune) bool { return strings.ContainsRune(" \t,;", r) })
		if len(words) > 2 && words[0] == "option" && (words[1] == "domain-name-servers" || words[1] == "dhcp6.name-servers") {
			servers = nil
			for _, w := range words[2:] {
				if a, err := netip.ParseAddr(w); err == nil {
					servers = append(servers, a.Unmap())
				}
			}
		}
	}
	return servers
}
