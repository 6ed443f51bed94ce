package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/memberlist"
)

// The tags that every host tells. Others may be added.
const (
	tagID         = "id"
	tagDatacenter = "dc"
)

// maxName is the longest name or ID of a host (a label of DNS has 63 bytes; an
// ID is a UUID).
const maxName = 128

// metaVersion begins the encoding of what a host tells of itself.
const metaVersion = 1

// errMeta is returned for what is not a description of a host.
var errMeta = errors.New("gossip: not a description of a host of this kind")

// meta is what a host tells of itself with each sign of life.
type meta struct {
	life uint64 // of this process: Unix microseconds of its start
	tags map[string]string
}

// encode writes version, life, and the tags by name, each string after its
// length. It fails if that is more than memberlist carries.
func (m meta) encode() ([]byte, error) {
	b := binary.BigEndian.AppendUint64([]byte{metaVersion}, m.life)
	for _, k := range slices.Sorted(maps.Keys(m.tags)) {
		b = appendString(appendString(b, k), m.tags[k])
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("gossip: the tags take %d bytes, %d are carried: shorten them", len(b), memberlist.MetaMaxSize)
	}
	return b, nil
}

func decodeMeta(b []byte) (meta, error) {
	if len(b) < 9 || b[0] != metaVersion {
		return meta{}, errMeta
	}
	m := meta{life: binary.BigEndian.Uint64(b[1:]), tags: make(map[string]string)}
	for b = b[9:]; len(b) > 0; {
		var k, v string
		var ok bool
		if k, b, ok = cutString(b); !ok {
			return meta{}, errMeta
		}
		if v, b, ok = cutString(b); !ok {
			return meta{}, errMeta
		}
		m.tags[k] = v
	}
	if id := m.tags[tagID]; id == "" || len(id) > maxName {
		return meta{}, errMeta
	}
	return m, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func cutString(b []byte) (s string, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return "", nil, false
	}
	return string(b[used : used+int(n)]), b[used+int(n):], true
}
