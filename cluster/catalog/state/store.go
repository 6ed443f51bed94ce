// Package state is the catalog's state machine: commands in, tables of
// nodes, services and checks out.
//
// It is deterministic. Of two stores that applied the same commands, snapshots
// are equal octet by octet: it reads no clock (time is data in commands),
// draws no random numbers, and no map's order shows. Reads are on snapshots
// (MVCC) and never wait for writes. Each read has the index of its own
// result, which moves when that result changes and not otherwise; a write
// that changes nothing moves none. Watches are closed when a result that was
// read may have changed.
//
// The package must know nothing of Raft, networks, disks, or logs, and keeps
// no goroutine.
package state

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"

	"meibo/cluster/catalog"
)

// Bounds of what the store remembers beside the catalog itself. The oldest
// goes first; both are part of the state machine, so all replicas of a
// cluster need the same values.
const (
	maxRequests   = 65536
	maxTombstones = 8192
)

// Store holds the catalog. Apply and Restore must not be called concurrently
// with each other; everything else is safe at any time.
type Store struct {
	db   atomic.Pointer[database]
	feed feed
	// apply guards against a second caller of Apply or Restore, which would
	// be a bug of the caller, at the price of an uncontended lock.
	apply sync.Mutex
}

// database is one life of the tables, from an empty one or a restore.
type database struct {
	mem *memdb.MemDB
	// replaced is closed when another database has taken this one's place, a new
	// history began, or the store was closed: every result may differ.
	replaced chan struct{}
}

// New returns an empty store: no history, nothing applied.
func New() *Store {
	s := new(Store)
	s.db.Store(&database{mem: newMemDB(), replaced: make(chan struct{})})
	return s
}

func newMemDB() *memdb.MemDB {
	mem, err := memdb.NewMemDB(newSchema())
	if err != nil {
		panic(fmt.Errorf("catalog schema: %w", err)) // a mistake in schema.go
	}
	return mem
}

// Apply carries out the command that the log holds at index and returns its
// reply: nil, or a *[catalog.Error] when the command was refused. It panics
// when the log cannot be followed: bytes that are no command, a command that
// only a newer program knows, an index that doesn't rise. The panic's value
// is an error that says so.
func (s *Store) Apply(index uint64, cmd []byte) any {
	s.apply.Lock()
	defer s.apply.Unlock()
	c, err := catalog.Decode(cmd)
	if err != nil {
		panic(fmt.Errorf("apply log entry %d: %w", index, err))
	}
	db := s.db.Load()
	w := begin(db.mem, index, c.Time.UnixNano())
	defer w.tx.Abort() // does nothing after Commit
	reply := w.run(c)
	w.tx.Commit()
	if w.change.History {
		s.replace(db.mem)
	}
	s.feed.publish(w.change)
	if reply == nil {
		return nil
	}
	return reply
}

// replace makes mem the current tables and wakes all watchers.
func (s *Store) replace(mem *memdb.MemDB) {
	old := s.db.Swap(&database{mem: mem, replaced: make(chan struct{})})
	close(old.replaced)
}

// Close wakes all watches: nothing more will be applied here, and who waits for a
// change is to ask elsewhere. What the store holds can still be read; watches on
// that are woken by another Close.
func (s *Store) Close() {
	s.apply.Lock()
	defer s.apply.Unlock()
	s.replace(s.db.Load().mem)
}

// writer is one command being carried out.
type writer struct {
	tx     *memdb.Txn
	meta   metaRow
	index  uint64 // as clients see it
	change Change
}

func begin(mem *memdb.MemDB, index uint64, clock int64) *writer {
	w := &writer{tx: mem.Txn(true)}
	w.meta = loadMeta(w.tx)
	if index <= w.meta.Applied {
		w.tx.Abort()
		panic(fmt.Errorf("apply log entry %d: entry %d was applied before; a log needs a store of its own", index, w.meta.Applied))
	}
	w.meta.Applied = index
	w.meta.Clock = max(w.meta.Clock, clock)
	w.index = w.meta.History.Base + index
	w.meta.Last = max(w.meta.Last, w.index)
	w.change.Index = index
	return w
}

func loadMeta(tx *memdb.Txn) metaRow {
	if row := first(tx, tableMeta, byID, key("meta")); row != nil {
		return *row.(*metaRow)
	}
	return metaRow{}
}

// run carries out the command, or finds the reply it had before. A refused
// command leaves no trace but its reply.
func (w *writer) run(c catalog.Command) *catalog.Error {
	w.expireRequests()
	if known := w.findRequest(c.Request); known != nil {
		w.insert(tableMeta, &w.meta)
		return known.Err
	}
	reply := w.attempt(c.Body)
	w.rememberRequest(c.Request, reply)
	w.insert(tableMeta, &w.meta)
	return reply
}

// attempt carries out the body, all of it or nothing. Bodies check before
// they change, so that nothing needs to be taken back.
func (w *writer) attempt(body catalog.Body) *catalog.Error {
	if r, ok := body.(*catalog.Register); ok {
		r.Normalize()
	}
	if err := body.Validate(); err != nil {
		return &catalog.Error{Text: err.Error()}
	}
	var err error
	switch b := body.(type) {
	case *catalog.Register:
		err = w.register(b)
	case *catalog.Deregister:
		w.deregister(b)
	case *catalog.BeginHistory:
		err = w.beginHistory(b)
	case *catalog.MarkSynced:
		err = w.markSynced(b)
	case *catalog.Forget:
		w.forget(b)
	case *catalog.SetAutopilot:
		err = w.setAutopilot(b)
	default:
		panic(fmt.Errorf("apply log entry %d: no rule for command type %d", w.meta.Applied, body.Type()))
	}
	if err != nil {
		return &catalog.Error{Text: err.Error()}
	}
	return nil
}

// insert and remove panic on errors of go-memdb, which come from mistakes in
// the schema alone; a replica must not go on after one.
func (w *writer) insert(table string, row any) {
	w.noteRecord(row)
	if err := w.tx.Insert(table, row); err != nil {
		panic(fmt.Errorf("apply log entry %d: insert into %s: %w", w.meta.Applied, table, err))
	}
}

func (w *writer) remove(table string, row any) {
	w.noteRecord(row)
	if err := w.tx.Delete(table, row); err != nil {
		panic(fmt.Errorf("apply log entry %d: delete from %s: %w", w.meta.Applied, table, err))
	}
}

// noteRecord tells the feed of which node a row is part.
func (w *writer) noteRecord(row any) {
	switch row := row.(type) {
	case *catalog.Node:
		w.change.addRecord(row.Node)
	case *catalog.Service:
		w.change.addRecord(row.Node)
	case *catalog.Check:
		w.change.addRecord(row.Node)
	}
}

func first(tx *memdb.Txn, table, index string, k []byte) any {
	row, err := tx.First(table, index, k)
	if err != nil {
		panic(fmt.Errorf("read %s by %s: %w", table, index, err))
	}
	return row
}

// collect returns the rows under key k of the index, in the order of keys.
// The result stays good while the caller changes the table.
func collect[T any](tx *memdb.Txn, table, index string, k []byte) []T {
	it, err := tx.Get(table, index, k)
	if err != nil {
		panic(fmt.Errorf("read %s by %s: %w", table, index, err))
	}
	var rows []T
	for row := it.Next(); row != nil; row = it.Next() {
		rows = append(rows, row.(T))
	}
	return rows
}

// all returns every row of the table in the order of its keys.
func all[T any](tx *memdb.Txn, table string) []T {
	return collect[T](tx, table, byID+"_prefix", []byte{})
}
