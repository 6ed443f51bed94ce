package gossip

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"meibo/cluster/membership"
)

// maxText bounds a notice.
const maxText = 512

var errMessage = errors.New("gossip: malformed message")

// encodeMessage writes a message as it goes over the wire.
func encodeMessage(m membership.Message) []byte {
	b := []byte{byte(m.Kind)}
	for _, n := range []uint64{m.Nonce, m.LTime, m.Life} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	flags := byte(0)
	if m.Prune {
		flags = 1
	}
	b = append(b, flags)
	reply := ""
	if m.Reply.IsValid() {
		raw, _ := m.Reply.MarshalBinary()
		reply = string(raw)
	}
	for _, s := range []string{m.Name, m.ID, m.From, reply, m.Text} {
		b = appendString(b, s)
	}
	return b
}

func decodeMessage(b []byte) (membership.Message, error) {
	const head = 1 + 3*8 + 1
	if len(b) < head || b[0] < byte(membership.MessagePing) || b[0] > byte(membership.MessageSuspect) {
		return membership.Message{}, errMessage
	}
	m := membership.Message{
		Kind:  membership.MessageKind(b[0]),
		Nonce: binary.BigEndian.Uint64(b[1:]), LTime: binary.BigEndian.Uint64(b[9:]), Life: binary.BigEndian.Uint64(b[17:]),
		Prune: b[25]&1 != 0,
	}
	b = b[head:]
	var reply string
	for _, s := range []*string{&m.Name, &m.ID, &m.From, &reply, &m.Text} {
		var ok bool
		if *s, b, ok = cutString(b); !ok {
			return membership.Message{}, errMessage
		}
	}
	if len(m.Name) > maxName || len(m.ID) > maxName || len(m.From) > maxName || len(m.Text) > maxText {
		return membership.Message{}, errMessage
	}
	if reply != "" && (m.Reply.UnmarshalBinary([]byte(reply)) != nil || !m.Reply.IsValid()) {
		return membership.Message{}, errMessage
	}
	return m, nil
}

const pushPullVersion = 1

// encodePushPull writes what a host tells another with each push/pull beside
// memberlist's own list. Orders about keys follow; an older host does not read so
// far.
func encodePushPull(s membership.PushPull) []byte {
	b := appendString([]byte{pushPullVersion}, s.From)
	b = binary.AppendUvarint(b, s.Clock)
	b = binary.AppendUvarint(b, uint64(len(s.Gone)))
	for _, d := range s.Gone {
		addr, _ := d.At().MarshalBinary()
		for _, s := range []string{d.Name, d.ID, d.Datacenter, string(addr)} {
			b = appendString(b, s)
		}
		b = binary.BigEndian.AppendUint64(b, d.Life)
		b = append(b, byte(d.Status))
		b = binary.AppendUvarint(b, uint64(max(d.Ago, 0)/time.Second))
	}
	return b
}

func decodePushPull(b []byte) (s membership.PushPull, orders []keyOrder, err error) {
	if len(b) == 0 || b[0] != pushPullVersion {
		return s, nil, errMessage
	}
	var ok bool
	if s.From, b, ok = cutString(b[1:]); !ok || len(s.From) > maxName {
		return s, nil, errMessage
	}
	var count uint64
	if s.Clock, b, ok = cutUvarint(b); !ok {
		return s, nil, errMessage
	}
	if count, b, ok = cutUvarint(b); !ok || count > membership.MaxMembers {
		return s, nil, errMessage
	}
	for range count {
		var d membership.Departed
		if d, b, ok = cutDeparted(b); !ok {
			return s, nil, errMessage
		}
		s.Gone = append(s.Gone, d)
	}
	if orders, ok = decodeOrders(b); !ok {
		return s, nil, errMessage
	}
	return s, orders, nil
}

// encodeOrders writes what follows in the message of a push/pull.
func encodeOrders(orders []keyOrder) []byte {
	b := binary.AppendUvarint(nil, uint64(len(orders)))
	for _, o := range orders {
		b = appendString(b, o.Hash)
		b = binary.AppendUvarint(b, o.At)
		removed := byte(0)
		if o.Removed {
			removed = 1
		}
		b = append(b, removed)
	}
	return b
}

// decodeOrders reads them; an older host tells none.
func decodeOrders(b []byte) (orders []keyOrder, ok bool) {
	if len(b) == 0 {
		return nil, true
	}
	count, b, ok := cutUvarint(b)
	if !ok || count > maxOrders {
		return nil, false
	}
	for range count {
		var o keyOrder
		if o.Hash, b, ok = cutString(b); !ok || len(o.Hash) != 2*sha256.Size {
			return nil, false
		}
		// A time that no clock says would be one that no order can follow.
		if o.At, b, ok = cutUvarint(b); !ok || len(b) == 0 || o.At > uint64(time.Now().UnixMilli())+membership.MaxLeap {
			return nil, false
		}
		o.Removed, b = b[0] == 1, b[1:]
		orders = append(orders, o)
	}
	return orders, true
}

func cutDeparted(b []byte) (d membership.Departed, rest []byte, ok bool) {
	var raw string
	for _, s := range []*string{&d.Name, &d.ID, &d.Datacenter, &raw} {
		if *s, b, ok = cutString(b); !ok || len(*s) > maxName {
			return d, nil, false
		}
	}
	var addr netip.AddrPort
	if d.Name == "" || d.ID == "" || addr.UnmarshalBinary([]byte(raw)) != nil || !addr.IsValid() || len(b) < 9 {
		return d, nil, false
	}
	d.Addr, d.Port = addr.Addr(), addr.Port()
	d.Life, d.Status = binary.BigEndian.Uint64(b), membership.Status(b[8])
	ago, b, ok := cutUvarint(b[9:])
	if !ok || (d.Status != membership.Failed && d.Status != membership.Left) || ago > 1<<32 {
		return d, nil, false
	}
	d.Ago = time.Duration(ago) * time.Second
	return d, b, true
}

func cutUvarint(b []byte) (n uint64, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 {
		return 0, nil, false
	}
	return n, b[used:], true
}
