package check

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// metadata are the addresses at which clouds hand out credentials to whoever
// asks from the host. A check, which anybody with the API may register, must
// not become a way to ask.
var metadata = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), // AWS, Azure, GCP, OpenStack and others
	netip.MustParseAddr("169.254.170.2"),   // AWS ECS
	netip.MustParseAddr("fd00:ec2::254"),   // AWS over IPv6
	netip.MustParseAddr("100.100.100.200"), // Alibaba
}

// dialer returns a dialer that refuses the metadata addresses when it has the
// address in hand, after any name was resolved and any redirect followed.
func dialer() *net.Dialer {
	return &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("check target %q: %w", address, err)
		}
		for _, m := range metadata {
			if ap.Addr().Unmap().WithZone("") == m {
				return fmt.Errorf("check target %s is a metadata service: refused", ap.Addr())
			}
		}
		return nil
	}}
}

// tlsConfig is how d wants TLS spoken; host is the name to expect where d has
// none (empty: taken from what is dialled).
func tlsConfig(d *Definition, host string) *tls.Config {
	if d.TLSServerName != "" {
		host = d.TLSServerName
	}
	return &tls.Config{
		ServerName:         host,
		InsecureSkipVerify: d.TLSSkipVerify, // asked for by the definition
		MinVersion:         tls.VersionTLS12,
	}
}

// validHostPort reports what is wrong with a "host:port".
func validHostPort(what, target string) error {
	// An empty host means this one, as for net.Dial.
	if _, port, err := net.SplitHostPort(target); err != nil || port == "" {
		return fmt.Errorf("%s check %q must be host:port", what, target)
	}
	return nil
}
