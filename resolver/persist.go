package resolver

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"meibo/cache"
	"meibo/resolver/wire"
)

// Lasting is what an Upstream may implement besides: Identity tells, over restarts too,
// which servers answer for it and how they are asked. Saved answers of others don't
// count. It must not block.
type Lasting interface{ Identity() string }

const (
	savedMagic = "meibo answers 1\n"
	// maxSaved bounds one saved answer: the largest message, and what stands beside it.
	maxSaved = 1<<16 + 4096
)

// Flags of a saved answer.
const (
	savedDO = 1 << iota
	savedCD
	savedAD
	savedNegative
	savedNameError
)

var errNotSaved = errors.New("not a file of saved answers, or damaged")

// Save writes the forwarded answers that are in the cache, expired ones included, for
// Load to take them up after a restart, and returns how many. It may be called
// concurrently with questions.
func (r *Resolver) Save(w io.Writer) (n int, err error) {
	sum := crc32.NewIEEE()
	out := bufio.NewWriter(io.MultiWriter(w, sum))
	out.WriteString(savedMagic)
	identities := map[string][8]byte{} // by mount
	for _, ms := range r.table.Load().bySuffix {
		for _, m := range ms {
			if id, ok := identity(m); ok {
				identities[m.Name] = id
			}
		}
	}
	wall, now := time.Now(), r.now()
	var rec []byte
	r.cfg.Cache.Range(func(q *wire.Query, e *cache.Entry) bool {
		id, ok := identities[e.Mount]
		if !ok || !e.Forwarded || e.Transient || e.Expires == 0 || e.Moved() {
			return true
		}
		rec = appendSaved(rec[:0], q, e, wall.Add(e.Stored-now), id)
		if len(rec) > maxSaved {
			return true
		}
		n++
		out.Write(binary.AppendUvarint(nil, uint64(len(rec))))
		_, err = out.Write(rec)
		return err == nil
	})
	out.WriteByte(0) // no more
	if err := errors.Join(err, out.Flush()); err != nil {
		return 0, err
	}
	_, err = w.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32()))
	return n, err
}

// identity is what is kept of a mount's Lasting.Identity, with its suffix.
func identity(m *Mount) (id [8]byte, ok bool) {
	l, ok := m.Upstream.(Lasting)
	if !ok {
		return id, false
	}
	sum := sha256.Sum256([]byte(string(m.Suffix.Lower()) + l.Identity()))
	return [8]byte(sum[:8]), true
}

func appendSaved(b []byte, q *wire.Query, e *cache.Entry, stored time.Time, id [8]byte) []byte {
	flags := byte(0)
	for i, is := range []bool{q.DO, q.CD, e.AD, e.Negative, e.NameError} {
		if is {
			flags |= 1 << i
		}
	}
	b = append(b, flags)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint16(b, q.Type)
	b = binary.BigEndian.AppendUint64(b, uint64(stored.UnixMilli()))
	b = binary.BigEndian.AppendUint64(b, uint64((e.Expires - e.Stored).Milliseconds()))
	b = binary.BigEndian.AppendUint16(b, e.EDE)
	b = appendText(b, string(q.Name()))
	b = appendText(b, e.Source)
	b = appendText(b, e.EDEText)
	whole := wire.NewQuery(wire.Name(q.Name()), q.Type)
	whole.TCP, whole.EDNS = true, e.Answer.EDNS() // nothing is cut
	return e.Answer.Append(b, whole, wire.Render{})
}

func appendText(b []byte, s string) []byte {
	s = s[:min(len(s), 1024)]
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// Load takes up what Save wrote, as far as the present table has the same servers for a
// name, and returns how many answers. Their lives have gone on meanwhile. It takes
// nothing of a file that is damaged.
func (r *Resolver) Load(rd io.Reader) (n int, err error) {
	sum := crc32.NewIEEE()
	in := bufio.NewReader(rd)
	next := func(size uint64) ([]byte, error) {
		b := make([]byte, size)
		if _, err := io.ReadFull(in, b); err != nil {
			return nil, errNotSaved
		}
		sum.Write(b)
		return b, nil
	}
	if head, err := next(uint64(len(savedMagic))); err != nil || string(head) != savedMagic {
		return 0, errNotSaved
	}
	var recs [][]byte
	for {
		size, err := binary.ReadUvarint(in)
		if err != nil || size > maxSaved {
			return 0, errNotSaved
		}
		sum.Write(binary.AppendUvarint(nil, size))
		if size == 0 {
			break
		}
		rec, err := next(size)
		if err != nil {
			return 0, err
		}
		recs = append(recs, rec)
	}
	var end [4]byte
	if _, err := io.ReadFull(in, end[:]); err != nil || binary.BigEndian.Uint32(end[:]) != sum.Sum32() {
		return 0, errNotSaved
	}
	for i, rec := range recs {
		taken, err := r.restoreAnswer(rec)
		if err != nil {
			return n, fmt.Errorf("saved answer %d: %w", i+1, err)
		}
		if taken {
			n++
		}
		recs[i] = nil
	}
	return n, nil
}

// restoreAnswer puts one saved answer into the cache; false: it doesn't count any more.
func (r *Resolver) restoreAnswer(b []byte) (bool, error) {
	const fixed = 1 + 8 + 2 + 8 + 8 + 2
	if len(b) < fixed {
		return false, errNotSaved
	}
	flags, id, typ := b[0], [8]byte(b[1:9]), binary.BigEndian.Uint16(b[9:])
	stored := time.UnixMilli(int64(binary.BigEndian.Uint64(b[11:])))
	life := time.Duration(binary.BigEndian.Uint64(b[19:])) * time.Millisecond
	e := &cache.Entry{
		Ages: true, Forwarded: true, AD: flags&savedAD != 0, Negative: flags&savedNegative != 0, NameError: flags&savedNameError != 0,
		Origin: &cache.Origin{EDE: binary.BigEndian.Uint16(b[27:])},
	}
	b = b[fixed:]
	var name string
	for _, to := range []*string{&name, &e.Source, &e.EDEText} {
		var ok bool
		if *to, b, ok = cutText(b); !ok {
			return false, errNotSaved
		}
	}
	if !wire.Name(name).IsValid() || life <= 0 || life > r.cfg.MaxTTL {
		return false, errNotSaved
	}
	var err error
	if e.Answer, err = wire.ParseAnswer(b); err != nil {
		return false, err
	}
	q := wire.NewQuery(wire.Name(name).Lower(), typ)
	q.DO, q.CD = flags&savedDO != 0, flags&savedCD != 0
	if !e.Answer.Matches(q) {
		return false, errNotSaved
	}
	return r.restore(q, e, id, stored, life), nil
}

func cutText(b []byte) (s string, rest []byte, ok bool) {
	if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
		return "", nil, false
	}
	n := 2 + int(binary.BigEndian.Uint16(b))
	return string(b[2:n]), b[n:], true
}

// restore stores e as if it had been in the cache all the time, where the same servers
// would be asked today and nobody else has come to know the name.
func (r *Resolver) restore(q *wire.Query, e *cache.Entry, id [8]byte, stored time.Time, life time.Duration) bool {
	mark := r.cfg.Cache.Mark(q)
	now := r.now()
	age := time.Since(stored)
	if age < 0 {
		age = life // the clock was put back: good enough to stand in for a dead upstream
	}
	e.Stored = now - age
	if e.Expires = e.Stored + life; e.Expires == 0 {
		e.Expires = -1 // 0 means for ever
	}
	var p passed
	var buf [8]*Mount
	for _, m := range r.table.Load().appendCandidates(buf[:0], q) {
		if m.Upstream == nil {
			res, outcome := m.Zone.Answer(q)
			if outcome != NotMine {
				return false
			}
			p.by(&res)
			continue
		}
		e.Deps, e.Mount = [3]cache.Dep{{Counter: m.Route, Value: m.Route.Load()}, p.dep}, m.Name
		have, ok := identity(m)
		_, filtered := r.unasked(m, q, p, now)
		if !ok || have != id || filtered || r.screen(m, q, e, now) != e {
			return false
		}
		r.cfg.Cache.Put(q, e, mark)
		return true
	}
	return false
}
