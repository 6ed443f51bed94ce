package clustertest

import (
	"context"
	"sync"
	"time"
)

// askEvery is how often each host is asked, where Options say nothing else.
const askEvery = 15 * time.Millisecond

// load asks every host for every service, one after the other, all the time.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
}

// Load begins to ask.
func (c *Cluster) Load() {
	ctx, cancel := context.WithCancel(context.Background())
	c.load = &load{cancel: cancel}
	every := c.opts.Every
	if every == 0 {
		every = askEvery
	}
	if raceEnabled {
		every *= 5
	}
	for i, h := range c.Hosts {
		c.load.wg.Go(func() {
			// Not all at the same instant.
			for wait := every * time.Duration(i+1) / time.Duration(len(c.Hosts)); ; wait = every {
				select {
				case <-ctx.Done():
					return
				case <-time.After(wait):
				}
				c.askNext(h)
			}
		})
	}
}

func (c *Cluster) askNext(h *Host) {
	if names := c.Judge.Services(); len(names) > 0 && h.IsUp() {
		h.asked++
		c.Judge.Judge(h.Lookup(names[h.asked%len(names)]))
	}
}

// check ends the load and fails the test for each failed or wrong lookup.
func (c *Cluster) check() {
	c.Helper()
	if c.load == nil {
		return
	}
	c.load.stop()
	c.Judge.Report(c)
}
