package consensus

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/hashicorp/raft"
)

// guard stands between Raft and its stores. Raft panics on some of their
// errors, and bbolt panics, or faults, on damaged files; either would end the
// process. So a fault is reported, once, and the call that met it is held
// until Raft has been told to shut down. Then the goroutine ends in the call:
// Raft's goroutines may end anywhere, their deferred functions answer what is
// still open, and none of them gets to act on a write that did not happen.
type guard struct {
	fault    chan error    // holds the first fault
	released chan struct{} // closed when Raft has been told to shut down
}

func newGuard() *guard {
	return &guard{fault: make(chan error, 1), released: make(chan struct{})}
}

// report makes Run return with err. The first report counts.
func (g *guard) report(err error) {
	select {
	case g.fault <- err:
	default:
	}
}

// call runs f, an access to a store. It returns nil, and errors that are
// answers; after any other it doesn't return.
func (g *guard) call(what string, f func() error) error {
	err := protect(f)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, errNotFound) {
		return err
	}
	err = fmt.Errorf("%s: %w", what, err)
	g.report(err)
	<-g.released
	runtime.Goexit()
	panic("unreachable")
}

// protect turns panics and memory faults in f into errors that are
// [ErrDamaged]: a mapped file that was cut short faults, and bbolt checks
// some of its pages by panicking.
func protect(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return f()
}

// guarded is a pair of stores behind a guard.
type guarded struct {
	g      *guard
	log    raft.LogStore
	stable raft.StableStore
}

// IsMonotonic implements raft.MonotonicLogStore.
func (s *guarded) IsMonotonic() bool {
	m, ok := s.log.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// FirstIndex implements raft.LogStore.
func (s *guarded) FirstIndex() (index uint64, err error) {
	err = s.g.call("read the first index of the raft log", func() (err error) { index, err = s.log.FirstIndex(); return err })
	return index, err
}

// LastIndex implements raft.LogStore.
func (s *guarded) LastIndex() (index uint64, err error) {
	err = s.g.call("read the last index of the raft log", func() (err error) { index, err = s.log.LastIndex(); return err })
	return index, err
}

// GetLog implements raft.LogStore.
func (s *guarded) GetLog(index uint64, l *raft.Log) error {
	return s.g.call("read the raft log", func() error { return s.log.GetLog(index, l) })
}

// StoreLog implements raft.LogStore.
func (s *guarded) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (s *guarded) StoreLogs(logs []*raft.Log) error {
	return s.g.call("write the raft log", func() error { return s.log.StoreLogs(logs) })
}

// DeleteRange implements raft.LogStore.
func (s *guarded) DeleteRange(lo, hi uint64) error {
	return s.g.call("cut the raft log", func() error { return s.log.DeleteRange(lo, hi) })
}

// Set implements raft.StableStore.
func (s *guarded) Set(key, value []byte) error {
	return s.g.call("write raft's vote", func() error { return s.stable.Set(key, value) })
}

// Get implements raft.StableStore.
func (s *guarded) Get(key []byte) (value []byte, err error) {
	err = s.g.call("read raft's vote", func() (err error) { value, err = s.stable.Get(key); return answer(err) })
	return value, err
}

// SetUint64 implements raft.StableStore.
func (s *guarded) SetUint64(key []byte, value uint64) error {
	return s.g.call("write raft's term", func() error { return s.stable.SetUint64(key, value) })
}

// GetUint64 implements raft.StableStore.
func (s *guarded) GetUint64(key []byte) (value uint64, err error) {
	err = s.g.call("read raft's term", func() (err error) { value, err = s.stable.GetUint64(key); return answer(err) })
	return value, err
}

// errNotFound is the answer to a key that was never set. Raft knows it by
// its text, and raft's own stores have one of the same text.
var errNotFound = errors.New("not found")

func answer(err error) error {
	if err != nil && err.Error() == errNotFound.Error() {
		return errNotFound
	}
	return err
}
