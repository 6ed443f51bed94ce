package rpc

import (
	"bytes"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// callHandle is the msgpack dialect of calls. Fields that are not known are
// skipped: the other host may be newer.
var callHandle = newCallHandle()

func newCallHandle() *codec.MsgpackHandle {
	h := new(codec.MsgpackHandle)
	h.WriteExt = true
	h.RawToString = true
	h.MaxDepth = 16
	h.MaxInitLen = 64
	return h
}

// encode writes a call's body or answer: a []byte is sent as it is.
func encode(v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case []byte:
		return v, nil
	}
	var b bytes.Buffer
	err := codec.NewEncoder(&b, callHandle).Encode(v)
	return b.Bytes(), err
}

// Decode reads the body of a call, or its answer, into v: into a *[]byte as it is.
func Decode(data []byte, v any) error {
	if raw, ok := v.(*[]byte); ok {
		*raw = data
		return nil
	}
	return codec.NewDecoderBytes(data, callHandle).Decode(v)
}
