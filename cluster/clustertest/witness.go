package clustertest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"meibo/cluster/membership"
)

// Witness looks at what every host makes of every other, all the time. Returns are
// held down for seconds, so that it misses none.
type Witness struct {
	c    *Cluster
	mu   sync.Mutex // guards following
	seen map[pairKey][]Change
}

// Change is a host that a viewer leaves out from then on, or takes in again.
type Change struct {
	At  time.Time
	Out bool
}

const witnessEvery = 200 * time.Millisecond

// Witness begins to look. All hosts are there.
func (c *Cluster) Witness() *Witness {
	w := &Witness{c: c, seen: map[pairKey][]Change{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			w.look()
			select {
			case <-ctx.Done():
			case <-time.After(witnessEvery):
			}
		}
	})
	c.ends = append(c.ends, func() { cancel(); wg.Wait() })
	return w
}

func isOut(s membership.Status) bool { return s == membership.Failed || s == membership.Left }

func (w *Witness) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.c.Hosts {
		if !h.IsUp() {
			continue
		}
		for _, o := range w.c.Hosts {
			key := pairKey{h.Name, o.Name}
			list, out := w.seen[key], isOut(h.MakesOf(o))
			if len(list) == 0 || list[len(list)-1].Out != out {
				w.seen[key] = append(list, Change{time.Now(), out})
			}
		}
	}
}

// Mark has all that has happened so far seen, and says when that was.
func (w *Witness) Mark() time.Time {
	w.look()
	return time.Now().Add(1)
}

// Changes are those that a viewer was seen to make of a host since then.
func (w *Witness) Changes(viewer, of *Host, since time.Time) (changes []Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.seen[pairKey{viewer.Name, of.Name}]
	for i, c := range list {
		if i > 0 && !c.At.Before(since) { // the first is what was there
			changes = append(changes, c)
		}
	}
	return changes
}

// Calm fails the test for each change since then, of what hosts make of one another
// and of their answers. What concerns the pairs that are excepted is not looked at.
func (w *Witness) Calm(since time.Time, excepted func(viewer, of *Host) bool) {
	w.c.Helper()
	w.look()
	pairs := 0
	var bad []string
	for _, viewer := range w.c.Hosts {
		for _, of := range w.c.Hosts {
			if viewer == of || excepted(viewer, of) {
				continue
			}
			pairs++
			if list := w.Changes(viewer, of, since); len(list) > 0 {
				bad = append(bad, fmt.Sprintf("%s changed its mind of %s %d times, first at %s", viewer.Name, of.Name, len(list), list[0].At.Format("15:04:05.000")))
			}
			if n := w.c.Judge.Turnovers(viewer.Name, of.Name, since); n > 0 {
				bad = append(bad, fmt.Sprintf("%s's answers of %s changed %d times", viewer.Name, of.Name, n))
			}
		}
	}
	if len(bad) > 0 {
		w.c.Errorf("nothing befell these, %d of %d pairs in %v:\n%s", len(bad), pairs, time.Since(since), strings.Join(bad[:min(len(bad), 12)], "\n"))
	}
}

// Once fails the test unless every viewer left the host out exactly once since then
// and took it in again exactly once.
func (w *Witness) Once(of *Host, viewers []*Host, since time.Time) {
	w.c.Helper()
	w.look()
	for _, viewer := range viewers {
		if viewer == of {
			continue
		}
		list := w.Changes(viewer, of, since)
		if len(list) != 2 || !list[0].Out || list[1].Out {
			w.c.Errorf("%s changed its mind of %s %d times, want out once and back once: %v", viewer.Name, of.Name, len(list), list)
		}
		if n := w.c.Judge.Turnovers(viewer.Name, of.Name, since); n > 2 {
			w.c.Errorf("%s's answers of %s changed %d times, want twice at most", viewer.Name, of.Name, n)
		}
	}
}

// OutOn waits until the viewers leave the host out.
func (c *Cluster) OutOn(of *Host, viewers []*Host) time.Duration {
	c.Helper()
	return c.Until(of.Name+" is left out", func() error {
		for _, viewer := range viewers {
			if s := viewer.MakesOf(of); viewer != of && !isOut(s) {
				return fmt.Errorf("%s has it for %v", viewer.Name, s)
			}
		}
		return nil
	})
}
