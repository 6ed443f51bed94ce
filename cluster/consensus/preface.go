package consensus

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Each connection begins with a preface: who dials says hello, who accepts
// answers, who dials says whether it goes on. Raft knows the servers by their
// addresses alone, and would take the vote of whatever server is there now.
//
// A frame is the magic, the length of what follows (16 bits, big endian), and
// JSON. Unknown fields are passed over, so that later versions can add some.
const (
	prefaceMagic = "mbr1"
	maxPreface   = 4096
)

// hello is what who dials says first.
type hello struct {
	Cluster string `json:"cluster"` // empty: none yet
	From    string `json:"from"`    // its server ID
	To      string `json:"to"`      // the server ID it wants to speak to
	// Ask says that nothing follows: it only wants the answer.
	Ask bool `json:"ask,omitempty"`
}

// reply is what who accepts says of itself.
type reply struct {
	Cluster string `json:"cluster"`
	From    string `json:"from"`
	Last    uint64 `json:"last"` // its last entry, committed or not
	Term    uint64 `json:"term"`
	Leading bool   `json:"leading,omitempty"` // in that term, or a later one
	// Member says whether who dialled is in the latest configuration or in
	// the one that Config, its index, names as committed.
	Member bool   `json:"member,omitempty"`
	Config uint64 `json:"config,omitempty"`
	refused
}

// refused is the reason why a connection isn't used, zero if it is. It ends
// the preface.
type refused struct {
	Code refusal `json:"refused,omitempty"`
	Why  string  `json:"why,omitempty"`
}

// refusal is a reason that programs know.
type refusal string

const (
	otherCluster refusal = "other-cluster"
	otherServer  refusal = "other-server"
	retiredID    refusal = "spent-id"
	noCluster    refusal = "no-cluster"
)

func (r refused) err() error {
	if r.Code == "" {
		return nil
	}
	return &refusedError{r}
}

// refusedError is a refusal, by either side.
type refusedError struct{ refused }

func (e *refusedError) Error() string { return e.Why }

// Is says that a retired ID is [ErrIDRetired].
func (e *refusedError) Is(target error) bool { return target == ErrIDRetired && e.Code == retiredID }

func writeFrame(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxPreface {
		return fmt.Errorf("preface of %d bytes", len(body))
	}
	frame := append([]byte(prefaceMagic), 0, 0)
	binary.BigEndian.PutUint16(frame[len(prefaceMagic):], uint16(len(body)))
	_, err = w.Write(append(frame, body...))
	return err
}

var errNoPreface = errors.New("what came is no preface of a raft connection")

// readFrame reads no further than the frame.
func readFrame(r io.Reader, v any) error {
	var head [len(prefaceMagic) + 2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint16(head[len(prefaceMagic):])
	if string(head[:len(prefaceMagic)]) != prefaceMagic || size > maxPreface {
		return errNoPreface
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %w", errNoPreface, err)
	}
	return nil
}
