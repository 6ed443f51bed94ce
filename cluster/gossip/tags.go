package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/memberlist"

	"meibo/cluster/membership"
)

// maxName is the longest name or ID of a host (a label of DNS has 63 bytes; an
// ID is a UUID).
const maxName = 128

// metaVersion begins the encoding of what a host tells of itself.
const metaVersion = 1

// errMeta is returned for what is not a description of a host.
var errMeta = errors.New("gossip: not a description of a host of this kind")

// encodeMeta encodes what a host tells of itself with each sign of life: the life
// of its process and its tags. It writes version, life, and the tags by name,
// each string after its length. It fails if that is more than memberlist carries.
func encodeMeta(life uint64, tags map[string]string) (string, error) {
	b := binary.BigEndian.AppendUint64([]byte{metaVersion}, life)
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		b = appendString(appendString(b, k), tags[k])
	}
	if len(b) > memberlist.MetaMaxSize {
		return "", fmt.Errorf("gossip: the tags take %d bytes, %d are carried: shorten them", len(b), memberlist.MetaMaxSize)
	}
	return string(b), nil
}

func decodeMeta(b []byte) (life uint64, tags map[string]string, err error) {
	if len(b) < 9 || b[0] != metaVersion {
		return 0, nil, errMeta
	}
	life, tags = binary.BigEndian.Uint64(b[1:]), make(map[string]string)
	for b = b[9:]; len(b) > 0; {
		var k, v string
		var ok bool
		if k, b, ok = cutString(b); !ok {
			return 0, nil, errMeta
		}
		if v, b, ok = cutString(b); !ok {
			return 0, nil, errMeta
		}
		tags[k] = v
	}
	if id := tags[membership.TagID]; id == "" || len(id) > maxName {
		return 0, nil, errMeta
	}
	return life, tags, nil
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
