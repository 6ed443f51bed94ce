package main

import (
	"errors"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// playEnv makes a process one that plays hosts.
const playEnv = "MEIBO_BENCH_PLAY"

// crowd is the processes that play hosts.
type crowd struct {
	list []*rpc.Client
	cmds []*exec.Cmd
}

// playHosts starts processes for the hosts of cfg. Real hosts have processors of their own: these leave the servers theirs, but for some, or they would wait whenever those collect garbage.
func playHosts(cfg Config, processes int) (*crowd, error) {
	c := new(crowd)
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for i := range processes {
		cmd := exec.Command("nice", "-n", "5", self)
		cmd.Env = append(os.Environ(), playEnv+"=1")
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			return nil, err
		}
		c.cmds = append(c.cmds, cmd)
		c.list = append(c.list, rpc.NewClient(struct {
			io.Reader
			io.WriteCloser
		}{out, in}))
		part := cfg
		part.First = i * cfg.Fleet.Hosts / processes
		part.Count = (i+1)*cfg.Fleet.Hosts/processes - part.First
		if err := c.list[i].Call("Player.Make", part, new(None)); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *crowd) stop() {
	for i, p := range c.list {
		_ = p.Close()
		_ = c.cmds[i].Wait()
	}
}

// call calls a method of all at once and returns what each said.
func call[Reply any](c *crowd, method string, args any) ([]Reply, error) {
	replies, errs := make([]Reply, len(c.list)), make([]error, len(c.list))
	var wg sync.WaitGroup
	for i, p := range c.list {
		wg.Go(func() { errs[i] = p.Call("Player."+method, args, &replies[i]) })
	}
	wg.Wait()
	return replies, errors.Join(errs...)
}

func (c *crowd) tell(method string, args any) error {
	_, err := call[None](c, method, args)
	return err
}

// figures are those of all processes.
func (c *crowd) figures() (sum Figures, lag *hdrhistogram.Histogram, err error) {
	list, err := call[Figures](c, "Figures", None{})
	lag = newHistogram()
	for _, f := range list {
		sum.Lookups += f.Lookups
		sum.Late += f.Late
		sum.Failed += f.Failed
		sum.Stale += f.Stale
		sum.Wrong += f.Wrong
		sum.Open += f.Open
		sum.CPU += f.CPU
		sum.Heap += f.Heap
		sum.Collections += f.Collections
		sum.In += f.In
		sum.Out += f.Out
		if f.Lag != nil {
			lag.Merge(hdrhistogram.Import(f.Lag))
		}
	}
	return sum, lag, err
}

// confirmed is when the hosts were told all again, sorted.
func (c *crowd) confirmed(after time.Time) ([]time.Duration, error) {
	lists, err := call[[]time.Duration](c, "Confirmed", after)
	all := slices.Concat(lists...)
	slices.Sort(all)
	return all, err
}
