package view

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"meibo/cluster/feed/frame"
)

// A sealed file is a magic line, a version octet, and frames: one that says whose
// the file is, then those of an export. After them come the CRC32C of all that,
// so that damage is told from another's file, and the HMAC-SHA256 of all that under
// a key made of the gossip key.
const (
	sealMagic   = "meibo view file\n"
	sealVersion = 2
	sealSize    = crc32.Size + sha256.Size
	maxOwner    = 4 << 10
	maxSealed   = MaxExport + maxOwner
	// sealInfo tells the derived key apart from others made of the same one.
	sealInfo = "meibo view file v1"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// owner says whose a sealed file is.
type owner struct {
	NodeID, Datacenter string
	Written            time.Time
}

// errNoKey says that no key of the ring sealed the file.
var errNoKey = errors.New("no key of this host's gossip keyring fits: it is of another cluster, or its key has been removed")

// sealOf returns the HMAC under a key of gossip, to be fed. Without a key (hosts
// that gossip in the clear) it guards against mistakes, not against people.
func sealOf(key []byte) (hash.Hash, error) {
	derived, err := hkdf.Key(sha256.New, key, nil, sealInfo, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive the view file's key: %w", err)
	}
	return hmac.New(sha256.New, derived), nil
}

// seal writes the sealed file of an export, under key.
func seal(to io.Writer, e *Export, of owner, key []byte) error {
	whose := frame.New(frame.Owner, func(f *frame.Encoder) {
		f.Strings(of.NodeID, of.Datacenter)
		f.Time(of.Written)
	})
	if len(whose) > maxOwner-128 {
		return fmt.Errorf("node ID and datacenter take %d bytes, more than %d", len(whose), maxOwner-128)
	}
	mac, err := sealOf(key)
	if err != nil {
		return err
	}
	sealed := io.MultiWriter(to, mac)
	sum := crc32.New(castagnoli)
	w := io.MultiWriter(sealed, sum)
	if _, err := w.Write(slices.Concat([]byte(sealMagic), []byte{sealVersion}, whose)); err != nil {
		return err
	}
	if err := e.encode(w); err != nil {
		return err
	}
	if _, err := sealed.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32())); err != nil {
		return err
	}
	_, err = to.Write(mac.Sum(nil))
	return err
}

// open reads what seal wrote under one of the keys. The error is errNoKey, or
// has ErrDamaged in its chain, unless a newer program wrote the file.
func open(b []byte, keys [][]byte) (*Export, owner, error) {
	if len(b) < len(sealMagic)+1+sealSize || string(b[:len(sealMagic)]) != sealMagic {
		return nil, owner{}, fmt.Errorf("view file: %w: it does not begin as one", ErrDamaged)
	}
	version, frames := b[len(sealMagic)], b[len(sealMagic)+1:len(b)-sealSize]
	switch version {
	case 1:
		return openV1(b, keys)
	case sealVersion:
	default:
		return nil, owner{}, fmt.Errorf("view file: version %d is unknown (this program knows %d)", version, sealVersion)
	}
	summed := len(b) - sealSize
	if binary.BigEndian.Uint32(b[summed:]) != crc32.Checksum(b[:summed], castagnoli) {
		return nil, owner{}, fmt.Errorf("view file: %w: wrong checksum", ErrDamaged)
	}
	if err := checkSeal(b, keys); err != nil {
		return nil, owner{}, err
	}
	r := bytes.NewReader(frames)
	of, err := readOwner(r)
	if err != nil {
		return nil, of, fmt.Errorf("view file: %w: %w", ErrDamaged, err)
	}
	e, err := readExport(r)
	if err == nil && r.Len() > 0 {
		err = fmt.Errorf("view file: %w: it does not end where it should", ErrDamaged)
	}
	return e, of, err
}

// checkSeal reports by its error whether none of the keys made the seal at the end
// of b.
func checkSeal(b []byte, keys [][]byte) error {
	sealed := b[:len(b)-sha256.Size]
	for _, key := range keys {
		mac, err := sealOf(key)
		if err != nil {
			return err
		}
		mac.Write(sealed)
		if hmac.Equal(mac.Sum(nil), b[len(sealed):]) {
			return nil
		}
	}
	return errNoKey
}

func readOwner(r io.Reader) (owner, error) {
	kind, payload, _, err := frame.Read(r, nil, maxOwner)
	if err == nil && kind != frame.Owner {
		err = fmt.Errorf("the first frame is of kind %d: want one that says whose it is", kind)
	}
	if err != nil {
		return owner{}, err
	}
	f := frame.NewFields(payload)
	return owner{NodeID: f.String(), Datacenter: f.String(), Written: f.Time()}, f.Err()
}

// readBounded reads a file; one of more than limit bytes is no file of ours.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrDamaged, limit)
	}
	return b, nil
}

// globQuote is path as a pattern that matches itself.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
