package catalog

import (
	"encoding/json"
	"reflect"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// Definition has the [CheckDefinition] of a check. Most checks have none, and a
// catalog holds many: the zero value, for none, is a word. In JSON and in a log
// it is the CheckDefinition, with nothing in it for none.
type Definition struct{ *CheckDefinition }

// Define returns the definition that says what d says; none if it says nothing.
func Define(d CheckDefinition) Definition {
	if reflect.ValueOf(d).IsZero() {
		return Definition{}
	}
	return Definition{&d}
}

// Get returns what the definition says. Its Header is shared: copy to change.
func (d Definition) Get() CheckDefinition {
	if d.CheckDefinition == nil {
		return CheckDefinition{}
	}
	return *d.CheckDefinition
}

// IsZero reports whether there is none.
func (d Definition) IsZero() bool { return d.CheckDefinition == nil }

// Equal reports whether two say the same.
func (d Definition) Equal(other Definition) bool {
	return d.CheckDefinition == other.CheckDefinition || reflect.DeepEqual(d.CheckDefinition, other.CheckDefinition)
}

// MarshalJSON implements json.Marshaler.
func (d Definition) MarshalJSON() ([]byte, error) { return json.Marshal(d.Get()) }

// UnmarshalJSON implements json.Unmarshaler.
func (d *Definition) UnmarshalJSON(text []byte) error {
	var full CheckDefinition
	err := json.Unmarshal(text, &full)
	*d = Define(full)
	return err
}

// CodecEncodeSelf implements codec.Selfer.
func (d *Definition) CodecEncodeSelf(e *codec.Encoder) { e.MustEncode(d.Get()) }

// CodecDecodeSelf implements codec.Selfer.
func (d *Definition) CodecDecodeSelf(from *codec.Decoder) {
	var full CheckDefinition
	from.MustDecode(&full)
	*d = Define(full)
}
