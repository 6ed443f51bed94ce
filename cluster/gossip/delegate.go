package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is all that memberlist calls. Most of it is called with memberlist's
// nodeLock held: so nothing here waits, calls memberlist, or takes the ledger's
// lock. The one lock taken is the small one of vet.
type delegate struct {
	self    identity
	mail    *mailbox
	vet     *vet
	meta    atomic.Pointer[[]byte] // what this host tells of itself
	hearsay atomic.Pointer[[]byte]
	keyring *Keyring
	casts   *memberlist.TransmitLimitedQueue
}

// identity is what this host is called, and where.
type identity struct {
	name, id, dc string
	addr         netip.AddrPort
}

// NodeMeta implements memberlist.Delegate.
func (d *delegate) NodeMeta(int) []byte { return *d.meta.Load() }

// NotifyMsg implements memberlist.Delegate.
func (d *delegate) NotifyMsg(b []byte) {
	at := time.Now()
	if m, err := decodeMessage(b); err == nil {
		d.mail.message(m, at)
	}
}

// GetBroadcasts implements memberlist.Delegate.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.casts.GetBroadcasts(overhead, limit)
}

// LocalState implements memberlist.Delegate.
func (d *delegate) LocalState(bool) []byte {
	if b := d.hearsay.Load(); b != nil {
		return slices.Concat(*b, d.keyring.orders())
	}
	return slices.Concat(hearsay{from: d.self.name}.encode(), d.keyring.orders())
}

// MergeRemoteState implements memberlist.Delegate.
func (d *delegate) MergeRemoteState(b []byte, _ bool) {
	if h, err := decodeHearsay(b); err == nil {
		d.mail.rumour(h)
	}
}

// NotifyJoin implements memberlist.EventDelegate.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.told(turnJoined, n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.told(turnUpdated, n) }

// NotifyLeave implements memberlist.EventDelegate.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	if n.Name != d.self.name {
		d.mail.turn(turn{kind: turnLeft, node: node{name: n.Name, addr: addrOf(n)}})
	}
}

func (d *delegate) told(kind byte, n *memberlist.Node) {
	m, err := decodeMeta(n.Meta)
	if err != nil || n.Name == d.self.name {
		return
	}
	d.mail.turn(turn{kind: kind, node: node{name: n.Name, addr: addrOf(n), meta: m}})
}

// AckPayload implements memberlist.PingDelegate.
func (d *delegate) AckPayload() []byte { return nil }

// NotifyPingComplete implements memberlist.PingDelegate.
func (d *delegate) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, _ []byte) {
	d.mail.ack(ack{name: n.Name, addr: addrOf(n), rtt: rtt})
}

// NotifyAlive implements memberlist.AliveDelegate: it may refuse a host.
func (d *delegate) NotifyAlive(n *memberlist.Node) error { return d.check(n) }

// NotifyConflict implements memberlist.ConflictDelegate: a host that NotifyAlive
// let pass has another address than memberlist knows, and isn't dead there yet.
// It will be, and is let pass then.
func (d *delegate) NotifyConflict(_, _ *memberlist.Node) {}

// NotifyMerge implements memberlist.MergeDelegate: it may refuse to compare
// lists with another host at all.
func (d *delegate) NotifyMerge(peers []*memberlist.Node) error {
	for _, n := range peers {
		if n.State != memberlist.StateAlive {
			continue
		}
		m, err := decodeMeta(n.Meta)
		switch {
		case err != nil:
			return fmt.Errorf("host %q at %s gossips in another way: it can't be joined", n.Name, addrOf(n))
		case m.tags[tagDatacenter] != d.self.dc:
			return fmt.Errorf("host %q at %s is of datacenter %q, this one of %q: join hosts of one datacenter", n.Name, addrOf(n), m.tags[tagDatacenter], d.self.dc)
		}
	}
	return nil
}

func addrOf(n *memberlist.Node) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(addr.Unmap(), n.Port)
}

// vet knows of each member what is needed to let a sign of life pass.
type vet struct {
	mu     sync.Mutex // guards following
	byName map[string]*vetted
	byID   map[string]string // name
}

type vetted struct {
	id   string
	addr netip.AddrPort
	gone bool   // Failed or Left: its name and its ID may be taken over
	raw  []byte // the last description that was let pass
}

var (
	errOther     = errors.New("it is described in another way: not a host of this kind")
	errContested = errors.New("its name or its node ID is another host's: both are asked")
	errFull      = fmt.Errorf("%d members are known, no more are taken", maxMembers)
)

// put takes over what the ledger knows of the member of a name.
func (v *vet) put(r *record) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.byName[r.Name]
	if e == nil || e.id != r.ID {
		e = &vetted{id: r.ID}
		v.byName[r.Name] = e
	}
	e.addr, e.gone = r.at(), r.Status == Failed || r.Status == Left
	v.byID[r.ID] = r.Name
}

// drop forgets a name.
func (v *vet) drop(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if e := v.byName[name]; e != nil {
		delete(v.byName, name)
		if v.byID[e.id] == name {
			delete(v.byID, e.id)
		}
	}
}

// check lets a sign of life pass, or says why not. Whoever claims what a living
// host has is contested: see contest.go.
func (d *delegate) check(n *memberlist.Node) error {
	at := addrOf(n)
	v := d.vet
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.byName[n.Name]
	if e != nil && e.addr == at && bytes.Equal(e.raw, n.Meta) {
		return nil
	}
	m, err := decodeMeta(n.Meta)
	if err != nil || len(n.Name) > maxName {
		return errOther
	}
	id, dc := m.tags[tagID], m.tags[tagDatacenter]
	if dc != d.self.dc {
		return fmt.Errorf("it is of datacenter %q, this host of %q", dc, d.self.dc)
	}
	if n.Name == d.self.name && at == d.self.addr {
		// This host, or who was here before it lost its node ID. memberlist must
		// hear of that one: only then does it speak louder, and the others hear
		// who is here now.
		return nil
	}
	if d.contests(n.Name, id, at, e) {
		d.mail.turn(turn{kind: turnContest, node: node{name: n.Name, addr: at, meta: m}})
		return errContested
	}
	if e == nil && len(v.byName) >= maxMembers {
		return errFull
	}
	if e != nil {
		e.raw = bytes.Clone(n.Meta)
	}
	return nil
}

// contests reports whether name or ID are those of a living host elsewhere.
// e is what is known of the name.
func (d *delegate) contests(name, id string, at netip.AddrPort, e *vetted) bool {
	if name == d.self.name || id == d.self.id {
		return true
	}
	if e != nil && e.addr != at && !e.gone {
		return true
	}
	other := d.vet.byName[d.vet.byID[id]]
	return other != nil && other != e && other.addr != at && !other.gone
}
