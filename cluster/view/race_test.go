package view

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"meibo/cluster/catalog"
)

// TestRule5_NoReaderServesLateWhileWritersChange has readers cache by the rule
// while writers change, retire and make anew one name. What a writer has
// finished must show in every answer that is given afterwards.
func TestRule5_NoReaderServesLateWhileWritersChange(t *testing.T) {
	const changes = 5000
	agent := &agentDouble{}
	agent.set(node("me", "10.0.0.1"))
	v := mustNew(t, Config{NodeName: "me", NodeID: "id-me", Local: agent})
	v.applyUpdate(whole(1))

	// started and finished are the newest versions that may show and must show.
	var started, finished atomic.Int64
	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	writers.Go(func() {
		for n := 1; n <= changes; n++ {
			started.Store(int64(n))
			if n%3 == 0 {
				// A version of its own: the name does not exist.
				agent.set(node("me", "10.0.0.1"))
			} else {
				agent.set(node("me", "10.0.0.1", service("web", n)))
			}
			v.OnLocalChange()
			finished.Store(int64(n))
		}
	})
	writers.Go(func() { // another writer, of what readers don't ask for
		for n := range changes {
			v.applyUpdate(update(uint64(n+2), node("n2", "10.0.0.2", service("db", n%7), check("c", catalog.Passing, "db"))))
		}
	})
	var hits, misses atomic.Int64
	for range 2 {
		readers.Go(func() {
			var e entry
			for {
				select {
				case <-stop:
					return
				default:
				}
				floor := finished.Load()
				if e.name == nil || !e.counts() {
					e = build(v)
					misses.Add(1)
				} else {
					hits.Add(1)
				}
				if isLate(e.content, floor, &started) {
					t.Errorf("after change %d: served %q", floor, e.content)
					return
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	t.Logf("%d hits, %d misses", hits.Load(), misses.Load())
}

// build makes an entry by rule 2.
func build(v *View) entry {
	for {
		s := v.Load()
		e := entry{name: counterOf(s, "web"), epoch: s.Epoch()}
		e.nameValue, e.epochValue = e.name.Load(), e.epoch.Load()
		if v.Load() != s {
			continue
		}
		e.content = "no"
		if instances, _, known := s.Service("web"); known == catalog.Present {
			e.content = strconv.Itoa(instances[0].Service.Port)
		}
		return e
	}
}

// isLate reports whether an answer is older than version floor. One that says no
// is of any third version, so it is late if none of those can have shown since.
func isLate(content string, floor int64, started *atomic.Int64) bool {
	if content == "no" {
		return (floor+2)/3*3 > started.Load()
	}
	version, _ := strconv.ParseInt(content, 10, 64)
	return version < floor
}

func TestChange_InALargeCatalogTouchesOnlyWhatItChanges(t *testing.T) {
	const services = 5000
	var nodes []Record
	for i := range services {
		n := strconv.Itoa(i)
		nodes = append(nodes, node("n"+n, "10.0."+strconv.Itoa(i/250)+"."+strconv.Itoa(i%250), service("s"+n, 80)))
	}
	v := mustNew(t, Config{})
	v.applyUpdate(whole(1, nodes...))
	n := uint64(1)
	change := func() {
		n++
		v.applyUpdate(update(n, node("n42", "10.0.0.42", service("s42", int(n)))))
	}
	// A copy of any of the tables would take thousands.
	if got := testing.AllocsPerRun(20, change); got > 80 {
		t.Errorf("%v allocations for one change", got)
	}
}

func BenchmarkChange(b *testing.B) {
	var nodes []Record
	for i := range 5000 {
		n := strconv.Itoa(i)
		nodes = append(nodes, node("n"+n, "10.0."+strconv.Itoa(i/250)+"."+strconv.Itoa(i%250), service("s"+n, 80), service("big", 80)))
	}
	for name, which := range map[string]string{"small": "s42", "with an instance of 5000": "big"} {
		b.Run(name, func(b *testing.B) {
			v := mustNew(b, Config{})
			v.applyUpdate(whole(1, nodes...))
			rec := nodes[42]
			n := 1
			b.ReportAllocs()
			for b.Loop() {
				n++
				changed := Record{Node: rec.Node, Checks: rec.Checks}
				for _, s := range rec.Services {
					if s.Service == which {
						s = service(which, n)
					}
					changed.Services = append(changed.Services, s)
				}
				v.applyUpdate(update(uint64(n), changed))
			}
		})
	}
}

// BenchmarkPart is one change of a service of 5,000 instances, told as its part
// alone, as a stream does.
func BenchmarkPart(b *testing.B) {
	v := mustNew(b, Config{})
	start := base(1, "big")
	start.Complete = []string{"big"}
	for i := range 5000 {
		n := strconv.Itoa(i)
		rec := node("n"+n, "10.0."+strconv.Itoa(i/250)+"."+strconv.Itoa(i%250))
		start.Nodes = append(start.Nodes, catalog.NodeState{Node: rec.Node})
		start.Parts = append(start.Parts, part1("big", "n"+n))
	}
	mustTake(b, v, start)
	b.ReportAllocs()
	for n := uint64(2); b.Loop(); n++ {
		p := part1("big", "n42")
		p.Checks = []*catalog.Check{check("c", []string{catalog.Passing, catalog.Critical}[n%2], "big")}
		mustTake(b, v, catalog.Update{History: catalog.History{ID: "h1"}, Index: n, Parts: []catalog.Part{p}})
	}
}
