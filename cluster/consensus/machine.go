package consensus

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// unapplied is the reply to an entry that came after the state machine gave
// up: it is in the log, but this replica never carried it out.
type unapplied struct{}

// machine runs the state machine for Raft. It takes batches because Raft
// answers a single entry even when Apply ended its goroutine.
type machine struct {
	sm            StateMachine
	guard         *guard
	applied       *atomic.Uint64
	committedConf *committedConfiguration
	stopped       bool // owned by Raft's FSM goroutine
}

// Apply implements raft.FSM.
func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	replies := make([]any, len(logs))
	for i, l := range logs {
		replies[i] = m.applyOne(l)
	}
	return replies
}

func (m *machine) applyOne(l *raft.Log) (reply any) {
	if m.stopped {
		return unapplied{}
	}
	switch l.Type {
	case raft.LogConfiguration:
		m.committedConf.record(l.Index, raft.DecodeConfiguration(l.Data))
	case raft.LogCommand:
		var err error
		if reply, err = m.try(l); err != nil {
			m.stopped = true
			m.guard.report(fmt.Errorf("state machine: %w", err))
			return unapplied{}
		}
	}
	m.applied.Store(l.Index)
	return reply
}

func (m *machine) try(l *raft.Log) (reply any, err error) {
	defer recoverInto(&err)
	return m.sm.Apply(l.Index, l.Data), nil
}

func recoverInto(err *error) {
	switch p := recover().(type) {
	case nil:
	case error:
		*err = p
	default:
		*err = fmt.Errorf("panic: %v", p)
	}
}

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (s raft.FSMSnapshot, err error) {
	defer recoverInto(&err)
	if m.stopped {
		return nil, fmt.Errorf("state machine has stopped")
	}
	return snapshot{m.sm.Snapshot()}, nil
}

// Restore implements raft.FSM. Raft would try an older snapshot, or the same
// again, and not say what was wrong.
func (m *machine) Restore(src io.ReadCloser) (err error) {
	defer func() {
		if err != nil {
			m.guard.report(err)
		}
	}()
	defer recoverInto(&err)
	return m.sm.Restore(src)
}

type snapshot struct{ state io.WriterTo }

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.write(sink); err != nil {
		_ = sink.Cancel() // err says what was wrong
		return fmt.Errorf("write snapshot %s: %w", sink.ID(), err)
	}
	return sink.Close()
}

func (s snapshot) write(sink raft.SnapshotSink) (err error) {
	defer recoverInto(&err)
	_, err = s.state.WriteTo(sink)
	return err
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}

// notedSnapshots takes down the configurations that come with snapshots: they
// are committed.
type notedSnapshots struct {
	raft.SnapshotStore
	committedConf *committedConfiguration
}

// Create implements raft.SnapshotStore.
func (s notedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	s.committedConf.record(confIndex, conf)
	return s.SnapshotStore.Create(version, index, term, conf, confIndex, t)
}

// recordNewest takes down that of the newest snapshot.
func (s notedSnapshots) recordNewest() error {
	list, err := s.List()
	if err != nil || len(list) == 0 {
		return err
	}
	s.committedConf.record(list[0].ConfigurationIndex, list[0].Configuration)
	return nil
}
