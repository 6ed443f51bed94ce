package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"meibo/bench/hosttest"
)

// otherKey is the secret of another cluster.
const otherKey = "YW5vdGhlciBmbGVldCdzIHNlY3JldCBrZXkgMDEyMzQ="

// TestFleet_HistoriesDontMix has a server lose its Raft files, the cluster go on from one surviving server, and an old
// server come back with what it had.
func TestFleet_HistoriesDontMix(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 3)
		for _, h := range f.servers() {
			h.extra = quickVotes
		}
		f.start()
		w := &recorder{from: f.host("a1")}
		w.must(3)
		f.externalNode(w, "printer")
		f.externalNode(w, "scanner")
		f.raftFilesGone(w)
		old := f.oneServerLeft(w)
		f.oldServerComesBack(w, old)
		f.client.settled()
		f.client.check()
	})
}

// registered reports which host doesn't answer for a service of one instance.
func (f *fleet) registered(name string) error {
	for _, h := range f.hosts {
		if h.proc == nil {
			continue
		}
		if addrs, err := h.resolve(name + ".service.consul."); err != nil || len(addrs) != 1 {
			return fmt.Errorf("%s on %s: %v %w", name, h.name, addrs, err)
		}
	}
	return nil
}

// externalNode registers a node that no agent answers for, with a service of its name, and waits until all hosts answer.
func (f *fleet) externalNode(w *recorder, name string) {
	f.t.Helper()
	hosttest.Must(f.t, w.from.call("PUT", "/v1/catalog/register", fmt.Sprintf(`{"Node":%q,"Address":"192.0.2.9","Service":{"Service":%q,"Port":631}}`, name, name), nil))
	w.wrote = append(w.wrote, name)
	hosttest.Eventually(f.t, name+" on every host", func() error { return f.registered(name) })
}

// unknown reports which host answers for a service.
func (f *fleet) unknown(name string) error {
	for _, h := range f.hosts {
		if h.proc == nil {
			continue
		}
		if addrs, err := h.resolve(name + ".service.consul."); err == nil || !strings.HasPrefix(err.Error(), "NXDOMAIN") {
			return fmt.Errorf("%s on %s: %v %v, want NXDOMAIN", name, h.name, addrs, err)
		}
	}
	return nil
}

// raftFilesGone takes the Raft files from a stopped follower, while writes go on.
func (f *fleet) raftFilesGone(w *recorder) {
	f.t.Helper()
	victim := f.follower()
	before := f.raftID(victim)
	ctx, stop := context.WithCancel(f.t.Context())
	defer stop()
	var wg sync.WaitGroup
	var failed []error
	var longest time.Duration
	wg.Go(func() {
		for ctx.Err() == nil {
			begin := time.Now()
			if err := w.write(); err != nil {
				failed = append(failed, err)
			}
			longest = max(longest, time.Since(begin))
			hosttest.Pause(50 * time.Millisecond)
		}
	})
	victim.kill()
	hosttest.Must(f.t, os.RemoveAll(filepath.Join(victim.data(), "raft")))
	victim.up()
	begin := time.Now()
	var seen []string
	hosttest.Eventually(f.t, "the server votes under another ID", func() error {
		phase, err := f.phaseOf(victim, before)
		if err == nil && (len(seen) == 0 || seen[len(seen)-1] != phase) {
			seen = append(seen, phase)
		}
		if phase != "votes" {
			return fmt.Errorf("%s: %s %w", victim.name, phase, err)
		}
		return nil
	})
	took := time.Since(begin)
	stop()
	wg.Wait()
	f.recovered(victim, w)
	hosttest.Eventually(f.t, "every acknowledged write on every server", func() error { return f.holds(w.wrote) })
	f.t.Logf("Raft files gone: %v; votes again after %v; meanwhile %d writes, %d failed, the longest took %v", seen,
		took.Round(time.Millisecond), w.n, len(failed), longest.Round(time.Millisecond))
	if !slices.Contains(seen, "listens") {
		f.t.Errorf("%s came back as %v, want a time without a vote", victim.name, seen)
	}
	if len(failed) > 0 {
		f.t.Errorf("with two of three servers there all the time %d writes failed: %v", len(failed), failed[0])
	}
}

// phaseOf is what the leader's configuration says of a server that had another ID before.
func (f *fleet) phaseOf(h *fleetHost, before string) (string, error) {
	peers, err := f.leader().peers()
	phase := "is out"
	for _, p := range peers {
		switch {
		case !strings.HasPrefix(p.Address, h.addr()+":"):
		case p.inRaft() == before:
			phase = "is missed"
		case p.Voter:
			return "votes", err
		default:
			phase = "listens"
		}
	}
	return phase, err
}

// oneServerLeft wipes two servers of three and has the third go on alone by peers.json; it returns where the disk of one
// of the two is kept as it was.
func (f *fleet) oneServerLeft(w *recorder) (old string) {
	f.t.Helper()
	s1, s2, s3 := f.host("s1"), f.host("s2"), f.host("s3")
	history, id := s1.history(), f.raftID(s1)
	for _, s := range f.servers() {
		s.kill()
	}
	old = s2.dir + "-old"
	hosttest.Must(f.t, os.Rename(s2.dir, old))
	hosttest.Must(f.t, os.RemoveAll(s3.dir))
	for _, s := range []*fleetHost{s2, s3} {
		hosttest.Must(f.t, os.MkdirAll(s.dir, 0o755))
	}
	hosttest.WriteFile(f.t, filepath.Join(s1.data(), "raft"), "peers.json", fmt.Sprintf(`[{"id":%q,"address":"%s:8300","non_voter":false}]`, id, s1.addr()))
	s1.up()
	begin := time.Now()
	hosttest.Eventually(f.t, "the server goes on alone", w.write)
	took := time.Since(begin)
	if now := s1.history(); now == history || now == "" {
		f.t.Errorf("after peers.json the history is %q, as before: want another", now)
	}
	if _, err := os.Stat(filepath.Join(s1.data(), "raft", "peers.json")); err == nil {
		f.t.Error("peers.json is still there, to be used again")
	}
	hosttest.Must(f.t, s1.holdsAll(w))
	s2.up()
	s3.up()
	f.whole()
	hosttest.Eventually(f.t, "three servers vote", func() error { return f.voters(3) })
	hosttest.Eventually(f.t, "the catalog is complete", func() error { return f.complete(map[string]int{"web": 3, "api": 2, "db": 1, "printer": 1}) })
	hosttest.Eventually(f.t, "every acknowledged write on every server", func() error { return f.holds(w.wrote) })
	f.t.Logf("peers.json: a write %v after the one server's start, all three vote and have all after %v",
		took.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
	return old
}

func (h *fleetHost) holdsAll(w *recorder) error { return h.fleet.holds(w.wrote) }

// history is the one that the host goes by.
func (h *fleetHost) history() string {
	var s struct{ History string }
	hosttest.Must(h.fleet.t, h.get("/v1/meibo/members", &s))
	return s.History
}

// oldServerComesBack puts the disk of another time into a server.
func (f *fleet) oldServerComesBack(w *recorder, old string) {
	f.t.Helper()
	gone, s2 := f.host("a3"), f.host("s2")
	gone.deregister("web")
	hosttest.Must(f.t, w.from.call("PUT", "/v1/catalog/deregister", `{"Node":"scanner"}`, nil))
	w.wrote = slices.DeleteFunc(w.wrote, func(name string) bool { return name == "scanner" })
	f.client.settled()
	hosttest.Eventually(f.t, "the external service is gone", func() error { return f.unknown("scanner") })
	history := f.host("s1").history()

	s2.down()
	hosttest.Must(f.t, os.RemoveAll(s2.dir))
	hosttest.Must(f.t, os.Rename(old, s2.dir))
	since := len(s2.log())
	f.client.apart([]*fleetHost{s2}, []*fleetHost{gone}) // what it had on disk is answered until it hears from a server
	s2.up()
	took := hosttest.Eventually(f.t, "the old server answers what is true", func() error {
		return errors.Join(f.client.exactOn(s2), f.unknown("scanner"))
	})
	f.client.together([]*fleetHost{s2}, []*fleetHost{gone})
	w.must(3)
	hosttest.Eventually(f.t, "somebody says that it belongs elsewhere", func() error {
		var all []error
		for _, s := range f.servers() {
			from := 0
			if s == s2 {
				from = since
			}
			err := s.says("two bootstraps", from)
			if err != nil {
				err = s.says("belongs to another cluster", from)
			}
			if err == nil {
				return nil
			}
			all = append(all, err)
		}
		return errors.Join(all...)
	})
	f.client.soak(2 * time.Second)
	f.client.settled()
	hosttest.Must(f.t, f.unknown("scanner"))
	for _, h := range f.hosts {
		if now := h.history(); now != history {
			f.t.Errorf("%s goes by history %s, want %s", h.name, now, history)
		}
	}
	f.t.Logf("an old server with the old history: it answers what is true after %v, nothing comes back", took.Round(time.Millisecond))
}
