// Package migrate takes a host from dnsmasq, and from a Consul agent if that is meant, to
// meibo, and back.
//
// Read looks at files alone and says what would be changed: a Plan. Its Apply carries that
// out on a host with systemd: dnsmasq is stopped, meibo started, and the names that were
// answered before are asked again. If anything of that fails, or is interrupted, everything
// is put back as it was; Undo does the same later. No query is lost meanwhile: see hold.
//
// A Consul agent that is there stays, and meibo forwards its domain to it: hosts of meibo and
// of Consul never join each other, so a host that gave its agent up would be gone from its
// cluster.
package migrate

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"meibo/cmd/meibo/config"
	"meibo/cmd/meibo/dnsmasq"
)

// Files that are written. The package's own stays as it is.
const (
	folder     = "/etc/meibo.d"
	dnsFile    = folder + "/50-dnsmasq.hcl"
	consulFile = folder + "/60-consul.hcl"
	socketFile = "/etc/systemd/system/meibo.socket.d/migrate.conf"
)

// Source says what there is to take over.
type Source struct {
	Root       string   // the host's files are below it; "" for this host
	Standalone bool     // the Consul agent is replaced, too
	Names      []string // further ones that must be answered as before
}

// Plan is what would be changed on a host.
type Plan struct {
	Files []File
	Notes []string // what is not as it was, for people
	Stop  []string // services that meibo takes the place of
	// Refused are the reasons for which Apply does nothing.
	Refused []string

	listen []netip.AddrPort // where dnsmasq answers, and meibo will
	names  []question
	root   string
	// isAsked: programs of this host ask dnsmasq.
	isAsked bool
}

// File is one that is written; Old is nil where there is none yet.
type File struct {
	Path     string
	Old, New []byte
	Mode     fs.FileMode
	secret   func([]byte) []byte // hides what must not be shown; nil: nothing must
}

// Read says what a migration would change. An error is about files that can't be read or make no sense.
func Read(src Source) (*Plan, error) {
	p := &Plan{root: src.Root}
	result, err := dnsmasq.ImportService(src.Root, !src.Standalone)
	if err != nil {
		return nil, err
	}
	p.add(dnsFile, result.HCL, nil)
	p.Stop = append(p.Stop, "dnsmasq.service")
	for _, n := range result.Notes {
		if n.Kind != dnsmasq.NotNeeded { // the file says so at its head
			p.Notes = append(p.Notes, n.String())
		}
		p.refuseOthers(n)
	}
	cfg, err := p.load()
	if err != nil {
		return nil, err
	}
	if err := p.consul(src, cfg); err != nil {
		return nil, err
	}
	if cfg, err = p.load(); err != nil {
		return nil, err
	}
	p.listen = cfg.Listen
	if len(p.listen) == 0 {
		p.Refused = append(p.Refused, "dnsmasq answers no DNS here (port=0): there is nothing to take over")
	}
	p.sockets(cfg)
	p.resolvConf()
	p.names = questions(src, cfg)
	p.Files = slices.DeleteFunc(p.Files, func(f File) bool { return f.Old != nil && string(f.Old) == string(f.New) })
	return p, nil
}

// add has a file written.
func (p *Plan) add(path, text string, secret func([]byte) []byte) {
	f := File{Path: path, New: []byte(text), Mode: 0o644, secret: secret}
	if secret != nil {
		f.Mode = 0o640
	}
	if old, err := os.ReadFile(p.root + path); err == nil {
		f.Old = old
	}
	p.Files = append(p.Files, f)
}

// otherWork are options by which dnsmasq does more than DNS.
var otherWork = []string{"dhcp-range", "dhcp-relay", "enable-tftp", "enable-ra", "pxe-service"}

// refuseOthers keeps dnsmasq where it does what nobody would do then.
func (p *Plan) refuseOthers(n dnsmasq.Note) {
	name, _, _ := strings.Cut(n.Text, "=")
	if slices.Contains(otherWork, name) {
		p.Refused = append(p.Refused, fmt.Sprintf("%s:%d: %s: dnsmasq does more here than DNS, and nobody would go on with it: give that a dnsmasq of its own, with port=0 and another unit, and take the line out here", n.File, n.Line, n.Text))
	}
}

// load reads what is written so far, and nothing else, as the daemon would.
func (p *Plan) load() (*config.Config, error) {
	dir, err := os.MkdirTemp("", "meibo-migrate-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for _, f := range p.Files {
		if filepath.Dir(f.Path) == folder {
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.Path)), f.New, 0o600); err != nil {
				return nil, err
			}
		}
	}
	cfg, _, err := config.Load(config.Sources{Paths: []string{dir}, Partial: true, Registered: anyService})
	if err != nil {
		return nil, fmt.Errorf("what was made of the files is not valid:\n%s", strings.ReplaceAll(err.Error(), dir, folder))
	}
	return cfg, nil
}

func anyService(string) bool { return true }

// sockets has systemd make the sockets where dnsmasq has them, where the package's unit makes others.
func (p *Plan) sockets(cfg *config.Config) {
	usual := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	if !cfg.ListenSet && !slices.ContainsFunc(cfg.Listen, func(a netip.AddrPort) bool { return a.Port() != 8600 }) || slices.Equal(cfg.Listen, usual) || len(cfg.Listen) == 0 {
		return
	}
	var b strings.Builder
	b.WriteString("# Made by `meibo migrate`: DNS where dnsmasq answered it.\n[Socket]\nFreeBind=yes\nListenDatagram=\nListenStream=\n")
	for _, a := range cfg.Listen {
		if a.Addr().Is6() && p.root == "" && !hasIPv6() {
			p.Notes = append(p.Notes, fmt.Sprintf("%s is left out: IPv6 is off on this host, and a unit with such an address fails as a whole", a))
			continue
		}
		const readers = 4 // sockets of one address, as the unit has them
		b.WriteString(strings.Repeat(fmt.Sprintf("ListenDatagram=%s\n", a), readers))
		fmt.Fprintf(&b, "ListenStream=%s\n", a)
	}
	p.add(socketFile, b.String(), nil)
}

func hasIPv6() bool {
	data, err := os.ReadFile("/proc/net/if_inet6")
	return err == nil && len(data) > 0
}

// resolvConf says what programs of this host ask.
func (p *Plan) resolvConf() {
	if p.isAsked = p.asked(); !p.isAsked {
		p.Notes = append(p.Notes, "/etc/resolv.conf names other servers than dnsmasq's, and stays as it is: programs of this host ask those; `meibo resolv install` has them ask meibo")
	}
}

// asked reports whether /etc/resolv.conf names an address where dnsmasq answers.
func (p *Plan) asked() bool {
	data, err := os.ReadFile(p.root + "/etc/resolv.conf")
	if err != nil {
		return notThere(err) // programs ask 127.0.0.1 then (resolv.conf(5))
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(f[1]); err == nil && slices.ContainsFunc(p.listen, func(a netip.AddrPort) bool {
			return a.Addr() == addr || a.Addr().IsUnspecified() && addr.IsLoopback()
		}) {
			return true
		}
	}
	return false
}

// Diff is what changes in files, as diff -u prints it. Secrets are hidden.
func (p *Plan) Diff() string {
	var b strings.Builder
	for _, f := range p.Files {
		oldName, before, after := f.Path, f.Old, f.New
		if f.Old == nil {
			oldName = "/dev/null"
		}
		if f.secret != nil {
			before, after = f.secret(before), f.secret(after)
		}
		text := string(diff.Diff(oldName, before, f.Path, after))
		_, text, _ = strings.Cut(text, "\n") // the command line
		b.WriteString(text)
	}
	return b.String()
}

// exists reports whether the host has a file.
func exists(root, path string) bool {
	_, err := os.Lstat(root + path)
	return err == nil
}

// unitFolders are where units are, the first wins (systemd.unit(5)).
var unitFolders = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// unit is the text of a service's unit and its drop-ins; "" where there is none.
func unit(root, name string) string {
	text := ""
	for _, dir := range unitFolders {
		if data, err := os.ReadFile(root + dir + "/" + name); err == nil && text == "" {
			text = string(data)
		}
	}
	for _, dir := range slices.Backward(unitFolders[:3]) {
		drops, _ := filepath.Glob(root + dir + "/" + name + ".d/*.conf")
		for _, path := range drops {
			if data, err := os.ReadFile(path); err == nil {
				text += "\n" + string(data)
			}
		}
	}
	return text
}

// notThere tells an error of a file that is missing from one that keeps a file from being read.
func notThere(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func first(list []string, most int) []string { return list[:min(most, len(list))] }

// withDot is a domain as questions have it.
func withDot(name string) string { return strings.TrimSuffix(cmp.Or(name, "."), ".") + "." }
