package check

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
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

// TLS is what checks over TLS show and trust, besides what their definitions
// say. The CAs are read when a check is made, the certificate at each handshake;
// a check fails with the reason where they can't be.
type TLS struct {
	CAFile, CAPath    string // whom to trust; "": the system's CAs
	CertFile, KeyFile string // shown to servers that ask; "": none
}

// add puts it into c.
func (t *TLS) add(c *tls.Config) {
	if t.CertFile != "" {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
			return &cert, err
		}
	}
	if t.CAFile == "" && t.CAPath == "" || c.InsecureSkipVerify {
		return
	}
	roots, err := t.roots()
	if c.RootCAs = roots; err != nil { // every handshake fails, and says why
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(tls.ConnectionState) error { return err }
	}
}

// roots reads the CAs.
func (t *TLS) roots() (*x509.CertPool, error) {
	files := []string{t.CAFile}
	if t.CAFile == "" {
		entries, err := os.ReadDir(t.CAPath)
		if err != nil {
			return nil, fmt.Errorf("read CAs: %w", err)
		}
		files = files[:0]
		for _, e := range entries {
			files = append(files, filepath.Join(t.CAPath, e.Name()))
		}
	}
	roots := x509.NewCertPool()
	found := false
	for _, file := range files {
		pem, err := os.ReadFile(file)
		if err != nil && t.CAFile != "" {
			return nil, fmt.Errorf("read CAs: %w", err)
		}
		found = roots.AppendCertsFromPEM(pem) || found
	}
	if !found {
		return nil, fmt.Errorf("no CA certificate in %s%s", t.CAFile, t.CAPath)
	}
	return roots, nil
}

// tlsConfig is how d wants TLS spoken; host is the name to expect where d has
// none (empty: taken from what is dialled). More may be nil.
func tlsConfig(d *Definition, host string, more *TLS) *tls.Config {
	if d.TLSServerName != "" {
		host = d.TLSServerName
	}
	c := &tls.Config{
		ServerName:         host,
		InsecureSkipVerify: d.TLSSkipVerify, // asked for by the definition
		MinVersion:         tls.VersionTLS12,
	}
	if more != nil {
		more.add(c)
	}
	return c
}

// validHostPort reports what is wrong with a "host:port".
func validHostPort(what, target string) error {
	// An empty host means this one, as for net.Dial.
	if _, port, err := net.SplitHostPort(target); err != nil || port == "" {
		return fmt.Errorf("%s check %q must be host:port", what, target)
	}
	return nil
}
