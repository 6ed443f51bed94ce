package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meibo/cluster/clustertest/logtest"

	"github.com/hashicorp/raft"
)

// registers is a state machine of named values.
type registers struct {
	mu     sync.Mutex // guards following
	values map[string]string
	count  int // commands applied, and with a snapshot those of it
}

type set struct{ Key, Value string }

func (m *registers) Apply(_ uint64, cmd []byte) any {
	var c set
	if err := json.Unmarshal(cmd, &c); err != nil {
		panic(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values == nil {
		m.values = make(map[string]string)
	}
	m.values[c.Key] = c.Value
	m.count++
	return m.count
}

func (m *registers) get(key string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[key]
}

type registersSnapshot struct {
	Values map[string]string
	Count  int
}

func (m *registers) Snapshot() io.WriterTo {
	m.mu.Lock()
	defer m.mu.Unlock()
	return registersSnapshot{maps.Clone(m.values), m.count}
}

func (s registersSnapshot) WriteTo(w io.Writer) (int64, error) {
	return 0, json.NewEncoder(w).Encode(s)
}

func (m *registers) Restore(r io.Reader) error {
	var s registersSnapshot
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values, m.count = s.Values, s.Count
	return nil
}

// group is a cluster in memory, whose servers keep what is on their disks
// from one life to the next.
type group struct {
	t       *testing.T
	net     *network
	said    *logtest.Text // what all log at Warn and above
	servers map[string]*member
}

// member is a server of a group, at the address of its name.
type member struct {
	mu sync.Mutex // guards Replica and sm for others than the test's goroutine
	*Replica
	sm     *registers
	g      *group
	name   string
	id     string
	dir    string // a true disk, instead of the next two
	disk   *raft.InmemStore
	snaps  raft.SnapshotStore
	log    raft.LogStore // the present life's
	change func(*Config)
	fault  atomic.Pointer[func(call string) error]
	free   atomic.Pointer[atomic.Uint64] // what is free on its disk
	stop   context.CancelFunc
	done   chan struct{}
	err    error
}

// inBubble runs f with a group of so many servers, the first of which has
// begun, in time that passes when all wait.
func inBubble(t *testing.T, servers int, f func(t *testing.T, g *group)) {
	t.Helper()
	inBubbleWith(t, servers, func(*member) {}, f)
}

// inBubbleWith lets prepare change the servers before they start.
func inBubbleWith(t *testing.T, servers int, prepare func(*member), f func(t *testing.T, g *group)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &group{t: t, net: newNetwork(uint64(servers)), said: new(logtest.Text), servers: make(map[string]*member)}
		defer g.end()
		var list []Server
		for i := range servers {
			list = append(list, Server{ID: fmt.Sprint("id", i+1), Addr: fmt.Sprint("s", i+1), Voter: true})
		}
		for i, s := range list {
			m := g.add(s.Addr, s.ID)
			if i == 0 {
				m.change = func(c *Config) { c.Bootstrap, c.Servers = true, list }
			}
			prepare(m)
			m.start()
		}
		g.until("all vote", func() bool {
			for _, s := range list {
				if got, ok := find(g.servers["s1"].Servers(), s.ID); !ok || !got.Voter {
					return false
				}
			}
			return true
		})
		f(t, g)
	})
}

// add makes a server without starting it.
func (g *group) add(name, id string) *member {
	m := &member{g: g, name: name, id: id}
	m.wipe()
	g.servers[name] = m
	return m
}

// wipe gives it a new disk.
func (m *member) wipe() {
	m.disk, m.snaps = raft.NewInmemStore(), raft.NewInmemSnapshotStore()
}

func (m *member) start() {
	m.g.t.Helper()
	sm := new(registers)
	cfg := Config{StateMachine: sm, Dir: m.dir, ID: m.id, Addr: m.name, Stream: m.g.net.host(m.name), Logger: slog.New(slog.NewTextHandler(m.g.said, &slog.HandlerOptions{Level: slog.LevelWarn})).With("node", m.name)}
	if m.change != nil {
		m.change(&cfg)
	}
	r, err := New(cfg)
	if err != nil {
		m.g.t.Fatal(err)
	}
	r.open = func() (*stores, error) {
		s := &stores{log: m.disk, stable: m.disk, snapshots: m.snaps, close: func() error { return nil }}
		if m.dir != "" {
			var err error
			if s, err = r.openStores(); err != nil {
				return nil, err
			}
		}
		f := &faulty{LogStore: s.log, StableStore: s.stable, fail: func(call string) error {
			if f := m.fault.Load(); f != nil {
				return (*f)(call)
			}
			return nil
		}}
		s.log, s.stable = f, f
		m.log = f
		return s, nil
	}
	r.space = func(dir string) (free, total uint64, err error) {
		if f := m.free.Load(); f != nil {
			return f.Load(), 1 << 40, nil
		}
		return diskSpace(dir)
	}
	m.mu.Lock()
	m.Replica, m.sm = r, sm
	m.mu.Unlock()
	ctx, stop := context.WithCancel(context.Background())
	m.stop, m.done = stop, make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		m.err = r.Run(ctx)
	}(m.done)
}

// now is what runs at present, for clients.
func (m *member) now() (*Replica, *registers) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.Replica, m.sm
}

// breaks makes calls of its disk fail, until it is given nil.
func (m *member) breaks(fail func(call string) error) {
	if fail == nil {
		m.fault.Store(nil)
		return
	}
	m.fault.Store(&fail)
}

// end stops it in order and returns Run's error.
func (m *member) end() error {
	m.stop()
	<-m.done
	return m.err
}

// crash stops it without a word to the others.
func (m *member) crash() {
	m.g.net.apart(m.name, true)
	time.Sleep(50 * time.Millisecond) // what its clients ask of it now is lost
	_ = m.end()
	m.g.net.lose(m.name)
	m.g.net.apart(m.name, false)
}

func (g *group) end() {
	for _, m := range g.servers {
		if m.stop != nil {
			m.stop()
		}
	}
	for _, m := range g.servers {
		if m.done != nil {
			<-m.done
		}
	}
}

// until waits for a condition, at most a minute.
func (g *group) until(what string, ok func() bool) {
	g.t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > time.Minute {
			for _, m := range g.servers {
				l, _ := m.Leadership()
				g.t.Logf("%s: %+v %v %v", m.name, l, m.Servers(), m.err)
			}
			g.t.Fatalf("a minute has passed, and not: %s\n%s", what, g.said)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// leader waits for one that a majority confirms.
func (g *group) leader() (led *member) {
	g.t.Helper()
	g.until("somebody leads", func() bool {
		for _, m := range g.servers {
			if m.Replica == nil || !m.IsLeader() {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			err := m.Verify(ctx)
			cancel()
			if err == nil {
				led = m
				return true
			}
		}
		return false
	})
	return led
}

// others are all but some, in order.
func (g *group) others(not ...*member) (others []*member) {
	for _, name := range slices.Sorted(maps.Keys(g.servers)) {
		if m := g.servers[name]; !slices.Contains(not, m) {
			others = append(others, m)
		}
	}
	return others
}

// write commits a value by whoever leads, within a minute.
func (g *group) write(key, value string) {
	g.t.Helper()
	g.until("a write is taken", func() bool { return g.leader().put(key, value) == nil })
}

func (m *member) put(key, value string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	cmd, _ := json.Marshal(set{key, value})
	_, _, err := m.Apply(ctx, cmd)
	return err
}

// same waits until all that run hold the value.
func (g *group) same(key, value string) {
	g.t.Helper()
	g.until(fmt.Sprintf("all hold %s = %s", key, value), func() bool {
		for _, m := range g.servers {
			select {
			case <-m.done:
				continue
			default:
			}
			if m.sm.get(key) != value {
				return false
			}
		}
		return true
	})
}

// ends waits for Run to return by itself.
func (m *member) ends(want error) {
	m.g.t.Helper()
	m.g.until(m.name+" ends", func() bool {
		select {
		case <-m.done:
			return true
		default:
			return false
		}
	})
	if !errors.Is(m.err, want) {
		m.g.t.Errorf("%s: run: got %v, want %v", m.name, m.err, want)
	}
}

func TestGroup_FormsAndAgrees(t *testing.T) {
	for _, n := range []int{1, 3, 5} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			inBubble(t, n, func(t *testing.T, g *group) {
				g.write("k", "v")
				g.same("k", "v")
				id := g.servers["s1"].ClusterID()
				for _, m := range g.servers {
					if got := m.ClusterID(); got == "" || got != id {
						t.Errorf("%s: cluster %q, want %q", m.name, got, id)
					}
					if m.Empty() {
						t.Errorf("%s: is empty", m.name)
					}
					if since, ok := m.LastContact(); !ok || since > time.Second {
						t.Errorf("%s: last contact %v, %v", m.name, since, ok)
					}
					if index, term := m.LastIndex(); index < 2 || term == 0 {
						t.Errorf("%s: last index %d of term %d", m.name, index, term)
					}
				}
			})
		})
	}
}

// logStore is what its log is kept in while it runs.
func (m *member) logStore() raft.LogStore { return m.log }
