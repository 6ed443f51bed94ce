package consensus

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// access is one access to a register: a write of value, or a read that saw it.
type access struct {
	write bool
	key   string
	value string
}

// register is the model of one named value.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		keys := make(map[string][]porcupine.Operation)
		for _, op := range history {
			k := op.Input.(access).key
			keys[k] = append(keys[k], op)
		}
		var parts [][]porcupine.Operation
		for _, ops := range keys {
			parts = append(parts, ops)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		if a := input.(access); a.write {
			return true, a.value
		}
		return output.(string) == state.(string), state
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprint(input, " ", output) },
}

// recorder writes a history down. Its clock counts calls and returns.
type recorder struct {
	clock atomic.Int64
	mu    sync.Mutex // guards following
	ops   []porcupine.Operation
	open  []porcupine.Operation // writes of unknown outcome
}

func (r *recorder) done(client int, call int64, a access, seen string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, porcupine.Operation{ClientId: client, Input: a, Call: call, Output: seen, Return: r.clock.Add(1)})
}

// unknown notes a write that may happen at any time, or never: it returns
// when all is over.
func (r *recorder) unknown(client int, call int64, a access) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = append(r.open, porcupine.Operation{ClientId: client, Input: a, Call: call, Output: ""})
}

// history is all of it. Clients that went on after an unknown outcome are
// others from there on, which is what Porcupine's own checks want.
func (r *recorder) history() []porcupine.Operation {
	all := append([]porcupine.Operation(nil), r.ops...)
	end := r.clock.Add(1)
	for _, op := range r.open {
		op.Return = end
		all = append(all, op)
	}
	return all
}

const opsPerKey = 120

// clients read and write until ctx ends, each time at whoever says it leads.
func (g *group) clients(ctx context.Context, rec *recorder, n int, pause time.Duration) *sync.WaitGroup {
	var wg sync.WaitGroup
	var count atomic.Int64
	members := g.others()
	for client := range n {
		wg.Go(func() {
			dice := rand.New(rand.NewPCG(uint64(client), 2))
			for ctx.Err() == nil {
				time.Sleep(time.Duration(dice.Int64N(int64(2 * pause))))
				i := dice.IntN(len(members))
				r, sm := members[i].now()
				for range members {
					if r.IsLeader() {
						break
					}
					i = (i + 1) % len(members)
					r, sm = members[i].now()
				}
				if !r.IsLeader() {
					continue
				}
				number := count.Add(1)
				rec.one(client, r, sm, dice.IntN(2) == 0, fmt.Sprint("key", number/opsPerKey), fmt.Sprint(number))
			}
		})
	}
	return &wg
}

func (rec *recorder) one(client int, r *Replica, sm *registers, write bool, key, value string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	call := rec.clock.Add(1)
	if !write {
		if r.Verify(ctx) == nil {
			rec.done(client, call, access{key: key}, sm.get(key))
		}
		return
	}
	a := access{write: true, key: key, value: value}
	cmd, _ := json.Marshal(set{key, value})
	_, _, err := r.Apply(ctx, cmd)
	switch {
	case err == nil:
		rec.done(client, call, a, "")
	case errors.Is(err, ErrUnknownOutcome):
		rec.unknown(client, call, a)
	}
}

// faults are what servers and network suffer while clients go on. Each is
// called again and again, and leaves all whole.
var faults = map[string]func(g *group, dice *rand.Rand){
	"leader killed": func(g *group, _ *rand.Rand) {
		l := g.leader()
		l.crash()
		time.Sleep(time.Second)
		l.start()
	},
	"each alone": func(g *group, dice *rand.Rand) {
		m := g.others()[dice.IntN(len(g.servers))]
		g.net.apart(m.name, true)
		time.Sleep(2 * time.Second)
		g.net.apart(m.name, false)
	},
	"leader alone": func(g *group, _ *rand.Rand) {
		m := g.leader()
		g.net.apart(m.name, true)
		time.Sleep(1500 * time.Millisecond)
		g.net.apart(m.name, false)
	},
	"leader is not heard": func(g *group, _ *rand.Rand) {
		m := g.leader()
		for _, o := range g.others(m) {
			g.net.set(m.name, o.name, way{cut: true})
		}
		time.Sleep(2 * time.Second)
		g.net.all(way{})
	},
	"leader does not hear": func(g *group, _ *rand.Rand) {
		m := g.leader()
		for _, o := range g.others(m) {
			g.net.set(o.name, m.name, way{cut: true})
		}
		time.Sleep(2 * time.Second)
		g.net.all(way{})
	},
	"slow and lossy": func(g *group, _ *rand.Rand) {
		g.net.all(way{delay: 20 * time.Millisecond, loss: 0.05})
		time.Sleep(3 * time.Second)
		g.net.all(way{})
	},
	"answers to the leader are late": func(g *group, _ *rand.Rand) {
		m := g.leader()
		for _, o := range g.others(m) {
			g.net.set(o.name, m.name, way{delay: 140 * time.Millisecond})
		}
		time.Sleep(time.Second)
		g.net.apart(m.name, true)
		time.Sleep(time.Second)
		g.net.all(way{})
	},
	"leadership handed over": func(g *group, _ *rand.Rand) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = g.leader().TransferLeadership(ctx, "")
	},
	"leader stopped in order": func(g *group, _ *rand.Rand) {
		l := g.leader()
		_ = l.end()
		time.Sleep(300 * time.Millisecond)
		l.start()
	},
	"disk of one fails": func(g *group, dice *rand.Rand) {
		m := g.others()[dice.IntN(len(g.servers))]
		m.breaks(func(call string) error {
			if call == "StoreLogs" {
				return errDisk
			}
			return nil
		})
		g.until("it notices", func() bool {
			select {
			case <-m.done:
				return true
			default:
				return false
			}
		})
		time.Sleep(500 * time.Millisecond)
		m.breaks(nil)
		m.start()
	},
	"one is removed and added": func(g *group, _ *rand.Rand) {
		l := g.leader()
		m := g.others(l)[0]
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if l.RemoveServer(ctx, m.id) != nil {
			return
		}
		m.ends(ErrRemoved)
		m.start()
		for g.leader().AddServer(ctx, Server{ID: m.id, Addr: m.name, Voter: true}) != nil && ctx.Err() == nil {
		}
	},
}

var faultsFor = flag.Duration("faults", 5*time.Second, "for how long each fault strikes again and again, in fake time")

func TestHistories_AreLinearizableUnderFaults(t *testing.T) {
	for name, fault := range faults {
		for _, n := range []int{3, 5} {
			t.Run(fmt.Sprint(name, " of ", n), func(t *testing.T) {
				t.Parallel()
				rec := new(recorder)
				inBubble(t, n, func(t *testing.T, g *group) {
					ctx, stop := context.WithCancel(context.Background())
					wg := g.clients(ctx, rec, 4, 15*time.Millisecond)
					dice := rand.New(rand.NewPCG(uint64(n), 3))
					for start := time.Now(); time.Since(start) < *faultsFor; time.Sleep(300 * time.Millisecond) {
						fault(g, dice)
					}
					stop()
					wg.Wait()
					g.write("end", "yes")
					g.same("end", "yes")
				})
				rec.check(t, porcupine.Ok)
			})
		}
	}
}

func (rec *recorder) check(t *testing.T, want porcupine.CheckResult) {
	t.Helper()
	history := rec.history()
	got := porcupine.CheckOperationsTimeout(register, history, 10*time.Second)
	t.Logf("%d accesses, %d writes of unknown outcome: %v", len(history), len(rec.open), got)
	if got != want {
		t.Errorf("the history is %v, want %v", got, want)
	}
	if len(rec.ops) < 10 {
		t.Error("hardly anything happened: the test shows nothing")
	}
}

// The checker sees what it is there for.
func TestStaleRead_IsCaught(t *testing.T) {
	rec := new(recorder)
	inBubble(t, 3, func(t *testing.T, g *group) {
		l := g.leader()
		for i := range 10 {
			rec.one(1, l.Replica, l.sm, true, "k", fmt.Sprint(i))
		}
		g.same("k", "9")
		behind := g.others(l)[0]
		g.net.apart(behind.name, true)
		rec.one(1, l.Replica, l.sm, true, "k", "new")
		rec.done(2, rec.clock.Add(1), access{key: "k"}, behind.sm.get("k"))
	})
	rec.check(t, porcupine.Illegal)
}
