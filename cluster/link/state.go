package link

import (
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"slices"
)

// state is what handshakes go by at one time. It is never modified.
type state struct {
	ring   *ring
	leaf   tls.Certificate
	server *tls.Config // for all protocols that are handled
	client *tls.Config // without the protocol
}

func (l *Link) keys() ([][]byte, <-chan struct{}) {
	if l.cfg.Keys == nil {
		return nil, nil
	}
	return l.cfg.Keys.Keys()
}

// newState reads the ring and makes a new leaf. l.mu is held, but in New.
func (l *Link) newState() (*state, error) {
	keys, changed := l.keys()
	r := &ring{authorities: make(map[keyID]ed25519.PublicKey), changed: changed}
	if len(keys) == 0 {
		keys, r.wellKnown = [][]byte{[]byte(wellKnown)}, true
	}
	st := &state{ring: r}
	for i, key := range keys {
		authority, id, err := authorityOf(key)
		if err != nil {
			return nil, fmt.Errorf("link: make an authority of key %d: %w", i+1, err)
		}
		r.authorities[id] = authority.Public().(ed25519.PublicKey)
		if i > 0 {
			continue
		}
		r.primary = id
		if st.leaf, err = newLeaf(l.cfg.Self, authority, id); err != nil {
			return nil, fmt.Errorf("link: make a certificate: %w", err)
		}
	}
	st.client = &tls.Config{
		Certificates: []tls.Certificate{st.leaf},
		MinVersion:   tls.VersionTLS13,
		// Names and times are not what a peer is trusted by; see ring.verify.
		InsecureSkipVerify:     true,
		ClientAuth:             tls.RequireAnyClientCert,
		VerifyConnection:       l.verify,
		SessionTicketsDisabled: true,
	}
	st.server = st.client.Clone()
	st.server.NextProtos = l.protocolsLocked()
	return st, nil
}

// with is st for a ring that has no news until the channel is closed.
func (st *state) with(changed <-chan struct{}) *state {
	r := *st.ring
	r.changed = changed
	return &state{ring: &r, leaf: st.leaf, server: st.server, client: st.client}
}

// withProtocols is st for another set of protocols that are handled.
func (st *state) withProtocols(protocols []string) *state {
	s := *st
	s.server = st.server.Clone()
	s.server.NextProtos = protocols
	return &s
}

// protocolsLocked are those that somebody listens for; never none at all, which
// would stand for no ALPN.
func (l *Link) protocolsLocked() []string {
	names := []string{"meibo"}
	for p := range l.handlers {
		names = append(names, string(p))
	}
	slices.Sort(names[1:])
	return names
}

// verify is the word on a peer within the handshake, so that it hears of it by
// an alert.
func (l *Link) verify(cs tls.ConnectionState) error {
	if cs.NegotiatedProtocol == "" {
		return fmt.Errorf("%w: the connection does not say what it is for (ALPN)", ErrProtocol)
	}
	_, _, err := l.current().ring.verify(cs.PeerCertificates)
	return err
}
