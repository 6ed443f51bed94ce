package forwarder

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// TLS says how the servers of a route are asked over TLS (RFC 7858). At least one of
// its fields is set.
type TLS struct {
	// Name is what their certificates are for, by an authority that this host trusts.
	Name string
	// Pins are SHA-256 digests of public keys (SubjectPublicKeyInfo), one of which their
	// certificates have (RFC 7858 section 4.2). Without a Name that is all that is
	// looked at.
	Pins [][sha256.Size]byte
	// Opportunistic asks over TLS where that can be had, whoever is at the other end, and
	// in the clear else (RFC 8310 section 5): a spy who only listens hears nothing, one
	// who interferes everything.
	Opportunistic bool
	// Port is where opportunistic TLS is looked for; 0: 853. Else it is the server's.
	Port uint16
	// Roots are the authorities; nil: those of the system.
	Roots *x509.CertPool
}

const (
	// clearFor is how long a server that speaks no TLS is asked in the clear before that
	// is tried again.
	clearFor = 5 * time.Minute
	// silentFor is the same for one that said nothing.
	silentFor = 10 * time.Second
)

// check says what is wrong with t.
func (t *TLS) check() error {
	switch {
	case t.Opportunistic && (t.Name != "" || len(t.Pins) > 0):
		return errors.New("TLS is either opportunistic or of a name or pin")
	case !t.Opportunistic && t.Name == "" && len(t.Pins) == 0:
		return errors.New("TLS wants a name, a pin, or to be opportunistic")
	}
	return nil
}

// key tells one way of asking from another; "" is none.
func (t *TLS) key() string {
	switch {
	case t == nil:
		return ""
	case t.Opportunistic:
		return fmt.Sprint("opportunistic ", t.Port)
	}
	pins := make([]string, len(t.Pins))
	for i, p := range t.Pins {
		pins[i] = base64.StdEncoding.EncodeToString(p[:])
	}
	return fmt.Sprintf("%s %s %p", strings.ToLower(t.Name), strings.Join(pins, " "), t.Roots)
}

// portTLS is that of DNS over TLS (RFC 7858 section 3.1).
const portTLS = 853

// tlsError is a server with which no secured connection can be had.
type tlsError struct {
	server netip.AddrPort
	err    error
}

// Error implements error.
func (e *tlsError) Error() string { return fmt.Sprintf("no TLS with %s: %v", e.server, e.err) }

// Unwrap gives the cause.
func (e *tlsError) Unwrap() error { return e.err }

// distrusts tells that the server has shown who it is, and is not the one it should be.
func (e *tlsError) distrusts() bool {
	var name *tls.CertificateVerificationError
	var key *pinError
	return errors.As(e.err, &name) || errors.As(e.err, &key)
}

// pinError is a public key that was not expected.
type pinError struct{ have [sha256.Size]byte }

// Error implements error.
func (e *pinError) Error() string {
	return fmt.Sprintf("its public key has the pin sha256/%s, which is none of those configured", base64.StdEncoding.EncodeToString(e.have[:]))
}

// config is what a connection to one server is made with. Sessions are resumed, so that
// one after a pause costs a round trip less.
func (t *TLS) config() *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"dot"}, ServerName: t.Name, RootCAs: t.Roots,
		ClientSessionCache: tls.NewLRUClientSessionCache(2), InsecureSkipVerify: t.Name == "", // the pins are looked at below
	}
	if pins := t.Pins; len(pins) > 0 {
		cfg.VerifyConnection = func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return errors.New("it shows no certificate")
			}
			have := sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
			if !slices.Contains(pins, have) {
				return &pinError{have}
			}
			return nil
		}
	}
	return cfg
}
