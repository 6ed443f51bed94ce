package consul

import (
	"fmt"
	"time"

	"meibo/resolver/wire"
)

// shortTTL is the longest TTL of answers that are staler than the configuration
// wants: what heals is seen soon.
const shortTTL = 5

// isCatalog reports whether answers of the kind say something of the catalog;
// the others are the same at all times.
func (k kind) isCatalog() bool { return k == apex || k == services || k == nodes }

// judgeAge notes whether what the state says is confirmed. An answer that is not
// too stale yet lives until it would be.
func (b *builder) judgeAge() {
	b.unsure = b.older || !b.state.Fresh()
	// Contents that are still to come are due any moment from a server that
	// speaks to us; without one, what is known is good until a counter moves.
	b.noStore = b.noStore || b.older && b.state.Fresh()
	if b.settings.maxStale == 0 || b.state.Fresh() {
		return
	}
	at := b.state.Confirmed()
	if at.IsZero() {
		return
	}
	left := b.settings.maxStale - b.zone.now().Sub(at)
	if b.tooStale = left <= 0; !b.tooStale {
		b.bound(left)
	}
}

// failStale refuses to answer from what has not been confirmed for too long.
func (b *builder) failStale() {
	age := b.zone.now().Sub(b.state.Confirmed()).Round(time.Second)
	b.fail(wire.EDENoReachable, fmt.Sprintf("no server has confirmed the catalog for %s, view.max_stale is %s", age, b.settings.maxStale))
}

// markStale says with the answer that it is not confirmed (RFC 8914 sections 4.4
// and 4.20).
func (b *builder) markStale() {
	if !b.unsure && b.unconfirmed == "" || b.ede != 0 || b.edeText != "" {
		return
	}
	b.ede = wire.EDEStale
	switch {
	case b.older:
		b.edeText = "the servers have not told about " + b.name + " yet"
	case b.unsure:
		b.edeText = "no server confirms the catalog"
	default:
		b.edeText = "node " + b.unconfirmed + " is known from before the catalog began anew, no server confirms it"
	}
	if b.reply.Rcode == wire.RcodeNXDomain {
		b.ede = wire.EDEStaleNXDomain
	}
	b.zone.stats.stale.Add(1)
}
