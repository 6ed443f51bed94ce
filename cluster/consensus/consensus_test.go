package consensus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

// Tests that need a process of their own run this binary again, which looks
// at these variables before it looks for tests.
const (
	helperMode = "CONSENSUS_TEST_HELPER"
	helperDir  = "CONSENSUS_TEST_DIR"
)

var helper func(mode, dir string) int

func TestMain(m *testing.M) {
	if mode := os.Getenv(helperMode); mode != "" {
		os.Exit(helper(mode, os.Getenv(helperDir)))
	}
	goleak.VerifyTestMain(m)
}

// list is a state machine that remembers its entries.
type list struct {
	mu      sync.Mutex // guards following
	entries []string
	index   uint64
	fail    func(cmd []byte) // may panic
}

func (l *list) Apply(index uint64, cmd []byte) any {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		l.fail(cmd)
	}
	l.entries, l.index = append(l.entries, string(cmd)), index
	return len(l.entries)
}

func (l *list) has(entry string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if e == entry {
			return true
		}
	}
	return false
}

func (l *list) Snapshot() io.WriterTo {
	l.mu.Lock()
	defer l.mu.Unlock()
	return listSnapshot(l.entries)
}

type listSnapshot []string

func (s listSnapshot) WriteTo(w io.Writer) (n int64, err error) {
	for _, e := range s {
		b := append(binary.BigEndian.AppendUint32(nil, uint32(len(e))), e...)
		m, err := w.Write(b)
		n += int64(m)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (l *list) Restore(r io.Reader) error {
	var entries []string
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		b := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		entries = append(entries, string(b))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = entries
	return nil
}

// running is a replica under test.
type running struct {
	*Replica
	t    testing.TB
	sm   *list
	stop context.CancelFunc
	done chan struct{}
	err  error // Run's, once done is closed
}

// run starts a replica of a cluster of one; the test's end stops it.
func run(t testing.TB, dir string, change func(*Config, *Replica)) *running {
	t.Helper()
	sm := new(list)
	cfg := Config{StateMachine: sm, ID: "one", Addr: "192.0.2.1:8300", Dir: dir, Bootstrap: true, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if change != nil {
		change(&cfg, nil)
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&cfg, r)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &running{Replica: r, t: t, sm: sm, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = r.Run(ctx)
	}()
	t.Cleanup(func() { stop(); <-p.done })
	return p
}

// end stops the replica and returns Run's error.
func (p *running) end() error {
	p.stop()
	<-p.done
	return p.err
}

// ended waits for Run to return by itself.
func (p *running) ended() error {
	p.t.Helper()
	select {
	case <-p.done:
		return p.err
	case <-time.After(30 * time.Second):
		p.t.Fatal("Run goes on")
		return nil
	}
}

func (p *running) awaitLeader() {
	p.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		l, changed := p.Leadership()
		if l.Leading {
			return
		}
		select {
		case <-changed:
		case <-p.done:
			p.t.Fatalf("Run ended: %v", p.err)
		case <-deadline:
			p.t.Fatal("no leader")
		}
	}
}

func (p *running) mustApply(entries ...string) {
	p.t.Helper()
	for _, e := range entries {
		if _, _, err := p.Apply(p.t.Context(), []byte(e)); err != nil {
			p.t.Fatalf("apply %q: %v", e, err)
		}
	}
}

func TestRun_LeadsAloneAndAppliesInMemoryAndOnDisk(t *testing.T) {
	for name, dir := range map[string]string{"memory": "", "disk": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			p := run(t, dir, nil)
			p.awaitLeader()
			t.Logf("led after %v", time.Since(start))
			reply, index, err := p.Apply(t.Context(), []byte("a"))
			if err != nil || reply != 1 || index == 0 {
				t.Errorf("apply: got %v, %d, %v", reply, index, err)
			}
			t.Logf("first write after %v", time.Since(start))
			if err := p.Barrier(t.Context()); err != nil {
				t.Errorf("barrier: %v", err)
			}
			if err := p.Verify(t.Context()); err != nil {
				t.Errorf("verify: %v", err)
			}
			if p.Applied() != p.sm.index || p.sm.index != index {
				t.Errorf("applied: got %d, want %d", p.Applied(), index)
			}
			if s := p.Servers(); len(s) != 1 || s[0] != (Server{ID: "one", Addr: "192.0.2.1:8300", Voter: true}) {
				t.Errorf("servers: got %v", s)
			}
			if err := p.end(); err != nil {
				t.Errorf("run: %v", err)
			}
			if _, _, err := p.Apply(t.Context(), nil); !errors.Is(err, ErrNoLeader) {
				t.Errorf("apply after the end: got %v, want %v", err, ErrNoLeader)
			}
			if l, _ := p.Leadership(); l != (Leadership{}) {
				t.Errorf("leadership after the end: got %v", l)
			}
		})
	}
}

func TestRun_FindsEverythingAgain(t *testing.T) {
	dir := t.TempDir()
	small := func(c *Config, _ *Replica) { c.SnapshotEvery, c.TrailingLogs = 20, 10 }
	want := 0
	for round := range 3 {
		p := run(t, dir, small)
		p.awaitLeader()
		if err := p.Barrier(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := len(p.sm.entries); got != want {
			t.Fatalf("round %d: got %d entries, want %d", round, got, want)
		}
		for i := range 30 {
			p.mustApply(fmt.Sprint(round, i))
		}
		want += 30
		if err := p.raft.Load().Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		if err := p.end(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRun_TakesAChangedAddress(t *testing.T) {
	dir := t.TempDir()
	p := run(t, dir, nil)
	p.awaitLeader()
	_ = p.end()
	p = run(t, dir, func(c *Config, _ *Replica) { c.Addr = "192.0.2.2:8300" })
	p.awaitLeader()
	for p.Servers()[0].Addr != "192.0.2.2:8300" {
		p.mustApply("x") // each is a step of Raft
	}
}

// tcp is a stream layer over loopback.
type tcp struct{ net.Listener }

func (tcp) Dial(addr string, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", addr, timeout)
}

func TestRun_OverANetworkLeadsAndClosesItsListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := run(t, "", func(c *Config, _ *Replica) { c.Stream, c.Addr = tcp{l}, l.Addr().String() })
	p.awaitLeader()
	p.mustApply("a")
	if err := p.end(); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("listener after the end: got %v, want it closed", err)
	}
}

func TestCollector_ShowsTheState(t *testing.T) {
	p := run(t, "", nil)
	p.awaitLeader()
	p.mustApply("a", "b")
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(p.Collector())
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		got[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
		if h := f.GetMetric()[0].GetHistogram(); h != nil {
			got[f.GetName()] = float64(h.GetSampleCount())
		}
	}
	if got["meibo_raft_leading"] != 1 || got["meibo_raft_applied_index"] < 3 || got["meibo_raft_commit_index"] < 3 || got["meibo_raft_commit_duration_seconds"] != 2 || len(got) != 9 {
		t.Errorf("got %v", got)
	}
}

func TestApply_RefusesWhatIsTooMuch(t *testing.T) {
	release := make(chan struct{})
	p := run(t, "", func(_ *Config, r *Replica) {})
	p.awaitLeader()
	p.sm.mu.Lock()
	p.sm.fail = func([]byte) { <-release }
	p.sm.mu.Unlock()
	if _, _, err := p.Apply(t.Context(), make([]byte, MaxCommand+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range MaxInFlight {
		wg.Go(func() {
			if _, _, err := p.Apply(ctx, nil); !errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("given up: got %v, want %v", err, ErrUnknownOutcome)
			}
		})
	}
	for {
		p.inFlight.mu.Lock()
		n := p.inFlight.count
		p.inFlight.mu.Unlock()
		if n == MaxInFlight {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if _, _, err := p.Apply(t.Context(), nil); !errors.Is(err, ErrBusy) {
		t.Errorf("one more: got %v, want %v", err, ErrBusy)
	}
	cancel()
	wg.Wait()
	close(release)
}

func TestRun_EndsWhenTheStateMachineCannotFollow(t *testing.T) {
	dir := t.TempDir()
	broken := errors.New("command type 77 is unknown")
	p := run(t, dir, nil)
	p.sm.fail = func(cmd []byte) {
		if string(cmd) == "new" {
			panic(broken)
		}
	}
	p.awaitLeader()
	p.mustApply("old")
	if _, _, err := p.Apply(t.Context(), []byte("new")); !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("apply: got %v, want %v", err, ErrUnknownOutcome)
	}
	if err := p.ended(); !errors.Is(err, broken) {
		t.Errorf("run: got %v, want %v", err, broken)
	}
	// A program that knows the command finds it.
	p = run(t, dir, nil)
	p.awaitLeader()
	if err := p.Barrier(t.Context()); err != nil || !p.sm.has("new") {
		t.Errorf("after an upgrade: %v, entries %v", err, p.sm.entries)
	}
}
