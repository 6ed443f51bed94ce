// Package resolvconf finds out which DNS servers this host was given: those of
// /etc/resolv.conf or, where that names only a resolver on this host, those
// that systemd-resolved or NetworkManager write down elsewhere. It never
// returns an address that this process listens on, or questions would go round
// in a circle.
//
// Find looks once; a Watcher looks again whenever one of the files changes. The
// package must not know DNS messages.
package resolvconf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
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

var defaultElsewhere = []string{
	"/run/systemd/resolve/resolv.conf",
	"/run/NetworkManager/no-stub-resolv.conf",
}

// ErrNone says that no file names a server that can be asked.
var ErrNone = errors.New("no upstream DNS server is known; name some in the configuration: recursors = [\"192.0.2.1\"]")

// Config says where to look. The zero value looks at the usual files.
type Config struct {
	// Path is the file that programs read; "" means DefaultPath.
	Path string
	// Elsewhere are files that name the true servers when Path names only this
	// host, in order of trust; nil means the usual ones.
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
	file, err := readFile(c.Path)
	up := Upstreams{Search: file.Search, Options: file.Options}
	said := []string{describe(c.Path, file, err)}

	usable := slices.DeleteFunc(slices.Clone(file.Servers), own.is)
	if !onlyHere(usable) {
		return up.with(usable, c.Path), nil
	}
	for _, path := range c.Elsewhere {
		other, err := readFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		said = append(said, describe(path, other, err))
		if others := slices.DeleteFunc(other.Servers, own.is); !onlyHere(others) {
			return up.with(others, path), nil
		}
	}
	if len(usable) > 0 {
		return up.with(usable, c.Path), nil
	}
	return up, fmt.Errorf("%s: %w", strings.Join(said, "; "), ErrNone)
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
	if slices.Contains(s.addrs, server) {
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
	w := &Watcher{config: c, files: append([]string{c.Path}, c.Elsewhere...)}
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
