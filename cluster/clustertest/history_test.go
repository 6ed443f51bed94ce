package clustertest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"meibo/cluster/catalog"
)

// access is one access to a node that no agent answers for: a write of its address,
// "" to take it out, or a read that saw it.
type access struct {
	write bool
	node  string
	addr  string
}

// nodes is the model of the catalog: a register for each node.
var nodes = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		of := map[string][]porcupine.Operation{}
		for _, op := range history {
			node := op.Input.(access).node
			of[node] = append(of[node], op)
		}
		var parts [][]porcupine.Operation
		for _, ops := range of {
			parts = append(parts, ops)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		if a := input.(access); a.write {
			return true, a.addr
		}
		return output.(string) == state.(string), state
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprint(input, " ", output) },
}

// accessesPerNode bounds the accesses to one node: the checker's time grows quickly
// with them.
const accessesPerNode = 100

// history is what clients did to the catalog and saw of it. Its clock counts calls
// and returns.
type history struct {
	mu    sync.Mutex // guards following
	clock int64
	ops   []porcupine.Operation
	open  []porcupine.Operation // writes of unknown outcome: they return when all is over
	count int                   // of accesses begun

	refused []string // writes that did not happen, for people to read
	first   int      // the first node that is still there: those before were lost with the servers' disks
}

// tick is the next instant.
func (r *history) tick() int64 {
	r.clock++
	return r.clock
}

// begin begins an access, and chooses its node.
func (r *history) begin(a access, client int) porcupine.Operation {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.node == "" {
		r.count++
		a.node = r.node(r.count / accessesPerNode)
	}
	if a.write && a.addr != "" {
		a.addr = fmt.Sprintf("192.0.%d.%d", r.count>>8&255, r.count&255)
	}
	return porcupine.Operation{ClientId: client, Input: a, Call: r.tick(), Output: ""}
}

func (*history) node(n int) string { return fmt.Sprintf("ext-%d", n) }

// end notes what came of an access.
func (r *history) end(op porcupine.Operation, seen string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	op.Output, op.Return = seen, r.tick()
	switch {
	case err == nil:
		r.ops = append(r.ops, op)
	case op.Input.(access).write && !errors.Is(err, catalog.ErrNoLeader):
		r.open = append(r.open, op)
	case op.Input.(access).write:
		r.refused = append(r.refused, fmt.Sprintf("%d to %d by %d: %+v: %v", op.Call, op.Return, op.ClientId, op.Input, err))
	}
}

// lost says that the catalog was lost: what clients do from now on concerns others.
func (r *history) lost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.first = r.count/accessesPerNode + 1
	r.count = r.first * accessesPerNode
}

// present are the nodes that were accessed since the catalog was last lost.
func (r *history) present() (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := r.first; n <= r.count/accessesPerNode; n++ {
		list = append(list, r.node(n))
	}
	return list
}

// one accesses a node through the host, as a client of its API does.
func (r *history) one(h *Host, a access, client int) error {
	n := h.Node()
	if n == nil {
		return catalog.ErrNoLeader
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	op := r.begin(a, client)
	a = op.Input.(access)
	var seen string
	var err error
	switch {
	case !a.write:
		var now catalog.Reader
		if now, _, err = n.Read(ctx, catalog.Consistent); err == nil {
			if _, node := now.Node(nil, a.node); node != nil {
				seen = node.Address
			}
		}
	case a.addr == "":
		_, err = n.Apply(ctx, &catalog.Deregister{Node: a.node})
	default:
		_, err = n.Apply(ctx, &catalog.Register{Node: catalog.Node{Node: a.node, Address: a.addr, Agentless: true}})
	}
	r.end(op, seen, err)
	return err
}

// clients begin to write to each server, and to read. What it returns ends them.
func (c *Cluster) clients(r *history) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i, h := range c.Servers() {
		wg.Go(func() {
			dice := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(i))) // the bubble's time
			for client := 0; ; client++ {                                           // whoever doesn't know what came of its write goes on as somebody else
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Duration(dice.Int64N(int64(2 * clientsEvery)))):
				}
				a := access{write: dice.IntN(2) == 0}
				if dice.IntN(4) > 0 {
					a.addr = "any"
				}
				at := h
				for _, s := range c.Servers() {
					if n := s.Node(); !a.write && n != nil && n.Leadership().Leading { // or thinks so
						at = s
					}
				}
				if at.IsUp() {
					_ = r.one(at, a, client*len(c.Servers())+i)
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

const (
	// clientsEvery is how often each client does something.
	clientsEvery = 500 * time.Millisecond
	// clientsOfRest and above are who reads what was written while nothing else happens.
	clientsOfRest = 1 << 20
)

// check fails the test unless some order of the writes explains all that was read.
func (r *history) check(t *testing.T, want porcupine.CheckResult) {
	t.Helper()
	all := append([]porcupine.Operation(nil), r.ops...)
	for _, op := range r.open {
		op.Return = r.tick()
		all = append(all, op)
	}
	got := porcupine.CheckOperationsTimeout(nodes, all, 20*time.Second)
	t.Logf("the catalog was accessed %d times, %d of %d writes of unknown outcome: %v", r.count, len(r.open), len(all), got)
	if want == porcupine.Ok && len(r.ops) < 10 {
		t.Error("hardly anything happened: the history shows nothing")
	}
	if got == want || got == porcupine.Unknown { // the machine is too slow to say
		return
	}
	t.Errorf("the history of the catalog is %v, want %v", got, want)
	t.Logf("did not happen:\n%s", strings.Join(r.refused, "\n"))
	for _, part := range nodes.Partition(all) {
		if porcupine.CheckOperations(nodes, part) {
			continue
		}
		slices.SortFunc(part, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
		for _, op := range part {
			t.Logf("%d to %d by %d: %+v %q", op.Call, op.Return, op.ClientId, op.Input, op.Output)
		}
	}
}

// The checker sees what it is there for: a server that is cut off reads what was.
func TestHistory_StaleReadIsCaught(t *testing.T) {
	r := new(history)
	Run(t, small, func(c *Cluster) {
		c.StartAll()
		cut := c.Follower()
		writer := But(c.Servers(), cut)[0]
		write := func() {
			if err := r.one(writer, access{write: true, node: "ext", addr: "any"}, 1); err != nil {
				c.Fatal(err)
			}
		}
		write()
		time.Sleep(time.Second)
		c.Part([]*Host{cut}, But(c.Hosts, cut))
		r.count++ // another address
		write()
		op := r.begin(access{node: "ext"}, 2)
		now, _, err := cut.Node().Read(t.Context(), catalog.Stale)
		if err != nil {
			c.Fatal(err)
		}
		_, node := now.Node(nil, "ext")
		r.end(op, node.Address, nil)
	})
	r.check(t, porcupine.Illegal)
}
