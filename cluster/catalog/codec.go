package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// UnknownVersionError reports bytes written by a program newer than this one.
type UnknownVersionError struct{ Version uint8 }

// Error implements error.
func (e *UnknownVersionError) Error() string {
	return fmt.Sprintf("command version %d is unknown (this program knows up to %d): upgrade this server", e.Version, Version)
}

// UnknownTypeError reports a command of a kind that this program lacks.
type UnknownTypeError struct{ Type Type }

// Error implements error.
func (e *UnknownTypeError) Error() string {
	return fmt.Sprintf("command type %d is unknown: upgrade this server", e.Type)
}

// maxDepth bounds nesting when decoding; no command nests deeper than a map
// of lists in a definition in a check.
const maxDepth = 12

// handle is the msgpack dialect of logs and snapshots: maps ordered, strings
// apart from bytes, and an error for any field that is not known, since one
// that is skipped would make replicas differ.
var handle = newHandle()

func newHandle() *codec.MsgpackHandle {
	h := new(codec.MsgpackHandle)
	h.Canonical = true
	h.WriteExt = true
	h.RawToString = true
	h.ErrorIfNoField = true
	h.MaxDepth = maxDepth
	h.MaxInitLen = 64
	return h
}

// header is the envelope of a command, in front of its body.
type header struct {
	Type    Type   `codec:"T"`
	Time    int64  `codec:"At"` // Unix nanoseconds
	Client  string `codec:"C,omitempty"`
	Counter uint64 `codec:"N,omitempty"`
}

// Encode writes the command as the log keeps it. Equal commands give equal
// bytes. It does not validate.
func (c Command) Encode() ([]byte, error) {
	if c.Body == nil {
		return nil, errors.New("encode command: no body")
	}
	h := header{Type: c.Body.Type(), Time: c.Time.UnixNano(), Client: c.Request.Client, Counter: c.Request.Counter}
	var b bytes.Buffer
	b.WriteByte(Version)
	enc := codec.NewEncoder(&b, handle)
	if err := enc.Encode(h); err != nil {
		return nil, fmt.Errorf("encode header of command type %d: %w", h.Type, err)
	}
	if err := enc.Encode(c.Body); err != nil {
		return nil, fmt.Errorf("encode body of command type %d: %w", h.Type, err)
	}
	return b.Bytes(), nil
}

// Decode reads a command written by [Command.Encode]. The errors
// *[UnknownVersionError] and *[UnknownTypeError] say that a newer program
// wrote it; any other means that the bytes are damaged.
func Decode(p []byte) (Command, error) {
	if len(p) == 0 {
		return Command{}, errors.New("decode command: empty")
	}
	if p[0] != Version {
		return Command{}, &UnknownVersionError{Version: p[0]}
	}
	r := bytes.NewReader(p[1:])
	dec := codec.NewDecoder(r, handle)
	var h header
	if err := dec.Decode(&h); err != nil {
		return Command{}, fmt.Errorf("decode header of command: %w", err)
	}
	body := newBody(h.Type)
	if body == nil {
		return Command{}, &UnknownTypeError{Type: h.Type}
	}
	if err := dec.Decode(body); err != nil {
		return Command{}, fmt.Errorf("decode body of command type %d: %w", h.Type, err)
	}
	if n := r.Len(); n > 0 {
		return Command{}, fmt.Errorf("decode command type %d: %d bytes left over", h.Type, n)
	}
	return Command{
		Time:    time.Unix(0, h.Time).UTC(),
		Request: RequestID{Client: h.Client, Counter: h.Counter},
		Body:    body,
	}, nil
}

func newBody(t Type) Body {
	switch t {
	case TypeRegister:
		return new(Register)
	case TypeDeregister:
		return new(Deregister)
	case TypeBeginHistory:
		return new(BeginHistory)
	case TypeMarkSynced:
		return new(MarkSynced)
	case TypeForget:
		return new(Forget)
	case TypeSetAutopilot:
		return new(SetAutopilot)
	}
	return nil
}

// EncodeRecord appends v to w in the dialect of commands: for snapshots.
func EncodeRecord(w io.Writer, v any) error { return codec.NewEncoder(w, handle).Encode(v) }

// DecodeRecord reads into v what [EncodeRecord] wrote.
func DecodeRecord(p []byte, v any) error {
	r := bytes.NewReader(p)
	if err := codec.NewDecoder(r, handle).Decode(v); err != nil {
		return err
	}
	if n := r.Len(); n > 0 {
		return fmt.Errorf("%d bytes left over", n)
	}
	return nil
}
