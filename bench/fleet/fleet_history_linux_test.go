package fleet

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"meibo/bench/hosttest"
	"meibo/bench/netswitch"

	"github.com/anishathalye/porcupine"
)

// TestFleet_CatalogIsLinearizable has clients of every host register, deregister and consistently read nodes while leaders
// die, freeze and are cut off, and checks the history. A stale read of a server that was cut off, put into the history as if
// it had been a consistent one, must be found.
func TestFleet_CatalogIsLinearizable(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 4)
		f.start()
		rec := &catalogHistory{seed: uint64(time.Now().UnixNano())}
		stop := rec.clients(f)
		for range times(6) {
			for _, fault := range catalogFaults {
				begin := time.Now()
				fault.do(f)
				f.whole()
				t.Logf("%s: whole again after %v ms", fault.name, time.Since(begin).Milliseconds())
			}
		}
		if hosttest.Verifying() {
			f.split([]*fleetHost{f.leader(), f.agents()[2]}, 6*time.Second)
		}
		stop()
		rec.judge(t)
		f.seedStaleRead(rec)
		f.client.settled()
		f.client.check()
	})
}

// catalogFaults are what the fleet suffers while clients go on. Each leaves all daemons running and all paths whole.
var catalogFaults = []struct {
	name string
	do   func(f *fleet)
}{
	{"leader killed", func(f *fleet) {
		l := f.leader()
		l.kill()
		f.client.soak(1500 * time.Millisecond)
		l.up()
	}},
	{"leader cut off with an agent", func(f *fleet) {
		// Too short to be taken for dead: whoever dies again and again is held down longer each time.
		f.split([]*fleetHost{f.leader(), f.agents()[3]}, 1200*time.Millisecond)
	}},
	{"leader heard by nobody", func(f *fleet) {
		l := f.leader()
		f.mute(l, 1200*time.Millisecond)
	}},
	{"leader frozen", func(f *fleet) {
		l := f.leader()
		f.client.ended(l)
		f.client.apart([]*fleetHost{l}, f.hosts)
		l.signal(syscall.SIGSTOP)
		f.client.soak(2 * time.Second)
		l.signal(syscall.SIGCONT)
		f.client.began(l)
		f.client.together([]*fleetHost{l}, f.hosts)
	}},
	{"leadership handed over", func(f *fleet) {
		_, _ = f.agents()[0].meibo("operator", "raft", "transfer-leader")
	}},
}

// split cuts the hosts off from all others for a while. Until their return is believed they answer of themselves what
// the catalog says of them, as the others do.
func (f *fleet) split(minority []*fleetHost, d time.Duration) {
	majority := f.others(minority...)
	for _, h := range minority {
		f.client.fogAll(h)
	}
	f.client.apart(minority, f.hosts)
	f.between(minority, majority, netswitch.Path{Cut: true})
	f.client.soak(d)
	f.between(minority, majority, netswitch.Path{})
	f.whole()
	for _, h := range minority {
		f.client.risesAll(h)
	}
	f.client.settled()
	f.client.together(minority, f.hosts)
}

// mute cuts all that the host sends for a while.
func (f *fleet) mute(h *fleetHost, d time.Duration) {
	f.client.apart(f.hosts, f.hosts)
	for _, o := range f.others(h) {
		f.net.Set(h.n, o.n, netswitch.Path{Cut: true})
	}
	f.client.soak(d)
	f.net.Heal()
	f.whole()
	f.client.settled()
	f.client.together(f.hosts, f.hosts)
}

// others are all hosts but these.
func (f *fleet) others(but ...*fleetHost) []*fleetHost {
	var list []*fleetHost
next:
	for _, h := range f.hosts {
		for _, b := range but {
			if h == b {
				continue next
			}
		}
		list = append(list, h)
	}
	return list
}

// nodeAccess is a write of a node's address into the catalog, "" to take it out, or a read that saw it.
type nodeAccess struct {
	write bool
	node  string
	addr  string
}

// nodeModel is a register for each node.
var nodeModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		nodes := map[string][]porcupine.Operation{}
		for _, op := range history {
			node := op.Input.(nodeAccess).node
			nodes[node] = append(nodes[node], op)
		}
		var parts [][]porcupine.Operation
		for _, ops := range nodes {
			parts = append(parts, ops)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		if a := input.(nodeAccess); a.write {
			return true, a.addr
		}
		return output.(string) == state.(string), state
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprint(input, " ", output) },
}

// accessesPerNode bounds the operations on one node: the checker's time grows quickly with them.
const accessesPerNode = 150

// catalogHistory is what clients did to the catalog and saw of it.
type catalogHistory struct {
	seed  uint64
	count atomic.Int64 // of operations begun: names nodes and addresses
	next  atomic.Int64 // the next client's number

	mu      sync.Mutex // guards following
	ops     []porcupine.Operation
	open    []porcupine.Operation // writes of unknown outcome: they return when all is over
	dropped int                   // did not happen
}

// clients begin to write and read, one on each host; stop ends them.
func (r *catalogHistory) clients(f *fleet) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i, h := range f.hosts {
		wg.Go(func() {
			dice := rand.New(rand.NewPCG(r.seed, uint64(i)))
			client := int(r.next.Add(1))
			tick := time.NewTicker(40 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-done:
					return
				case <-tick.C:
				}
				if !r.one(client, h, dice) { // whoever doesn't know what came of its write goes on as somebody else
					client = int(r.next.Add(1))
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { close(done); wg.Wait() })
	f.t.Cleanup(stop)
	return stop
}

// one makes an operation; false: its outcome is unknown.
func (r *catalogHistory) one(client int, h *fleetHost, dice *rand.Rand) bool {
	n := r.count.Add(1)
	a := nodeAccess{node: fmt.Sprintf("node-%d", n/accessesPerNode), write: dice.IntN(2) == 0}
	op := porcupine.Operation{ClientId: client, Call: time.Now().UnixNano(), Output: ""}
	var err error
	switch {
	case !a.write:
		var seen string
		seen, err = readConsistent(h, a.node)
		op.Output = seen
	case dice.IntN(4) == 0:
		err = h.call("PUT", "/v1/catalog/deregister", fmt.Sprintf(`{"Node":%q}`, a.node), nil)
	default:
		a.addr = fmt.Sprintf("192.%d.%d.%d", 1+n>>16&127, n>>8&255, n&255)
		err = register(h, a.node, a.addr)
	}
	op.Input, op.Return = a, time.Now().UnixNano()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.ops = append(r.ops, op)
	case !a.write, didNotHappen(err):
		r.dropped++
	default:
		r.open = append(r.open, op)
	}
	return err == nil || !a.write || didNotHappen(err)
}

// didNotHappen reports whether a write failed for sure: nobody took it, in Consul's words, or nobody listened.
func didNotHappen(err error) bool {
	for _, words := range []string{"No cluster leader", "No known Consul servers", "connection refused"} {
		if strings.Contains(err.Error(), words) {
			return true
		}
	}
	return false
}

// history is all of it. Writes of unknown outcome return after everything else.
func (r *catalogHistory) history() []porcupine.Operation {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := append([]porcupine.Operation(nil), r.ops...)
	end := time.Now().UnixNano()
	for _, op := range r.open {
		op.Return = end
		all = append(all, op)
	}
	return all
}

func (r *catalogHistory) judge(t *testing.T) {
	t.Helper()
	begin := time.Now()
	history := r.history()
	verdict := porcupine.CheckOperationsTimeout(nodeModel, history, hosttest.Patience)
	t.Logf("%d operations on %d nodes, %d of them writes of unknown outcome, %d failed for sure: %s, found in %v ms (seed %d)",
		len(history), r.count.Load()/accessesPerNode+1, len(r.open), r.dropped, verdict, time.Since(begin).Milliseconds(), r.seed)
	if verdict != porcupine.Ok {
		t.Errorf("the history of the catalog is %s: some node has been read as no order of its writes explains", verdict)
	}
	if len(r.ops) < 100 {
		t.Errorf("only %d operations succeeded", len(r.ops))
	}
}

// seedStaleRead reads an old value of a server that is cut off and puts it into the history.
func (f *fleet) seedStaleRead(rec *catalogHistory) {
	t := f.t
	t.Helper()
	cut, writer := f.follower(), f.agents()[0]
	write := func(addr string) {
		a := nodeAccess{node: "seeded", addr: addr, write: true}
		op := porcupine.Operation{ClientId: 1 << 20, Input: a, Call: time.Now().UnixNano(), Output: ""}
		hosttest.Eventually(t, "a write", func() error { return register(writer, "seeded", addr) })
		op.Return = time.Now().UnixNano()
		rec.ops = append(rec.ops, op)
	}
	read := func(how string) string {
		op := porcupine.Operation{ClientId: 1 << 20, Input: nodeAccess{node: "seeded"}, Call: time.Now().UnixNano()}
		seen, err := readNode(cut, "seeded", how)
		if err != nil {
			return err.Error()
		}
		op.Output, op.Return = seen, time.Now().UnixNano()
		rec.ops = append(rec.ops, op)
		return seen
	}
	write("192.0.2.1")
	hosttest.Eventually(t, "the write on "+cut.name, func() error {
		if seen, err := readNode(cut, "seeded", "stale"); err != nil || seen != "192.0.2.1" {
			return fmt.Errorf("%q, %v", seen, err)
		}
		return nil
	})
	f.client.apart(f.hosts, f.hosts)
	f.between([]*fleetHost{cut}, f.others(cut), netswitch.Path{Cut: true})
	write("192.0.2.2")
	if hosttest.Verifying() { // it waits long for a leader
		if seen := read("consistent"); seen == "192.0.2.1" {
			t.Errorf("%s, which is cut off, reads consistently what is no more", cut.name)
		}
	}
	if seen := read("stale"); seen != "192.0.2.1" {
		t.Errorf("a stale read on %s, which is cut off: %s, want what it knew", cut.name, seen)
	}
	f.net.Heal()
	if verdict := porcupine.CheckOperationsTimeout(nodeModel, rec.history(), hosttest.Patience); verdict != porcupine.Illegal {
		t.Errorf("a history with a stale read in it is %s, want %s", verdict, porcupine.Illegal)
	}
	f.whole()
	f.client.settled()
	f.client.together(f.hosts, f.hosts)
}
