package view

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"slices"
	"time"

	"meibo/cluster/catalog"
)

// This file reads what programs wrote before exports went in feed's frames: the
// view file of version 1, which is the last known good of a host whose package has
// just been upgraded, and the answer of a neighbour that has not been upgraded
// yet. Nothing is written in this form. It can go with the release after the one
// from which on no host is upgraded from such a program in one step any more
// (files are written anew within 30 s of the upgrade); ProtocolV1 goes with it.
//
// An export was a magic line, a version octet, records, and the CRC32C of all
// that. A record was its kind, the length of its body (32 bits, big endian) and
// the body, in the dialect of the catalog's snapshots.
const (
	magicV1 = "meibo view\n"
	// ProtocolV1 is the name under which AskNeighbourV1's connections are dialled.
	ProtocolV1 = "meibo-view/1"
)

// Kinds of records.
const (
	endV1   = 0
	layerV1 = 1 // what follows belongs to it
	nodeV1  = 2
	nameV1  = 3
	partV1  = 4
	askedV1 = 5
	lifeV1  = 6
	tombV1  = 7
)

// openV1 reads a sealed file of version 1: after its version octet the length of
// whose it is (16 bits), that, its CRC32C, an export, the HMAC.
func openV1(b []byte, keys [][]byte) (*Export, owner, error) {
	damaged := func(why string) (*Export, owner, error) {
		return nil, owner{}, fmt.Errorf("view file: %w: %s", ErrDamaged, why)
	}
	rest := b[len(sealMagic)+1 : len(b)-sealSize+crc32.Size]
	n := int(binary.BigEndian.Uint16(rest))
	if rest = rest[2:]; n+crc32.Size > len(rest) {
		return damaged("whose it is cannot be read")
	}
	if binary.BigEndian.Uint32(rest[n:]) != crc32.Checksum(rest[:n], castagnoli) {
		return damaged("whose it is has a wrong checksum")
	}
	var of struct {
		NodeID     string `codec:"N"`
		Datacenter string `codec:"D"`
		At         int64  `codec:"W"`
	}
	if err := catalog.DecodeRecord(rest[:n], &of); err != nil {
		return damaged(err.Error())
	}
	e, err := decodeV1(rest[n+crc32.Size:])
	if err == nil {
		err = checkSeal(b, keys)
	}
	if err != nil {
		return nil, owner{}, err
	}
	return e, owner{of.NodeID, of.Datacenter, timeV1(of.At)}, nil
}

// AskNeighbourV1 is AskNeighbour for a neighbour that speaks ProtocolV1 alone.
func AskNeighbourV1(ctx context.Context, conn net.Conn, name string) (*Export, error) {
	return askOver(ctx, conn, func() (*Export, error) {
		question := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
		if _, err := conn.Write(append(question, name...)); err != nil {
			return nil, err
		}
		var length [4]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return nil, err
		}
		n := int64(binary.BigEndian.Uint32(length[:]))
		switch {
		case n == 0:
			return nil, ErrKnowsNothing
		case n > MaxExport:
			return nil, fmt.Errorf("an answer of %d bytes, more than %d", n, MaxExport)
		}
		b, err := io.ReadAll(io.LimitReader(conn, n))
		if err != nil {
			return nil, err
		}
		return decodeV1(b)
	})
}

func decodeV1(b []byte) (*Export, error) {
	const start = len(magicV1) + 1
	if len(b) < start+crc32.Size || string(b[:start]) != magicV1+"\x01" {
		return nil, fmt.Errorf("decode view of version 1: %w: it does not begin as one", ErrDamaged)
	}
	body, sum := b[:len(b)-crc32.Size], b[len(b)-crc32.Size:]
	if binary.BigEndian.Uint32(sum) != crc32.Checksum(body, castagnoli) {
		return nil, fmt.Errorf("decode view of version 1: %w: wrong checksum", ErrDamaged)
	}
	r := readerV1{rest: body[start:], export: &Export{Asked: make(map[string]time.Time)}}
	if err := r.read(); err != nil {
		return nil, fmt.Errorf("decode view of version 1: %w: %w", ErrDamaged, err)
	}
	return r.export, nil
}

type readerV1 struct {
	rest   []byte
	export *Export
	layer  *Layer // that the records belong to
}

func (r *readerV1) read() error {
	for {
		if len(r.rest) < 5 {
			return errors.New("it has no end")
		}
		kind, n := r.rest[0], binary.BigEndian.Uint32(r.rest[1:])
		if uint64(n) > uint64(len(r.rest)-5) {
			return fmt.Errorf("a record's length is %d, of %d bytes left", n, len(r.rest)-5)
		}
		body := r.rest[5 : 5+n]
		if r.rest = r.rest[5+n:]; kind == endV1 {
			return nil
		}
		if r.layer == nil && kind != layerV1 {
			return fmt.Errorf("kind %d belongs to nothing", kind)
		}
		if err := r.add(kind, body); err != nil {
			return err
		}
	}
}

func (r *readerV1) add(kind byte, body []byte) error {
	switch kind {
	case layerV1:
		return rowV1(body, r.addLayer)
	case nodeV1:
		return rowV1(body, func(row *struct {
			Node      *catalog.Node       `codec:"N"`
			Checks    []*catalog.Check    `codec:"C"`
			Addresses []catalog.AddressOf `codec:"A"`
		},
		) error {
			r.layer.Nodes = append(r.layer.Nodes, catalog.NodeState(*row))
			return errorIf(row.Node == nil || slices.Contains(row.Checks, nil), "a node or check that is none")
		})
	case nameV1:
		return rowV1(body, func(row *struct {
			Name     string `codec:"N"`
			Exists   bool   `codec:"E"`
			Complete bool   `codec:"C"`
		},
		) error {
			if row.Exists {
				r.layer.Names = append(r.layer.Names, row.Name)
			}
			if row.Complete {
				r.layer.Complete = append(r.layer.Complete, row.Name)
			}
			return nil
		})
	case partV1:
		return rowV1(body, func(row *struct {
			Node     string             `codec:"N"`
			Service  string             `codec:"S"`
			Services []*catalog.Service `codec:"I"`
			Checks   []*catalog.Check   `codec:"C"`
		},
		) error {
			r.layer.Parts = append(r.layer.Parts, catalog.Part(*row))
			return errorIf(slices.Contains(row.Services, nil) || slices.Contains(row.Checks, nil), "a service or check that is none")
		})
	case tombV1:
		return rowV1(body, func(row *catalog.Tombstone) error {
			r.layer.Tombstones = append(r.layer.Tombstones, *row)
			return nil
		})
	case askedV1:
		return rowV1(body, func(row *struct {
			Name string `codec:"N"`
			At   int64  `codec:"A"`
		},
		) error {
			r.export.Asked[row.Name] = timeV1(row.At)
			return nil
		})
	case lifeV1:
		return rowV1(body, func(row *struct {
			NodeID string       `codec:"I"`
			Name   string       `codec:"N"`
			Life   catalog.Life `codec:"L"`
			Since  int64        `codec:"S"`
		},
		) error {
			r.export.Lives = append(r.export.Lives, LifeOf{row.NodeID, row.Name, row.Life, timeV1(row.Since)})
			return errorIf(row.Life >= numLives, "a life that is none")
		})
	}
	return fmt.Errorf("kind %d is unknown", kind)
}

func rowV1[T any](body []byte, add func(*T) error) error {
	row := new(T)
	if err := catalog.DecodeRecord(body, row); err != nil {
		return err
	}
	return add(row)
}

func errorIf(is bool, text string) error {
	if is {
		return errors.New(text)
	}
	return nil
}

func (r *readerV1) addLayer(row *struct {
	Remembered bool            `codec:"R"`
	History    catalog.History `codec:"H"`
	Index      uint64          `codec:"I"`
	Confirmed  int64           `codec:"C"` // Unix nanoseconds, as all times
	Base       bool            `codec:"B"`
	Whole      bool            `codec:"W"`
},
) error {
	if r.layer = &r.export.Current; row.Remembered {
		r.layer = &r.export.Remembered
	}
	r.layer.History, r.layer.Index, r.layer.ConfirmedAt = row.History, row.Index, timeV1(row.Confirmed)
	r.layer.Reset, r.layer.Whole = row.Base, row.Whole
	return nil
}

func timeV1(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}
