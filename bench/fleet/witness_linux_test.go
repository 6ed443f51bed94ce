package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// outlook is what a host makes of the others and how it stands itself, as /v1/meibo/members tells it.
type outlook struct {
	Braking, Stale bool
	Server         string
	Members        []struct {
		Name, State, ToldBy string
		HeldUntil           *time.Time
		Flaps               int
	}
}

func (h *fleetHost) outlook() (s outlook, err error) {
	err = h.get("/v1/meibo/members", &s)
	return s, err
}

// state is what this host makes of another; "" if it can't say.
func (h *fleetHost) makesOf(of *fleetHost) string {
	s, err := h.outlook()
	if err != nil {
		return ""
	}
	return s.of(of)
}

func (s outlook) of(h *fleetHost) string {
	for _, m := range s.Members {
		if m.Name == h.name {
			return m.State
		}
	}
	return ""
}

// isOut reports whether answers leave a host in this state out.
func isOut(state string) bool { return state == "failed" || state == "left" }

// change is a host that a viewer leaves out from then on, or takes in again.
type change struct {
	at  time.Time
	out bool
}

type pairKey struct{ viewer, host string }

// witness looks at what every host makes of every other, all the time. Returns are held down for seconds, so that it
// misses none.
type witness struct {
	fleet *fleet
	mu    sync.Mutex // guards following
	seen  map[pairKey][]change
	last  map[string]time.Time // when each viewer was looked at last
}

const witnessEvery = 200 * time.Millisecond

// newWitness begins to look. All hosts are there.
func newWitness(f *fleet) *witness {
	w := &witness{fleet: f, seen: map[pairKey][]change{}, last: map[string]time.Time{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, h := range f.hosts {
		wg.Go(func() { w.watch(ctx, h) })
	}
	f.t.Cleanup(func() { cancel(); wg.Wait() })
	return w
}

func (w *witness) watch(ctx context.Context, h *fleetHost) {
	tick := time.NewTicker(witnessEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		at := time.Now()
		if s, err := h.outlook(); err == nil {
			w.note(h, s, at)
		}
	}
}

// mark waits until all that has happened so far was seen, and says when that was.
func (w *witness) mark() time.Time {
	now := time.Now()
	eventually(w.fleet.t, "what has happened so far is seen", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, h := range w.fleet.hosts {
			if h.proc != nil && !w.last[h.name].After(now) {
				return fmt.Errorf("not on %s", h.name)
			}
		}
		return nil
	})
	return time.Now()
}

func (w *witness) note(h *fleetHost, s outlook, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last[h.name] = at
	for _, m := range s.Members {
		key := pairKey{h.name, m.Name}
		list, out := w.seen[key], isOut(m.State)
		if len(list) == 0 || list[len(list)-1].out != out {
			w.seen[key] = append(list, change{time.Now(), out})
		}
	}
}

// changes are those that a viewer saw of a host since then.
func (w *witness) changes(viewer, of *fleetHost, since time.Time) []change {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.seen[pairKey{viewer.name, of.name}]
	if len(list) > 0 {
		list = list[1:] // the first is what was there
	}
	return slices.DeleteFunc(slices.Clone(list), func(c change) bool { return c.at.Before(since) })
}

// calm fails the test for each change since then, of what hosts make of one another and of their answers. What concerns
// the pairs that are excepted is not looked at.
func (w *witness) calm(t *testing.T, since time.Time, excepted func(viewer, of *fleetHost) bool) {
	t.Helper()
	w.mark()
	pairs := 0
	var bad []string
	for _, viewer := range w.fleet.hosts {
		for _, of := range w.fleet.hosts {
			if viewer == of || excepted(viewer, of) {
				continue
			}
			pairs++
			if list := w.changes(viewer, of, since); len(list) > 0 {
				bad = append(bad, fmt.Sprintf("%s changed its mind of %s %d times, first at %s", viewer.name, of.name, len(list), list[0].at.Format("15:04:05.000")))
			}
			if n := w.fleet.client.turnovers(viewer, of, since); n > 0 {
				bad = append(bad, fmt.Sprintf("%s's answers of %s changed %d times", viewer.name, of.name, n))
			}
		}
	}
	if len(bad) > 0 {
		t.Errorf("nothing befell these:\n%s", strings.Join(bad, "\n"))
	}
	t.Logf("%d pairs of hosts that nothing befell: %d changed, in %.1f s", pairs, len(bad), time.Since(since).Seconds())
}

// once fails the test unless every viewer left the host out exactly once since then and took it in again exactly once.
func (w *witness) once(t *testing.T, of *fleetHost, viewers []*fleetHost, since time.Time) {
	t.Helper()
	w.mark()
	for _, viewer := range viewers {
		if viewer == of {
			continue
		}
		list := w.changes(viewer, of, since)
		if len(list) != 2 || !list[0].out || list[1].out {
			t.Errorf("%s changed its mind of %s %d times, want out once and back once: %v", viewer.name, of.name, len(list), list)
		}
		if n := w.fleet.client.turnovers(viewer, of, since); n > 2 {
			t.Errorf("%s's answers of %s changed %d times, want twice at most", viewer.name, of.name, n)
		}
	}
}

// outOn waits until the viewers leave the host out.
func (w *witness) outOn(t *testing.T, of *fleetHost, viewers []*fleetHost) time.Duration {
	t.Helper()
	return eventually(t, of.name+" is left out", func() error {
		for _, viewer := range viewers {
			if state := viewer.makesOf(of); viewer != of && !isOut(state) {
				return fmt.Errorf("%s says that it is %s", viewer.name, state)
			}
		}
		return nil
	})
}

// but are the hosts without some.
func but(hosts []*fleetHost, without ...*fleetHost) []*fleetHost {
	return slices.DeleteFunc(slices.Clone(hosts), func(h *fleetHost) bool { return slices.Contains(without, h) })
}

// beside lets the short form of a fleet's test run beside another: it waits most of the time.
func beside(t *testing.T) {
	if !verifying() {
		t.Parallel()
	}
}

// long is the first duration in the long form, else the second.
func long(verify, short time.Duration) time.Duration {
	if verifying() {
		return verify
	}
	return short
}
