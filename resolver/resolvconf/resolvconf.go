// Package resolvconf knows /etc/resolv.conf: which DNS servers the host was given,
// who owns the file, and how meibo takes its place there and gives it back.
//
// The true upstreams are those of the file or, where it names only a resolver on this
// host, those that its owner (systemd-resolved, NetworkManager, …) or a takeover wrote
// down elsewhere. An address that this process listens on is never one, or questions
// would go round in a circle. [Find] looks once; a [Watcher] looks again whenever one
// of the files changes.
//
// A [Host] is taken over by Install and given back by Restore; Status tells how it is,
// and Keep makes good what others overwrote, a few times an hour at most. All that is to
// be changed stands in a journal on disk, with what was there before, ahead of the
// first change: whatever kills a change, Restore takes it back. Containers of Docker are
// a change of its own, InstallDocker and RestoreDocker. With Host.Root all of it works
// on a directory tree, and runs no program.
//
// The package must not know DNS messages.
package resolvconf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"meibo/resolver/filewatch"
)

// Default files.
const (
	DefaultPath = "/etc/resolv.conf"
	dnsPort     = 53
	// maxFile bounds what is read of a file.
	maxFile = 1 << 20
)

// defaultElsewhere: those that follow the network come first, then what was there
// when meibo took the host over.
var defaultElsewhere = []string{
	resolvedFile,
	"/run/NetworkManager/no-stub-resolv.conf",
	"/run/NetworkManager/resolv.conf",
	"/run/netconfig/resolv.conf",
	"/run/resolvconf/interface",  // Debian's
	"/run/resolvconf/interfaces", // openresolv's
	"/run/resolvconf/keys",       // the same, since 3.14
	hookFolder,
	upstreamFile,
}

// ErrNone says that no file names a server that can be asked.
var ErrNone = errors.New("no upstream DNS server is known; name some in the configuration: recursors = [\"192.0.2.1\"]")

// Config says where to look. The zero value looks at the usual files.
type Config struct {
	// Root is a directory that stands for "/".
	Root string
	// Path is the file that programs read; "" means DefaultPath.
	Path string
	// Elsewhere are files that name the true servers when Path names only this
	// host, in order of trust; nil means the usual ones. A directory stands for its
	// files, one for each interface, but those of loopback (lo.*).
	Elsewhere []string
	// Self are the addresses this process listens on for DNS. An unspecified
	// address stands for all addresses of the host.
	Self []netip.AddrPort
	// Changed is called by a Watcher's Run, from one goroutine, when the servers
	// are others than before. It may be nil.
	Changed func(Upstreams)
	// LocalAddrs lists the host's addresses; nil asks the kernel.
	LocalAddrs func() []netip.Addr
	// Logger may be nil.
	Logger *slog.Logger
}

// Upstreams are the servers that were found.
type Upstreams struct {
	Servers []netip.AddrPort
	// From is the file that names them.
	From string
	// Search and Options are those of the file that programs read.
	Search, Options []string
}

// Find looks for the true upstream servers, of which this process is none. They are
// those of Path, unless all of these are on this host, as the stub of a resolver is that
// names its own servers elsewhere; then those elsewhere; then other resolvers on this
// host that Path names, such as a container runtime's 127.0.0.11. It returns an error
// that says what was found and wraps ErrNone when there are none.
func Find(c Config) (Upstreams, error) {
	c.setDefaults()
	own := c.newSelf()
	others := make([]found, 0, len(c.Elsewhere))
	for _, path := range c.Elsewhere {
		f, err := c.readAny(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		// A resolver on this host that asks us must not be asked by us.
		own.askedByStub = own.askedByStub || slices.ContainsFunc(f.Servers, own.is)
		others = append(others, found{path, f, err})
	}
	file, err := c.readOne(c.Path)
	up := Upstreams{Search: file.Search, Options: file.Options}
	said := []string{describe(c.Path, file, err)}

	usable := slices.DeleteFunc(slices.Clone(file.Servers), own.is)
	if !onlyHere(usable) {
		return up.with(usable, c.Path), nil
	}
	for _, o := range others {
		said = append(said, describe(o.path, o.file, o.err))
		if servers := slices.DeleteFunc(o.file.Servers, own.is); !onlyHere(servers) {
			return up.with(servers, o.path), nil
		}
	}
	if len(usable) > 0 {
		return up.with(usable, c.Path), nil
	}
	// Those of a container's runtime, as they were before the file named us.
	for _, o := range others {
		if servers := slices.DeleteFunc(o.file.Servers, own.is); o.path == upstreamFile && len(servers) > 0 {
			return up.with(servers, o.path), nil
		}
	}
	return up, fmt.Errorf("%s: %w", strings.Join(said, "; "), ErrNone)
}

// found is a file that may name the true servers.
type found struct {
	path string
	file File
	err  error
}

func (c *Config) readOne(path string) (File, error) {
	if c.Root == "" {
		return readFile(path)
	}
	text, err := tree{root: c.Root}.follow(path) // links don't lead out of it
	return Parse(text), err
}

// readAny reads a file, or those of a directory.
func (c *Config) readAny(path string) (File, error) {
	at := filepath.Join(c.Root, path)
	info, err := os.Stat(at)
	if err != nil {
		return File{}, fmt.Errorf("read %s: %w", path, errors.Unwrap(err))
	}
	if !info.IsDir() {
		return c.readOne(path)
	}
	entries, err := os.ReadDir(at)
	if err != nil {
		return File{}, fmt.Errorf("read %s: %w", path, errors.Unwrap(err))
	}
	var all File
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, ".") || name == "lo" || strings.HasPrefix(name, "lo.") {
			continue
		}
		f, err := c.readOne(filepath.Join(path, e.Name()))
		if err != nil {
			continue // gone in the meantime
		}
		for _, s := range f.Servers {
			if !slices.Contains(all.Servers, s) && len(all.Servers) < maxServers {
				all.Servers = append(all.Servers, s)
			}
		}
	}
	return all, nil
}

func (c *Config) setDefaults() {
	if c.Path == "" {
		c.Path = DefaultPath
	}
	if c.Elsewhere == nil {
		c.Elsewhere = defaultElsewhere
	}
	if c.LocalAddrs == nil {
		c.LocalAddrs = localAddrs
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func (u Upstreams) with(servers []netip.Addr, from string) Upstreams {
	u.From = from
	for _, s := range servers {
		if s.IsUnspecified() {
			s = loopbackOf(s) // what the C library makes of it
		}
		u.Servers = append(u.Servers, netip.AddrPortFrom(s, dnsPort))
	}
	return u
}

// describe says in one phrase what a file had to offer.
func describe(path string, f File, err error) string {
	if err != nil {
		return err.Error()
	}
	if len(f.Servers) == 0 {
		return path + " names no server"
	}
	names := make([]string, len(f.Servers))
	for i, s := range f.Servers {
		names[i] = s.String()
	}
	return fmt.Sprintf("%s names only this host (%s)", path, strings.Join(names, ", "))
}

func readFile(path string) (File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return File{}, fmt.Errorf("read %s: %w", path, errors.Unwrap(err))
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return File{}, fmt.Errorf("read %s: it is not a regular file of at most %d octets", path, maxFile)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return File{}, fmt.Errorf("read %s: %w", path, errors.Unwrap(err))
	}
	return Parse(string(b)), nil
}

// onlyHere reports whether all addresses are this host by their form.
func onlyHere(addrs []netip.Addr) bool {
	return !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !a.IsLoopback() && !a.IsUnspecified() })
}

func loopbackOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// self knows which servers are this process.
type self struct {
	addrs  []netip.Addr // listened on at port 53
	any4   bool         // every IPv4 address is
	any6   bool
	locals []netip.Addr // of the host
	// systemd-resolved asks this process.
	askedByStub bool
}

func (c *Config) newSelf() self {
	s := self{locals: c.LocalAddrs()}
	for _, ap := range c.Self {
		addr := ap.Addr().Unmap()
		switch {
		case ap.Port() != dnsPort:
			// resolv.conf cannot name another port.
		case addr.IsUnspecified():
			s.any4 = true // [::] takes IPv4 too
			s.any6 = s.any6 || addr.Is6()
		default:
			s.addrs = append(s.addrs, addr.WithZone(""))
		}
	}
	return s
}

// is reports whether a server is this process.
func (s *self) is(server netip.Addr) bool {
	server = server.WithZone("")
	if server.IsUnspecified() {
		server = loopbackOf(server)
	}
	if slices.Contains(s.addrs, server) || s.askedByStub && IsStub(server) {
		return true
	}
	if server.Is4() && !s.any4 || server.Is6() && !s.any6 {
		return false
	}
	return server.IsLoopback() || slices.Contains(s.locals, server)
}

// localAddrs asks the kernel for the host's addresses.
func localAddrs() []netip.Addr {
	var out []netip.Addr
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// Watcher keeps the upstream servers as the files say. It is safe for
// concurrent use.
type Watcher struct {
	config  Config
	current atomic.Pointer[Upstreams]
	files   []string
	last    string // complaint last logged; of Run's goroutine
}

// NewWatcher looks once and starts nothing. It returns the watcher also with
// an error, which is Find's: servers may come later.
func NewWatcher(c Config) (*Watcher, error) {
	c.setDefaults()
	w := &Watcher{config: c}
	for _, path := range append([]string{c.Path}, c.Elsewhere...) {
		w.files = append(w.files, filepath.Join(c.Root, path))
	}
	up, err := Find(c)
	w.current.Store(&up)
	if err != nil {
		w.last = err.Error()
	}
	return w, err
}

// Upstreams returns the servers as last found.
func (w *Watcher) Upstreams() Upstreams { return *w.current.Load() }

// Run looks again whenever a file changes, until ctx ends. When no server is
// named any more the last ones are kept: a network that goes away takes its
// servers along, and comes back.
func (w *Watcher) Run(ctx context.Context) error {
	filewatch.Run(ctx, filewatch.Config{What: "resolv.conf", Files: w.files, Logger: w.config.Logger, Changed: w.reload})
	return nil
}

func (w *Watcher) reload() {
	up, err := Find(w.config)
	if err != nil {
		if w.last != err.Error() {
			w.last = err.Error()
			w.config.Logger.Warn("upstream servers kept as they were", "err", err)
		}
		return
	}
	w.last = ""
	old := w.current.Swap(&up)
	if slices.Equal(old.Servers, up.Servers) {
		return
	}
	w.config.Logger.Info("upstream servers changed", "file", up.From, "upstream", up.Servers)
	if w.config.Changed != nil {
		w.config.Changed(up)
	}
}
