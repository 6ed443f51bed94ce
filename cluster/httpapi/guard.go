package httpapi

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// guard decides whether a request may reach a handler at all. Its first purpose is the
// browser: a page that resolves its own name to 127.0.0.1 (DNS rebinding), or that simply
// sends requests to localhost, must get nothing from this API.
type guard struct {
	names      []string // whole names, lower case, no final dot
	suffixes   []string // ".consul": any name below
	blocked    []string
	writesFrom []netip.Prefix
}

func newGuard(cfg *Config) (*guard, error) {
	g := &guard{blocked: cfg.BlockEndpoints, writesFrom: cfg.AllowWriteFrom}
	g.names = append(g.names, "localhost")
	for _, n := range append([]string{cfg.Node}, cfg.Names...) {
		if n = trimName(n); n != "" {
			g.names = append(g.names, n)
		}
	}
	for _, d := range []string{cfg.Domain, cfg.AltDomain, "localhost"} {
		if d = trimName(d); d != "" {
			g.suffixes = append(g.suffixes, "."+d)
		}
	}
	for _, h := range cfg.AllowedHosts {
		if err := g.allow(h); err != nil {
			return nil, err
		}
	}
	return g, nil
}

func (g *guard) allow(host string) error {
	name := trimName(host)
	if rest, ok := strings.CutPrefix(name, "*."); ok && rest != "" {
		g.suffixes = append(g.suffixes, "."+rest)
		return nil
	}
	if name == "" || strings.ContainsAny(name, "/*: ") {
		return fmt.Errorf("http_config.allowed_hosts: %q is not a host name; give a name without scheme and port, or *.name", host)
	}
	g.names = append(g.names, name)
	return nil
}

func trimName(s string) string { return strings.ToLower(strings.TrimSuffix(strings.TrimSpace(s), ".")) }

// check returns the refusal, or nil.
func (g *guard) check(r *http.Request) error {
	// A socket file is out of reach for a browser, and clients put anything in Host there.
	if !viaUnixSocket(r) {
		if err := g.checkHost(r.Host); err != nil {
			return err
		}
		if err := g.checkOrigin(r); err != nil {
			return err
		}
	}
	// Just what no name and no ID may hold: all that is registered can be named here.
	if strings.ContainsFunc(r.URL.Path, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return badRequest("Invalid URL path: it holds control characters")
	}
	for _, prefix := range g.blocked {
		if strings.HasPrefix(r.URL.Path, prefix) {
			return errorf(http.StatusForbidden, "Endpoint is blocked by agent configuration")
		}
	}
	return g.checkWrite(r)
}

func viaUnixSocket(r *http.Request) bool {
	addr, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return addr != nil && addr.Network() == "unix"
}

func (g *guard) checkHost(host string) error {
	// Browsers always send a Host; HTTP/1.0 clients need not.
	if host == "" || g.knowsHost(host, true) {
		return nil
	}
	return errorf(http.StatusForbidden, "Host %q is not a name of this host: use an address, localhost, its own name, "+
		"or list the name in http_config.allowed_hosts (this keeps web pages from reaching the API by DNS rebinding)", clip(host))
}

// knowsHost reports whether host, with or without a port, is one that a request may name.
func (g *guard) knowsHost(host string, addresses bool) bool {
	name := host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if ip, err := netip.ParseAddr(name); err == nil {
		return addresses || ip.Unmap().IsLoopback()
	}
	name = trimName(name)
	if name == "" {
		return false
	}
	if isOneLabel(name) {
		return true
	}
	return slices.Contains(g.names, name) ||
		slices.ContainsFunc(g.suffixes, func(s string) bool { return strings.HasSuffix(name, s) })
}

// isOneLabel reports whether a name is one label, as those of containers and of hosts on
// the local network are. No page of elsewhere lives at such a name: nobody can register
// one for others to look up. Numbers are addresses to some.
func isOneLabel(name string) bool {
	_, err := strconv.ParseUint(name, 0, 64)
	return err != nil && !strings.ContainsFunc(name, func(c rune) bool {
		return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_')
	})
}

// checkOrigin refuses what a page of another site sends. An address as Origin must be a
// loopback one or the very host asked: a page can live at any address. A page of a name
// that is allowed may ask across sites; without an Origin nobody vouches for the page.
func (g *guard) checkOrigin(r *http.Request) error {
	origin := r.Header.Get("Origin")
	if origin != "" {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || (!strings.EqualFold(u.Host, r.Host) && !g.knowsHost(u.Host, false)) {
			return errorf(http.StatusForbidden, "Origin %q may not use this API: a page of that site is not trusted; "+
				"list its name in http_config.allowed_hosts if it should be", clip(origin))
		}
		return nil
	}
	if site := r.Header.Get("Sec-Fetch-Site"); strings.EqualFold(site, "cross-site") {
		return errorf(http.StatusForbidden, "a page of another site may not use this API (Sec-Fetch-Site: cross-site)")
	}
	return nil
}

// checkWrite holds http_config.allow_write_http_from.
func (g *guard) checkWrite(r *http.Request) error {
	if len(g.writesFrom) == 0 {
		return nil
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return nil
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err == nil {
		ip := from.Addr().Unmap().WithZone("")
		if slices.ContainsFunc(g.writesFrom, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return nil
		}
	}
	return errorf(http.StatusForbidden, "Access is restricted: http_config.allow_write_http_from does not list %s", clip(r.RemoteAddr))
}

// clip bounds what a refusal repeats of a request.
func clip(s string) string {
	if len(s) > 128 {
		return s[:128] + "..."
	}
	return s
}
