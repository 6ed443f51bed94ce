package view

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"meibo/cluster/catalog"
)

// A sealed image is a magic line, a version octet, whose it is, the encoded
// image, and the HMAC-SHA256 of all that under a key made of the gossip key.
// Whose it is: the length (16 bits, big endian), the body, and the CRC32C of the
// body, so that damage is told from another's file.
const (
	sealMagic   = "meibo view file\n"
	sealVersion = 1
	maxHead     = 4 << 10
	maxSealed   = MaxImage + maxHead
	// sealInfo tells the derived key apart from others made of the same one.
	sealInfo = "meibo view file v1"
)

// sealHead says whose an image is.
type sealHead struct {
	NodeID     string    `codec:"N"`
	Datacenter string    `codec:"D"`
	Written    time.Time `codec:"-"`
	At         int64     `codec:"W"` // Written as Unix nanoseconds
}

// errNoKey says that no key of the ring sealed the file.
var errNoKey = errors.New("no key of this host's gossip keyring fits: it is of another cluster, or its key has been removed")

// sealer is the HMAC under a key of gossip. Without a key (hosts that gossip in
// the clear) it guards against mistakes, not against people.
func sealer(key []byte) (func(b []byte) []byte, error) {
	derived, err := hkdf.Key(sha256.New, key, nil, sealInfo, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive the view file's key: %w", err)
	}
	return func(b []byte) []byte {
		mac := hmac.New(sha256.New, derived)
		mac.Write(b)
		return mac.Sum(nil)
	}, nil
}

// seal encodes img with whose it is, under key.
func seal(img *Image, head sealHead, key []byte) ([]byte, error) {
	body, err := img.MarshalBinary()
	if err != nil {
		return nil, err
	}
	sum, err := sealer(key)
	if err != nil {
		return nil, err
	}
	head.At = nanos(head.Written)
	var h bytes.Buffer
	if err := catalog.EncodeRecord(&h, &head); err != nil {
		return nil, fmt.Errorf("encode whose view it is: %w", err)
	}
	if h.Len() > maxHead-64 {
		return nil, fmt.Errorf("node ID and datacenter take %d bytes, more than %d", h.Len(), maxHead-64)
	}
	b := append([]byte(sealMagic), sealVersion)
	b = binary.BigEndian.AppendUint16(b, uint16(h.Len()))
	b = append(b, h.Bytes()...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(h.Bytes(), castagnoli))
	b = append(b, body...)
	return append(b, sum(b)...), nil
}

// open reads what seal wrote under one of the keys. The error is errNoKey, or
// has ErrDamaged in its chain, unless a newer program wrote the file.
func open(b []byte, keys [][]byte) (*Image, sealHead, error) {
	head, body, err := openHead(b)
	if err != nil {
		return nil, head, err
	}
	img := new(Image)
	if err := img.UnmarshalBinary(body); err != nil {
		return nil, head, err
	}
	sealed := b[:len(b)-sha256.Size]
	for _, key := range keys {
		sum, err := sealer(key)
		if err != nil {
			return nil, head, err
		}
		if hmac.Equal(sum(sealed), b[len(sealed):]) {
			return img, head, nil
		}
	}
	return nil, head, errNoKey
}

// openHead reads whose a file is, and returns the encoded image.
func openHead(b []byte) (head sealHead, body []byte, err error) {
	const fixed = len(sealMagic) + 3 + crc32.Size + sha256.Size
	damaged := func(why string) (sealHead, []byte, error) {
		return sealHead{}, nil, fmt.Errorf("view file: %w: %s", ErrDamaged, why)
	}
	if len(b) < fixed || string(b[:len(sealMagic)]) != sealMagic {
		return damaged("it does not begin as one")
	}
	if v := b[len(sealMagic)]; v != sealVersion {
		return sealHead{}, nil, fmt.Errorf("view file: version %d is unknown (this program knows %d)", v, sealVersion)
	}
	rest := b[len(sealMagic)+1 : len(b)-sha256.Size]
	n := int(binary.BigEndian.Uint16(rest))
	if rest = rest[2:]; n > maxHead || n+crc32.Size > len(rest) {
		return damaged("whose it is cannot be read")
	}
	if binary.BigEndian.Uint32(rest[n:]) != crc32.Checksum(rest[:n], castagnoli) {
		return damaged("whose it is has a wrong checksum")
	}
	if err := catalog.DecodeRecord(rest[:n], &head); err != nil {
		return damaged(err.Error())
	}
	head.Written = timeOf(head.At)
	return head, rest[n+crc32.Size:], nil
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

// replaceFile puts b in the place of the file, for this user alone: after a
// crash there is the old or the new, whole.
func replaceFile(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".new-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

// syncDir makes a rename last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// globQuote is path as a pattern that matches itself.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
