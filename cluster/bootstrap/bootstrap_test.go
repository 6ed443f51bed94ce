package bootstrap

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// beginners are hosts that were told to begin a cluster together, on a network
// that a test can make worse.
type beginners struct {
	mu    sync.Mutex // guards following
	rng   *rand.Rand
	hosts []*beginner
	sees  map[[2]int]bool // who sees whom in gossip
	loss  float64         // of questions, and of answers
	delay time.Duration   // at most, each way
	moved chan struct{}   // closed when sees changes
	begun map[string][]string
	done  bool // calls fail from now on
}

// beginner is what a host has on disk, and its present life.
type beginner struct {
	all     *beginners
	i       int
	member  Member
	kept    Vote
	cluster string
	life    *beginnerLife // nil: it is down
}

// beginnerLife is one life of a host's process. After its end nothing that it
// does has an effect.
type beginnerLife struct {
	host *beginner
	boot *Bootstrap
	end  context.CancelFunc
	wg   sync.WaitGroup
}

func newBeginners(rng *rand.Rand, expects ...int) *beginners {
	all := &beginners{rng: rng, sees: make(map[[2]int]bool), moved: make(chan struct{}), begun: make(map[string][]string)}
	for i, expect := range expects {
		name := string(rune('a' + i))
		all.hosts = append(all.hosts, &beginner{all: all, i: i, member: Member{
			Name: name, NodeID: "node-" + name, RaftID: name, Addr: name, Expect: expect}})
	}
	return all
}

// set changes who sees whom.
func (all *beginners) set(sees func(i, j int) bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for i := range all.hosts {
		for j := range all.hosts {
			all.sees[[2]int{i, j}] = sees(i, j)
		}
	}
	close(all.moved)
	all.moved = make(chan struct{})
}

var errNotEmpty = errors.New("it has begun one")

func everybody(int, int) bool { return true }

// start begins a life of the host.
func (h *beginner) start(t testing.TB, ctx context.Context) {
	t.Helper()
	h.prepare(t, ctx)()
}

// prepare gives the host a life that others see and returns what begins it.
func (h *beginner) prepare(t testing.TB, ctx context.Context) (begin func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	l := &beginnerLife{host: h, end: cancel}
	boot, err := New(Config{Self: h.member, Members: l.members, Call: l.call, Replica: l, Store: l})
	if err != nil {
		t.Fatal(err)
	}
	l.boot = boot
	h.all.mu.Lock()
	h.life = l
	h.all.mu.Unlock()
	return func() { l.wg.Go(func() { _ = boot.Run(ctx) }) }
}

// kill ends the host's life wherever it is.
func (h *beginner) kill() {
	h.all.mu.Lock()
	l := h.life
	h.life = nil
	h.all.mu.Unlock()
	if l != nil {
		l.end()
		l.wg.Wait()
	}
}

// alive runs f under the lock, unless the life has ended.
func (l *beginnerLife) alive(f func()) error {
	l.host.all.mu.Lock()
	defer l.host.all.mu.Unlock()
	if l.host.life != l {
		return errors.New("dead")
	}
	f()
	return nil
}

func (l *beginnerLife) Load() (Vote, error) { return l.host.kept, nil }

func (l *beginnerLife) Save(to Vote) error { return l.alive(func() { l.host.kept = to }) }

func (l *beginnerLife) Empty() (empty bool) {
	_ = l.alive(func() { empty = l.host.cluster == "" })
	return empty
}

func (l *beginnerLife) ClusterID() (id string) {
	_ = l.alive(func() { id = l.host.cluster })
	return id
}

func (l *beginnerLife) Bootstrap(servers []Voter) (err error) {
	dead := l.alive(func() {
		if l.host.cluster != "" {
			err = errNotEmpty
			return
		}
		l.host.cluster = "of " + l.host.member.RaftID
		for _, s := range servers {
			l.host.all.begun[l.host.member.RaftID] = append(l.host.all.begun[l.host.member.RaftID], s.ID)
		}
	})
	return cmp.Or(dead, err)
}

func (l *beginnerLife) members() ([]Member, <-chan struct{}) {
	all := l.host.all
	all.mu.Lock()
	defer all.mu.Unlock()
	var seen []Member
	for _, o := range all.hosts {
		if o != l.host && o.life != nil && all.sees[[2]int{l.host.i, o.i}] {
			seen = append(seen, o.member)
		}
	}
	return seen, all.moved
}

// fate draws how long a message takes and whether it arrives.
func (all *beginners) fate() (time.Duration, bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	var d time.Duration
	if all.delay > 0 {
		d = time.Duration(all.rng.Int64N(int64(all.delay)))
	}
	return d, !all.done && all.rng.Float64() >= all.loss
}

func (l *beginnerLife) call(ctx context.Context, addr, path string, in, out any) error {
	all := l.host.all
	type answered struct {
		answer any
		err    error
	}
	there := make(chan answered, 1)
	go func() { // the message goes on when who sent it has given up
		d, arrives := all.fate()
		time.Sleep(d)
		if !arrives {
			return
		}
		i := slices.IndexFunc(all.hosts, func(h *beginner) bool { return h.member.Addr == addr })
		all.mu.Lock()
		peer := all.hosts[i].life
		all.mu.Unlock()
		if peer == nil {
			there <- answered{err: errors.New("refused")}
			return
		}
		answer, err := peer.boot.Answer(ctx, path, func(v any) error {
			if ask, ok := v.(*proposal); ok {
				*ask = in.(proposal)
			}
			return nil
		})
		if peer.alive(func() {}) != nil {
			return
		}
		d, arrives = all.fate()
		time.Sleep(d)
		if !arrives {
			return
		}
		there <- answered{answer, err}
	}()
	select {
	case r := <-there:
		if r.err == nil {
			switch out := out.(type) {
			case *reply:
				*out = r.answer.(reply)
			case *outcome:
				*out = r.answer.(outcome)
			}
		}
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// join has those that have begun call on the servers of theirs that they reach,
// as consensus does.
func (all *beginners) join(reaches func() bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, h := range all.hosts {
		for _, id := range all.begun[h.member.RaftID] {
			i := slices.IndexFunc(all.hosts, func(o *beginner) bool { return o.member.RaftID == id })
			if o := all.hosts[i]; h.life != nil && o.life != nil && o.cluster == "" && reaches() {
				o.cluster = h.cluster
			}
		}
	}
}

// overlap returns two beginnings that have a server in common.
func (all *beginners) overlap() string {
	all.mu.Lock()
	defer all.mu.Unlock()
	owner := make(map[string]string)
	for _, who := range slices.Sorted(maps.Keys(all.begun)) {
		for _, id := range append([]string{who}, all.begun[who]...) {
			if other, ok := owner[id]; ok && other != who {
				return fmt.Sprintf("%s and %s both began, with %s: %v", other, who, id, all.begun)
			}
			owner[id] = who
		}
	}
	return ""
}

// beginnings are those that have begun, with those that they began with.
func (all *beginners) beginnings() map[string][]string {
	all.mu.Lock()
	defer all.mu.Unlock()
	return maps.Clone(all.begun)
}

// end ends all lives and whatever is under way.
func (all *beginners) end() {
	all.mu.Lock()
	all.done = true
	all.mu.Unlock()
	for _, h := range all.hosts {
		h.kill()
	}
	time.Sleep(10 * time.Second) // messages under way
}

// clusters are the IDs that the hosts belong to, "" for none.
func (all *beginners) clusters() []string {
	all.mu.Lock()
	defer all.mu.Unlock()
	ids := make(map[string]bool)
	for _, h := range all.hosts {
		ids[h.cluster] = true
	}
	return slices.Sorted(maps.Keys(ids))
}

var (
	storms    = flag.Int("storms", 300, "how many storms beginning hosts come through")
	viewsStep = flag.Int("viewsstep", 17, "each how manieth of all ways to see one another is tried; 1: all")
)

// Whatever each of them sees, whatever is lost, late or crashes: no two begin
// that anybody could take for one cluster. And when all that is over, all
// belong to one.
func TestBootstrap_NeverMakesTwoClustersOfOverlappingViews(t *testing.T) {
	began, before := 0, 0
	for seed := range *storms {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 7))
			expects := make([]int, 3+rng.IntN(3))
			for i := range expects {
				expects[i] = 2 + seed%2
			}
			all := newBeginners(rng, expects...)
			defer all.end()
			storm(t, all, rng)
			if len(all.beginnings()) > 0 {
				before++
			}
			if len(all.beginnings()) > 1 {
				began++ // of views that have nothing in common
			}
			calm(t, all)
			if why := all.overlap(); why != "" {
				t.Fatalf("seed %d: %s", seed, why)
			}
			if ids := all.clusters(); slices.Contains(ids, "") || len(all.beginnings()) == 0 {
				for _, h := range all.hosts {
					t.Logf("%s: cluster %q, voted for %q, waits: %s", h.member.Name, h.cluster, h.kept.Name, h.life.boot.Waiting())
				}
				t.Fatalf("seed %d: when all was well again: %q, begun %v", seed, ids, all.beginnings())
			}
		})
	}
	t.Logf("of %d runs a cluster began in %d amid the faults, in %d two of hosts that had not seen each other", *storms, before, began)
}

// storm is two minutes of everything that can go wrong.
func storm(t *testing.T, all *beginners, rng *rand.Rand) {
	all.mu.Lock()
	all.loss, all.delay = 0.4*rng.Float64(), time.Duration(rng.Int64N(int64(4*time.Second)))
	draw := func(n int) int { all.mu.Lock(); defer all.mu.Unlock(); return rng.IntN(n) }
	all.mu.Unlock()
	for range 60 {
		sight := 1 + draw(10) // of 10
		views := make([]bool, len(all.hosts)*len(all.hosts))
		for i := range views {
			views[i] = draw(10) < sight
		}
		all.set(func(i, j int) bool { return views[i*len(all.hosts)+j] })
		for _, h := range all.hosts {
			switch {
			case h.life == nil && draw(3) == 0:
				h.start(t, t.Context())
			case h.life != nil && draw(8) == 0:
				h.kill()
			}
		}
		time.Sleep(time.Duration(draw(4000)) * time.Millisecond)
		all.join(func() bool { return rng.IntN(6) == 0 })
	}
}

// calm is when all hosts are up, and see and reach each other.
func calm(t *testing.T, all *beginners) {
	all.mu.Lock()
	all.loss, all.delay = 0, time.Millisecond
	all.mu.Unlock()
	all.set(everybody)
	for _, h := range all.hosts {
		if h.life == nil {
			h.start(t, t.Context())
		}
	}
	for range 30 {
		time.Sleep(2 * time.Second)
		all.join(func() bool { return true })
		all.add()
	}
}

// add is what the leader of those that have begun does with the others: it adds
// those that are voted for nobody, or to one of its own.
func (all *beginners) add() {
	all.mu.Lock()
	defer all.mu.Unlock()
	belongs := make(map[string]bool)
	for _, h := range all.hosts {
		belongs[h.member.RaftID] = h.cluster != ""
	}
	for _, h := range all.hosts {
		if h.cluster == "" && len(all.begun) > 0 && (h.kept.RaftID == "" || belongs[h.kept.RaftID]) {
			h.cluster = "added"
		}
	}
}

// Every way in which four servers, and three of five, may see one another.
func TestBootstrap_BeginsAtMostOnceWhoeverSeesWhom(t *testing.T) {
	for views := 0; views < 1<<12; views += *viewsStep {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(views), 1))
			all := newBeginners(rng, 2, 2, 2, 2)
			all.delay = 10 * time.Millisecond
			bit := 0
			sees := make(map[[2]int]bool)
			for i := range 4 {
				for j := range 4 {
					if i != j {
						sees[[2]int{i, j}] = views&(1<<bit) != 0
						bit++
					}
				}
			}
			all.set(func(i, j int) bool { return sees[[2]int{i, j}] })
			for _, h := range all.hosts {
				h.start(t, t.Context())
			}
			time.Sleep(20 * time.Second)
			if why := all.overlap(); why != "" {
				t.Errorf("views %012b: %s", views, why)
			}
			all.end()
		})
	}
}

func TestBootstrap_BeginsOnceEnoughAreThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newBeginners(rand.New(rand.NewPCG(1, 1)), 3, 3, 3)
		defer all.end()
		all.set(everybody)
		all.hosts[0].start(t, t.Context())
		all.hosts[1].start(t, t.Context())
		time.Sleep(time.Minute)
		if len(all.beginnings()) > 0 {
			t.Fatalf("two of three: begun %v", all.beginnings())
		}
		if got, want := all.hosts[0].life.boot.Waiting(), "waiting for servers: 2 of 3 are there"; got != want {
			t.Errorf("waits: got %q, want %q", got, want)
		}
		all.hosts[2].start(t, t.Context())
		all.set(everybody)
		time.Sleep(2 * time.Second)
		if got := fmt.Sprint(all.beginnings()); got != "map[a:[a b c]]" {
			t.Errorf("begun: got %v, want the first with all three", got)
		}
		all.join(func() bool { return true })
		time.Sleep(2 * time.Second)
		for _, h := range all.hosts {
			if w, p := h.life.boot.Waiting(), h.life.boot.VotedFor(); w != "" || p != "" {
				t.Errorf("%s: waits %q, voted for %q", h.member.Name, w, p)
			}
		}
	})
}

func TestBootstrap_SaysWhatItWaitsFor(t *testing.T) {
	tests := []struct {
		name    string
		expects []int
		setup   func(*beginners)
		want    string // of a
	}{
		{"another figure", []int{3, 3, 5}, nil, "c has bootstrap_expect = 5 and a has 3"},
		{"one has state", []int{3, 3, 3}, func(all *beginners) { all.hosts[1].cluster = "old" }, "b belongs to a cluster already (old)"},
		{"one says that there is a cluster", []int{3, 3, 3}, func(all *beginners) {
			all.hosts[1].cluster, all.hosts[1].member.InCluster = "old", true
		}, "waiting for the leader of the one that is there to add this server"},
		{"one is told nothing", []int{0, 3, 3, 3}, nil, "waiting for a leader to add this server"},
		{"one sees more", []int{2, 2, 2}, func(all *beginners) {
			all.set(func(i, j int) bool { return i != 0 || j != 2 })
		}, "b does not vote: it sees c, which a doesn't"},
		{"voted", []int{3, 3, 3}, func(all *beginners) {
			all.hosts[0].kept = Vote{NodeID: "node-z", RaftID: "z", Name: "z", Addr: "b"}
		}, "voted for z, waiting to hear whether it began"},
		{"another has voted", []int{3, 3, 3}, func(all *beginners) {
			all.hosts[1].kept = Vote{NodeID: "node-z", RaftID: "z", Name: "z", Addr: "b"}
		}, "b does not vote: it has voted for z"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := newBeginners(rand.New(rand.NewPCG(1, 1)), tt.expects...)
				defer all.end()
				all.set(everybody)
				if tt.setup != nil {
					tt.setup(all)
				}
				// All are there before the first looks round: it could begin with those it finds.
				var begin []func()
				for _, h := range all.hosts {
					begin = append(begin, h.prepare(t, t.Context()))
				}
				for _, f := range begin {
					f()
				}
				time.Sleep(5 * time.Second)
				if got := all.hosts[0].life.boot.Waiting(); !strings.HasPrefix(got, tt.want) {
					t.Errorf("waits: got %q, want %q", got, tt.want)
				}
				if tt.expects[0] != 0 && len(all.beginnings()) > 0 {
					t.Errorf("begun %v", all.beginnings())
				}
			})
		})
	}
}

// A wiped server of a living cluster waits to be added.
func TestRule29_AWipedServerDoesNotBeginBesideTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newBeginners(rand.New(rand.NewPCG(1, 1)), 3, 3, 3)
		defer all.end()
		all.set(everybody)
		all.hosts[1].cluster, all.hosts[2].cluster = "living", "living"
		for _, h := range all.hosts {
			h.start(t, t.Context())
		}
		time.Sleep(time.Minute)
		if len(all.beginnings()) > 0 {
			t.Errorf("begun %v", all.beginnings())
		}
		if p := all.hosts[0].life.boot.VotedFor(); p != "" {
			t.Errorf("voted for %s: no leader would add it", p)
		}
	})
}

func TestBootstrap_AVoteForWhoWentForGoodEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newBeginners(rand.New(rand.NewPCG(1, 1)), 2, 2)
		defer all.end()
		all.set(everybody)
		all.hosts[0].kept = Vote{NodeID: "node-z", RaftID: "z", Name: "z", Addr: "b"}
		for _, h := range all.hosts {
			h.start(t, t.Context())
		}
		// b answers at z's address, and isn't z.
		time.Sleep(voteLimit - time.Minute)
		if len(all.beginnings()) > 0 {
			t.Errorf("begun %v, though z may have", all.beginnings())
		}
		time.Sleep(2 * time.Minute)
		if len(all.beginnings()) != 1 {
			t.Errorf("begun %v, want one", all.beginnings())
		}
	})
}

func TestVote_IsKeptInAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft", FileName)
	store := File(path)
	if to, err := store.Load(); err != nil || to != (Vote{}) {
		t.Errorf("none yet: got %+v, %v", to, err)
	}
	want := Vote{NodeID: "n", RaftID: "r", Name: "one", Addr: "192.0.2.1:8300"}
	if err := store.Save(want); err != nil {
		t.Fatal(err)
	}
	if to, err := store.Load(); err != nil || to != want {
		t.Errorf("got %+v, %v, want %+v", to, err, want)
	}
	for range 2 {
		if err := store.Save(Vote{}); err != nil {
			t.Fatal(err)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) > 0 {
		t.Errorf("left: %v", entries)
	}
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("garbled: got %v, want an error that names the file", err)
	}
}

func FuzzVote(f *testing.F) {
	f.Add([]byte(`{"node_id":"n","raft_id":"r","name":"one","addr":"192.0.2.1:8300"}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, data []byte) {
		to, err := decodeVote("file", data)
		if (err == nil) == (to.RaftID == "") {
			t.Errorf("got %+v, %v", to, err)
		}
	})
}
