package gossip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"meibo/cluster/membership"
)

// delegate is all that memberlist calls. Most of it is called with memberlist's
// nodeLock held: so nothing here waits, calls memberlist, or takes the lock of
// the members.
type delegate struct{ *Gossip }

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(int) []byte { return []byte(d.Members().Self().Meta) }

// NotifyMsg implements memberlist.Delegate.
func (d delegate) NotifyMsg(b []byte) {
	at := time.Now()
	if msg, err := decodeMessage(b); err == nil {
		d.inbox.put(maxMessages, func(m *membership.Machine, now time.Time) { m.Receive(now, msg, at) })
	}
}

// GetBroadcasts implements memberlist.Delegate.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.broadcasts.GetBroadcasts(overhead, limit)
}

// LocalState implements memberlist.Delegate.
func (d delegate) LocalState(bool) []byte {
	return slices.Concat(encodePushPull(d.Members().PushPull(time.Now())), d.cfg.Keyring.orders())
}

// MergeRemoteState implements memberlist.Delegate.
func (d delegate) MergeRemoteState(b []byte, _ bool) {
	if s, orders, err := decodePushPull(b); err == nil {
		d.inbox.putState(func(m *membership.Machine, now time.Time) {
			m.Merge(now, s)
			d.learnKeys(s.From, orders)
		})
	}
}

// NotifyJoin implements memberlist.EventDelegate.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.told((*membership.Machine).Alive, n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.told((*membership.Machine).Updated, n) }

// NotifyLeave implements memberlist.EventDelegate.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	if name := n.Name; name != d.self.Name {
		d.inbox.put(maxChanges, func(m *membership.Machine, now time.Time) { m.Dead(now, name, d.accuserOf(now, name)) })
	}
}

func (d delegate) told(what func(*membership.Machine, time.Time, membership.Node), n *memberlist.Node) {
	if node, err := nodeOf(n); err == nil && node.Name != d.self.Name {
		d.inbox.put(maxChanges, func(m *membership.Machine, now time.Time) { what(m, now, node) })
	}
}

// AckPayload implements memberlist.PingDelegate.
func (d delegate) AckPayload() []byte { return nil }

// NotifyPingComplete implements memberlist.PingDelegate.
func (d delegate) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, _ []byte) {
	name, from := n.Name, addrOf(n)
	d.inbox.put(maxMessages, func(m *membership.Machine, now time.Time) { m.Acked(now, name, from, rtt) })
}

// NotifyConflict implements memberlist.ConflictDelegate: a host that NotifyAlive
// let pass has another address than memberlist knows, and isn't dead there yet.
// It will be, and is let pass then.
func (d delegate) NotifyConflict(_, _ *memberlist.Node) {}

// NotifyMerge implements memberlist.MergeDelegate: it may refuse to compare
// lists with another host at all.
func (d delegate) NotifyMerge(peers []*memberlist.Node) error {
	for _, n := range peers {
		if n.State != memberlist.StateAlive {
			continue
		}
		node, err := nodeOf(n)
		switch {
		case err != nil:
			return fmt.Errorf("host %q at %s gossips in another way: it can't be joined", n.Name, addrOf(n))
		case node.Datacenter != d.self.Datacenter:
			return fmt.Errorf("host %q at %s is of datacenter %q, this one of %q: join hosts of one datacenter", n.Name, addrOf(n), node.Datacenter, d.self.Datacenter)
		}
	}
	return nil
}

func addrOf(n *memberlist.Node) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(addr.Unmap(), n.Port)
}

// nodeOf is a host as memberlist tells of it.
func nodeOf(n *memberlist.Node) (membership.Node, error) {
	life, tags, err := decodeMeta(n.Meta)
	at := addrOf(n)
	return membership.Node{
		ID: tags[membership.TagID], Name: n.Name, Datacenter: tags[membership.TagDatacenter],
		Addr: at.Addr(), Port: at.Port(), Life: life, Tags: tags, Meta: string(n.Meta),
	}, err
}

var (
	errOther    = errors.New("it is described in another way: not a host of this kind")
	errConflict = errors.New("its name or its node ID is another host's: both are asked")
	errFull     = fmt.Errorf("%d members are known, no more are taken", membership.MaxMembers)
)

// NotifyAlive implements memberlist.AliveDelegate, the filter of signs of life: it
// lets one pass, or says why not. Whoever claims what a living host has is in
// conflict with it, which the members settle.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	at, t := addrOf(n), d.Members()
	if known := t.ByName(n.Name); known != nil && known.At() == at && known.Meta == string(n.Meta) {
		return nil
	}
	node, err := nodeOf(n)
	switch {
	case err != nil || len(n.Name) > maxName:
		return errOther
	case node.Datacenter != d.self.Datacenter:
		return fmt.Errorf("it is of datacenter %q, this host of %q", node.Datacenter, d.self.Datacenter)
	case n.Name == d.self.Name && at == d.self.At():
		// This host, or who was here before it lost its node ID. memberlist must
		// hear of that one: only then does it speak louder, and the others hear
		// who is here now.
		return nil
	case t.InConflict(&node):
		d.inbox.put(maxChanges, func(m *membership.Machine, now time.Time) { m.Conflict(now, node) })
		return errConflict
	case t.ByName(n.Name) == nil && len(t.Members()) > membership.MaxMembers:
		return errFull
	}
	return nil
}
