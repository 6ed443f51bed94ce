package link

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"
)

// Peer is who is at the other end, as its certificate says: a member of the
// cluster, by its own word as to which.
type Peer struct {
	ID         string // node ID
	Name       string // node name
	Datacenter string
}

// maxField bounds each field of a Peer, in bytes. Node names are at most 253.
const maxField = 255

func (p Peer) validate() error {
	for _, f := range []struct{ what, value string }{
		{"node ID", p.ID}, {"node name", p.Name}, {"datacenter", p.Datacenter},
	} {
		switch {
		case f.value == "":
			return fmt.Errorf("the %s is empty", f.what)
		case len(f.value) > maxField:
			return fmt.Errorf("the %s has %d bytes, more than %d", f.what, len(f.value), maxField)
		case !isPrintable(f.value):
			return fmt.Errorf("the %s %q holds characters that cannot be printed", f.what, f.value)
		}
	}
	return nil
}

func isPrintable(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// wellKnown takes the place of a key where there is none. It is no secret.
const wellKnown = "meibo: this key is in the source and authenticates nobody"

// hkdfInfo separates what is made of a key here from all else that is.
const hkdfInfo = "meibo link ed25519 authority 1"

// keyID tells authorities apart; it says nothing of the key.
type keyID [20]byte

// String is enough of the ID to compare two logs.
func (id keyID) String() string { return fmt.Sprintf("%x", id[:4]) }

// authorityOf derives the certificate authority of a key: the same everywhere.
func authorityOf(key []byte) (ed25519.PrivateKey, keyID, error) {
	seed, err := hkdf.Key(sha256.New, key, nil, hkdfInfo, ed25519.SeedSize)
	if err != nil {
		return nil, keyID{}, err
	}
	private := ed25519.NewKeyFromSeed(seed)
	sum := sha256.Sum256(private.Public().(ed25519.PublicKey))
	return private, keyID(sum[:]), nil
}

// The life of every leaf: all of time (RFC 5280 section 4.1.2.5). Nobody looks.
var (
	always = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	never  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// newLeaf makes a certificate for self, with a key pair of its own.
func newLeaf(self Peer, authority ed25519.PrivateKey, id keyID) (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		Subject: pkix.Name{
			CommonName: self.Name, OrganizationalUnit: []string{self.Datacenter}, SerialNumber: self.ID,
		},
		NotBefore: always, NotAfter: never,
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	parent := &x509.Certificate{Subject: pkix.Name{CommonName: "meibo link"}, SubjectKeyId: id[:]}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, authority)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: leaf}, nil
}

// ring is the authorities of all keys at one time.
type ring struct {
	authorities map[keyID]ed25519.PublicKey
	primary     keyID
	wellKnown   bool
	changed     <-chan struct{}
}

func (r *ring) holds(id keyID) bool {
	_, ok := r.authorities[id]
	return ok
}

// verify says whose certificate it is and which key vouches for it: exactly one
// certificate, signed by an authority of the ring, that names a peer. Time is
// not looked at.
func (r *ring) verify(chain []*x509.Certificate) (Peer, keyID, error) {
	if len(chain) != 1 {
		return Peer{}, keyID{}, fmt.Errorf("%w: %d certificates, want 1", errCertificate, len(chain))
	}
	leaf := chain[0]
	if leaf.SignatureAlgorithm != x509.PureEd25519 || len(leaf.AuthorityKeyId) != len(keyID{}) {
		return Peer{}, keyID{}, fmt.Errorf("%w: it is not one of meibo's", errCertificate)
	}
	id := keyID(leaf.AuthorityKeyId)
	authority, ok := r.authorities[id]
	if !ok {
		return Peer{}, id, fmt.Errorf("%w: its key (%v) is not in the keyring of this host", ErrKey, id)
	}
	if !ed25519.Verify(authority, leaf.RawTBSCertificate, leaf.Signature) {
		return Peer{}, id, fmt.Errorf("%w: its certificate was not made with the key it names (%v)", ErrKey, id)
	}
	p, err := peerIn(leaf)
	return p, id, err
}

var errCertificate = errors.New("not a certificate of a cluster member")

// peerIn reads the names in a leaf: each once, and no other names.
func peerIn(leaf *x509.Certificate) (Peer, error) {
	s := leaf.Subject
	if len(s.Names) != 3 || len(s.OrganizationalUnit) != 1 || leaf.IsCA || len(leaf.UnhandledCriticalExtensions) > 0 ||
		len(leaf.DNSNames)+len(leaf.EmailAddresses)+len(leaf.IPAddresses)+len(leaf.URIs) > 0 {
		return Peer{}, fmt.Errorf("%w: it does not name one host", errCertificate)
	}
	p := Peer{ID: s.SerialNumber, Name: s.CommonName, Datacenter: s.OrganizationalUnit[0]}
	if err := p.validate(); err != nil {
		return Peer{}, fmt.Errorf("%w: %w", errCertificate, err)
	}
	return p, nil
}
