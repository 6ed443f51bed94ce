package gossip

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
)

// Messages of ours, carried by memberlist (encrypted and authenticated by the
// key, from nobody in particular, and possibly recorded and sent again):
//
//   - ping and pong, to one host, bound to each other by a random number;
//   - notice, to one host: a conflict in words;
//   - leave, force and doubt, to everybody: intents, with a Lamport time and an
//     ID. They name the life (process) that they are about, so that one that is
//     played again after that host came back says nothing.
type messageKind byte

const (
	pingMessage messageKind = iota + 1
	pongMessage
	noticeMessage
	leaveMessage
	forceMessage
	doubtMessage
)

// maxWords bounds a notice.
const maxWords = 512

var errMessage = errors.New("gossip: malformed message")

// message is one of them; which fields count depends on the kind.
type message struct {
	kind  messageKind
	nonce uint64         // binds a pong to its ping; the ID of an intent
	ltime uint64         // of an intent
	life  uint64         // of the host that it is about; 0 for any
	name  string         // of the host that it is about
	id    string         // its node ID
	from  string         // who sends it, by name
	reply netip.AddrPort // of a ping
	words string         // of a notice
	prune bool
}

func (m message) encode() []byte {
	b := []byte{byte(m.kind)}
	for _, n := range []uint64{m.nonce, m.ltime, m.life} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	flags := byte(0)
	if m.prune {
		flags = 1
	}
	b = append(b, flags)
	reply := ""
	if m.reply.IsValid() {
		raw, _ := m.reply.MarshalBinary()
		reply = string(raw)
	}
	for _, s := range []string{m.name, m.id, m.from, reply, m.words} {
		b = appendString(b, s)
	}
	return b
}

func decodeMessage(b []byte) (message, error) {
	const head = 1 + 3*8 + 1
	if len(b) < head || b[0] < byte(pingMessage) || b[0] > byte(doubtMessage) {
		return message{}, errMessage
	}
	m := message{
		kind:  messageKind(b[0]),
		nonce: binary.BigEndian.Uint64(b[1:]), ltime: binary.BigEndian.Uint64(b[9:]), life: binary.BigEndian.Uint64(b[17:]),
		prune: b[25]&1 != 0,
	}
	b = b[head:]
	var reply string
	for _, s := range []*string{&m.name, &m.id, &m.from, &reply, &m.words} {
		var ok bool
		if *s, b, ok = cutString(b); !ok {
			return message{}, errMessage
		}
	}
	if len(m.name) > maxName || len(m.id) > maxName || len(m.from) > maxName || len(m.words) > maxWords {
		return message{}, errMessage
	}
	if reply != "" && (m.reply.UnmarshalBinary([]byte(reply)) != nil || !m.reply.IsValid()) {
		return message{}, errMessage
	}
	return m, nil
}

// hearsay is what a host tells another with each push/pull beside memberlist's
// own list: who is gone, which memberlist forgets after half a minute.
type hearsay struct {
	from  string // who tells it
	clock uint64
	gone  []departed
	keys  []keyOrder // follow in the message; an older host does not read so far
}

// departed is a member that failed or left.
type departed struct {
	name, id, dc string
	life         uint64
	addr         netip.AddrPort
	status       Status // Failed or Left
	ago          time.Duration
}

const hearsayVersion = 1

func (h hearsay) encode() []byte {
	b := appendString([]byte{hearsayVersion}, h.from)
	b = binary.AppendUvarint(b, h.clock)
	b = binary.AppendUvarint(b, uint64(len(h.gone)))
	for _, d := range h.gone {
		addr, _ := d.addr.MarshalBinary()
		for _, s := range []string{d.name, d.id, d.dc, string(addr)} {
			b = appendString(b, s)
		}
		b = binary.BigEndian.AppendUint64(b, d.life)
		b = append(b, byte(d.status))
		b = binary.AppendUvarint(b, uint64(max(d.ago, 0)/time.Second))
	}
	return b
}

func decodeHearsay(b []byte) (hearsay, error) {
	var h hearsay
	if len(b) == 0 || b[0] != hearsayVersion {
		return h, errMessage
	}
	var ok bool
	if h.from, b, ok = cutString(b[1:]); !ok || len(h.from) > maxName {
		return h, errMessage
	}
	var count uint64
	if h.clock, b, ok = cutUvarint(b); !ok {
		return h, errMessage
	}
	if count, b, ok = cutUvarint(b); !ok || count > maxMembers {
		return h, errMessage
	}
	for range count {
		var d departed
		if d, b, ok = cutDeparted(b); !ok {
			return h, errMessage
		}
		h.gone = append(h.gone, d)
	}
	h.keys, ok = decodeOrders(b)
	if !ok {
		return h, errMessage
	}
	return h, nil
}

// encodeOrders writes what follows in the message of a hearsay.
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
		if o.At, b, ok = cutUvarint(b); !ok || len(b) == 0 || o.At > uint64(time.Now().UnixMilli())+clockLeap {
			return nil, false
		}
		o.Removed, b = b[0] == 1, b[1:]
		orders = append(orders, o)
	}
	return orders, true
}

func cutDeparted(b []byte) (d departed, rest []byte, ok bool) {
	var addr string
	for _, s := range []*string{&d.name, &d.id, &d.dc, &addr} {
		if *s, b, ok = cutString(b); !ok || len(*s) > maxName {
			return d, nil, false
		}
	}
	if d.name == "" || d.id == "" || d.addr.UnmarshalBinary([]byte(addr)) != nil || !d.addr.IsValid() || len(b) < 9 {
		return d, nil, false
	}
	d.life, d.status = binary.BigEndian.Uint64(b), Status(b[8])
	ago, b, ok := cutUvarint(b[9:])
	if !ok || (d.status != Failed && d.status != Left) || ago > 1<<32 {
		return d, nil, false
	}
	d.ago = time.Duration(ago) * time.Second
	return d, b, true
}

func cutUvarint(b []byte) (n uint64, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 {
		return 0, nil, false
	}
	return n, b[used:], true
}
