package main

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meibo/bench/hosttest"
	"meibo/resolver/wire"
)

// TestSmoke plays a small fleet for a short time: every phase runs, no lookup fails, no answer is wrong, and a script finds
// its figures. Times are not judged.
func TestSmoke(t *testing.T) {
	bin, err := hosttest.Binary()
	hosttest.Must(t, err)
	dir := t.TempDir()
	self := filepath.Join(dir, "cluster")
	if out, err := exec.Command("go", "build", "-o", self, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file := filepath.Join(dir, "figures.json")
	cmd := exec.Command(self, "-bin", bin, "-hosts", "300", "-services", "100", "-instances", "1000", "-uses", "20", "-lookups", "20",
		"-duration", "4s", "-window", "2s", "-start", "2s", "-processes", "2", "-json", file, "-write", "-folder", dir)
	hosttest.Must(t, os.WriteFile(filepath.Join(dir, "RESULTS.md"), []byte("# Measurements\n"), 0o600))
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil && !strings.Contains(string(out), "the run is void") { // a busy machine, as it says
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	hosttest.Must(t, err)
	var figures map[string]any
	hosttest.Must(t, json.Unmarshal(text, &figures))
	for _, name := range []string{
		"hosts", "lookups", "failed_lookups", "wrong_answers", "change_p99_ms", "server_cpu_cores", "server_rss_mb", "streams", "pushes_per_s",
	} {
		if _, ok := figures[name].(float64); !ok {
			t.Errorf("no figure %q in %s", name, text)
		}
	}
	for _, name := range []string{"failed_lookups", "wrong_answers", "changes_not_seen"} {
		if figures[name] != 0.0 {
			t.Errorf("%s: %v, want 0", name, figures[name])
		}
	}
	for _, name := range []string{"load-staleness.svg", "growth.svg", "cluster-300.json"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFleet_InstancesOfNodes(t *testing.T) {
	f := fleet{Hosts: 101, Services: 40, Each: 7, Uses: 10}
	for s := range f.Services {
		for n := range f.Hosts {
			if i, ok := f.instance(s, n); ok && f.node(s, i) != n {
				t.Fatalf("service %d has instance %d on host %d and on %d", s, i, n, f.node(s, i))
			}
		}
		for i := range f.Each {
			if got, ok := f.instance(s, f.node(s, i)); !ok || got != i {
				t.Fatalf("instance %d of service %d: %d, %v", i, s, got, ok)
			}
		}
	}
	uses := f.uses(3, newZipf(f.Services))
	if len(uses) != f.Uses || uses[0] != hot {
		t.Errorf("a host uses %v, want %d services with %d first", uses, f.Uses, hot)
	}
}

func TestJudge(t *testing.T) {
	f := fleet{Hosts: 100, Services: 10, Each: 3, Uses: 10}
	p := &Player{cfg: Config{Fleet: f, Late: 3 * time.Second}, truths: make([]truth, f.Services)}
	committed := time.Now()
	for s := range p.truths {
		p.truths[s].now.Store(f.all())
	}
	p.truths[1].before.Store(0b111)
	p.truths[1].now.Store(0b011)
	p.truths[1].since.Store(committed.UnixNano())
	answer := func(name string, rcode uint16, s int, instances ...int) (*wire.Query, []byte) {
		n, err := wire.ParseName(name)
		hosttest.Must(t, err)
		q := wire.NewQuery(n, wire.TypeA)
		r := wire.Reply{Rcode: rcode}
		for _, i := range instances {
			r.RRs = append(r.RRs, wire.RR{Owner: n, Type: wire.TypeA, Data: wire.A(nodeAddr(f.node(s, i)))})
		}
		a, err := wire.Pack(q, &r)
		hosttest.Must(t, err)
		return q, a.Append(nil, q, wire.Render{})
	}
	for _, tt := range []struct {
		what, name           string
		rcode                uint16
		instances            []int
		service              int
		asked                time.Duration // after the change was acknowledged
		failed, stale, wrong int64
	}{
		{"all instances", "svc-0002.service.consul.", 0, []int{0, 1, 2}, 2, 0, 0, 0, 0},
		{"one is missing", "svc-0002.service.consul.", 0, []int{0, 2}, 2, 0, 0, 0, 1},
		{"another service's", "svc-0002.service.consul.", 0, []int{0, 1, 2}, 5, 0, 0, 0, 1},
		{"a change shows", "svc-0001.service.consul.", 0, []int{0, 1}, 1, time.Second, 0, 0, 0},
		{"a change on its way", "svc-0001.service.consul.", 0, []int{0, 1, 2}, 1, -time.Second, 0, 0, 0},
		{"a change not there yet", "svc-0001.service.consul.", 0, []int{0, 1, 2}, 1, time.Second, 0, 1, 0},
		{"a change that is late", "svc-0001.service.consul.", 0, []int{0, 1, 2}, 1, 4 * time.Second, 0, 1, 1},
		{"no answer", "svc-0001.service.consul.", 2, nil, 1, 0, 1, 0, 0},
		{"nothing in it", "svc-0001.service.consul.", 0, nil, 1, 0, 1, 0, 0},
		{"nobody's name", "no-svc-0001.service.consul.", 3, nil, 1, 0, 0, 0, 0},
		{"nobody's name answered", "no-svc-0001.service.consul.", 0, []int{0}, 1, 0, 1, 0, 0},
		{"forwarded", "svc-0001.example.com.", 0, []int{0}, 1, 0, 0, 0, 0},
		{"forwarded and denied", "svc-0001.example.com.", 3, nil, 1, 0, 1, 0, 0},
	} {
		q, msg := answer(tt.name, tt.rcode, tt.service, tt.instances...)
		if failed, stale, wrong := p.judge(q, msg, committed.Add(tt.asked)); failed != tt.failed || stale != tt.stale || wrong != tt.wrong {
			t.Errorf("%s: failed %d, stale %d, wrong %d; want %d, %d, %d", tt.what, failed, stale, wrong, tt.failed, tt.stale, tt.wrong)
		}
	}
}

func TestSimulateTTL(t *testing.T) {
	f := fleet{Hosts: 20, Services: 50, Each: 3, Uses: 10}
	none := simulateTTL(f, 0, 10, 5, 0.9, 0.1)
	if none.StaleShare != 0 || math.Abs(none.Queries-200) > 5 {
		t.Errorf("without a TTL: %+v, want every lookup asked and none stale", none)
	}
	kept := simulateTTL(f, 30*time.Second, 10, 5, 0.9, 0.1)
	if kept.Queries > 40 || kept.StaleShare < 0.1 || kept.P99 < 25 || kept.P50 < 10 || kept.P50 > 20 || kept.Max > 30.5 {
		t.Errorf("with a TTL of 30 s: %+v, want far fewer questions, and changes that show after half of it", kept)
	}
}

func TestFit(t *testing.T) {
	var list []result
	for _, n := range []int{100, 1000, 5000} {
		h := float64(n)
		list = append(list, result{Hosts: n, IdleCores: 0.05 + h*1e-5, RestCores: 0.1, Cores: 0.1 + h*1e-6, Rate: 10, Users: h / 10,
			ServersMB: 300 + h/10, RestBytes: 10 * h, Bytes: 20 * h, AllKilled: event{Seconds: 3 + h/500}})
	}
	m, err := fit(list)
	hosttest.Must(t, err)
	for _, term := range m.terms {
		if math.Abs(term.off) > 1e-6 {
			t.Errorf("%s: off by %g at the size that it wasn't fitted to", term.what, term.off)
		}
	}
	if text := m.String(); !strings.Contains(text, "| 200000 |") || !strings.Contains(text, "relays") {
		t.Errorf("the model says:\n%s", text)
	}
	if _, err := fit(list[:2]); err == nil {
		t.Error("two sizes make a model")
	}
}

func TestOptions_BadOnesAreNamed(t *testing.T) {
	good := options{Hosts: 100, Services: 10, Instances: 100, Uses: 5, Lookups: 1, Changes: 1, Duration: time.Second, Window: time.Second, Processes: 1, Memory: 1, bin: "x"}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*options){
		"-hosts 0":         func(o *options) { o.Hosts = 0 },
		"-services 0":      func(o *options) { o.Services = 0 },
		"-instances 10000": func(o *options) { o.Instances = 10_000 },
		"-loss":            func(o *options) { o.Loss = 1.5 },
		"-lookups":         func(o *options) { o.Lookups = 0 },
		"-changes":         func(o *options) { o.Changes = math.NaN() },
		"-last":            func(o *options) { o.Last = "nosuchphase" },
		"-window":          func(o *options) { o.Window = 0 },
		"-bin":             func(o *options) { o.bin = "" },
	} {
		o := good
		change(&o)
		if err := o.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
}
