package membership

import (
	"net/netip"
	"time"
)

// MessageKind says what a message is about. The numbers are what goes over the
// wire.
type MessageKind byte

// Messages between machines. What brings them authenticates that they come from
// some host of the cluster, from nobody in particular, and they may be recorded
// and sent again:
//
//   - ping and pong, to one host, bound to each other by a random number;
//   - notice, to one host: a conflict in words;
//   - leave, force and suspect, to everybody: intents, with a Lamport time and an
//     ID. They name the life (process) that they are about, so that one that is
//     played again after that host came back says nothing.
const (
	MessagePing MessageKind = iota + 1
	MessagePong
	MessageNotice
	MessageLeave
	MessageForce
	MessageSuspect
)

// Message is one of them; which fields count depends on the kind.
type Message struct {
	Kind  MessageKind
	Nonce uint64         // binds a pong to its ping; the ID of an intent
	LTime uint64         // of an intent
	Life  uint64         // of the host that it is about; 0 for any
	Name  string         // of the host that it is about
	ID    string         // its node ID
	From  string         // who sends it, by name
	Reply netip.AddrPort // of a ping
	Text  string         // of a notice
	Prune bool
}

// PushPull is what a host tells another beside gossip's own list when the two
// compare them: who is gone, which gossip forgets after half a minute.
type PushPull struct {
	From  string // who tells it
	Clock uint64
	Gone  []Departed
}

// Departed is a member that failed or left; of its Node, Tags and Meta don't
// count.
type Departed struct {
	Node
	Status Status // Failed or Left
	Ago    time.Duration
}
