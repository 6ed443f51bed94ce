package check

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		def  Definition
		want string // empty: valid
	}{
		"http":                    {Definition{HTTP: "http://h/", Interval: time.Second}, ""},
		"ttl":                     {Definition{TTL: time.Second}, ""},
		"alias":                   {Definition{AliasService: "db"}, ""},
		"script":                  {Definition{ScriptArgs: []string{"x"}, Interval: time.Second}, ""},
		"grpc with service":       {Definition{GRPC: "h:1/s", Interval: time.Second}, ""},
		"port alone":              {Definition{TCP: ":80", Interval: time.Second}, ""},
		"nothing":                 {Definition{}, "TTL must be > 0"},
		"interval and ttl":        {Definition{HTTP: "http://h/", Interval: 1, TTL: 1}, "cannot both be specified"},
		"no interval":             {Definition{TCP: "h:1"}, "Interval must be > 0"},
		"alias with interval":     {Definition{AliasService: "db", HTTP: "http://h", Interval: 1}, "Interval cannot be set for Alias"},
		"alias with ttl":          {Definition{AliasNode: "n", TTL: 1}, "TTL must not be set for Alias"},
		"output size":             {Definition{TTL: 1, OutputMaxSize: -1}, "must be positive"},
		"docker":                  {Definition{DockerContainerID: "c", ScriptArgs: []string{"x"}, Interval: 1}, ""},
		"docker, no interval":     {Definition{DockerContainerID: "c"}, "Interval must be > 0"},
		"scheme":                  {Definition{HTTP: "ftp://h/", Interval: 1}, ""}, // always critical, see TestHTTP_WithoutASchemeIsCritical
		"header injection":        {Definition{HTTP: "http://h/", Interval: 1, Header: map[string][]string{"A": {"b\r\nC: d"}}}, "line break"},
		"method":                  {Definition{HTTP: "http://h/", Interval: 1, Method: "G T"}, "invalid method"},
		"tcp without port":        {Definition{TCP: "h", Interval: 1}, "must be host:port"},
		"option as unit":          {Definition{OSService: "--all", Interval: 1}, "not the name of a unit"},
		"warning beyond critical": {Definition{TCP: "h:1", Interval: 1, FailuresBeforeWarning: 3, FailuresBeforeCritical: 2}, "can't be higher"},
		"negative threshold":      {Definition{TCP: "h:1", Interval: 1, SuccessBeforePassing: -1}, "must not be negative"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.def.Validate()
			switch {
			case c.want == "" && err != nil:
				t.Errorf("got %v, want none", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestScript_NeedsPermission(t *testing.T) {
	_, err := New(Config{Definition: Definition{ScriptArgs: []string{"x"}, Interval: 1}, Report: func(string, string) {}})
	if !errors.Is(err, ErrScriptsDisabled) {
		t.Errorf("got %v", err)
	}
}

func TestThresholds(t *testing.T) {
	for name, c := range map[string]struct {
		def     Definition
		results string // p, w, c
		want    string // what shows after each; - before the first
	}{
		"none":             {Definition{}, "pcwcp", "pcwcp"},
		"passing":          {Definition{SuccessBeforePassing: 3}, "ppcpppp", "--cccpp"},
		"warning counts":   {Definition{SuccessBeforePassing: 2}, "cwp", "ccp"},
		"critical":         {Definition{FailuresBeforeCritical: 3}, "pccpccc", "ppppppc"},
		"warning first":    {Definition{FailuresBeforeWarning: 1, FailuresBeforeCritical: 3}, "pcccp", "pwwcp"},
		"two then three":   {Definition{FailuresBeforeWarning: 2, FailuresBeforeCritical: 3}, "pcccc", "ppwcc"},
		"passing and both": {Definition{SuccessBeforePassing: 2, FailuresBeforeCritical: 2}, "ppccppc", "-ppccpp"},
	} {
		t.Run(name, func(t *testing.T) {
			counter, shown, got := newCounter(&c.def), "-", ""
			letters := map[byte]string{'p': Passing, 'w': Warning, 'c': Critical}
			for i := range len(c.results) {
				if s, ok := counter.count(letters[c.results[i]]); ok {
					shown = s[:1]
				}
				got += shown
			}
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// fakeProber passes, after taking its time.
type fakeProber struct {
	takes   time.Duration
	running atomic.Int32
	most    atomic.Int32
	runs    atomic.Int32
}

func (p *fakeProber) probe(ctx context.Context) (string, string) {
	p.runs.Add(1)
	if n := p.running.Add(1); n > p.most.Load() {
		p.most.Store(n)
	}
	defer p.running.Add(-1)
	select {
	case <-time.After(p.takes):
	case <-ctx.Done():
	}
	return Passing, ""
}

func mustNew(t *testing.T, cfg Config) *Runner {
	t.Helper()
	start := time.Now()
	if cfg.Now == nil {
		cfg.Now = func() time.Duration { return time.Since(start) }
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestInterval_FirstRunIsSpreadThenSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var at []time.Duration
		began := time.Now()
		r := mustNew(t, Config{Definition: Definition{TCP: "h:1", Interval: 10 * time.Second}, Report: func(string, string) { at = append(at, time.Since(began)) }})
		r.prober = &fakeProber{takes: time.Second}
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		time.Sleep(time.Minute)
		cancel()
		<-done
		if len(at) < 5 || at[0] > 11*time.Second {
			t.Fatalf("got runs at %v", at)
		}
		for i := 1; i < len(at); i++ {
			if gap := at[i] - at[i-1]; gap != 10*time.Second {
				t.Errorf("got a gap of %v", gap)
			}
		}
	})
}

func TestInterval_RaisedToASecond(t *testing.T) {
	r := mustNew(t, Config{Definition: Definition{TCP: "h:1", Interval: time.Millisecond}, Report: func(string, string) {}})
	if r.def.Interval != time.Second {
		t.Errorf("got %v", r.def.Interval)
	}
}

func TestSlots_BoundWhatBeginsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		slots, shared := NewSlots(4), &fakeProber{takes: holdSlot / 4}
		var running sync.WaitGroup
		for range 100 {
			r := mustNew(t, Config{Definition: Definition{TCP: "h:1", Interval: time.Second}, Slots: slots, Report: func(string, string) {}})
			r.prober = shared
			running.Go(func() { r.Run(ctx) })
		}
		time.Sleep(time.Minute)
		if got := shared.most.Load(); got != 4 {
			t.Errorf("got %d at once", got)
		}
		if got := shared.runs.Load(); got < 5500 {
			t.Errorf("got only %d runs", got)
		}
		cancel()
		running.Wait()
		if got := slots.load(KindTCP); got.Running+got.Waiting != 0 {
			t.Errorf("at the end: %+v", got)
		}
	})
}

// A check that waits for a silent target makes no other wait: not of another kind, and not of its own.
func TestSlots_SilenceHoldsNobodyUp(t *testing.T) {
	for _, kind := range []Definition{{TCP: "h:1"}, {HTTP: "http://h"}, {GRPC: "h:1"}, {UDP: "h:1"}, {H2PING: "h:1"}, {OSService: "x"}, {ScriptArgs: []string{"x"}}} {
		t.Run(string(kind.Kind()), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				slots, silent, quick := NewSlots(0), &fakeProber{takes: 10 * time.Second}, &fakeProber{takes: time.Millisecond}
				var running sync.WaitGroup
				start := func(p *fakeProber, interval time.Duration) {
					kind.Interval = interval
					r := mustNew(t, Config{Definition: kind, Slots: slots, ScriptsAllowed: true, Report: func(string, string) {}})
					r.prober = p
					running.Go(func() { r.Run(ctx) })
				}
				for range 1000 {
					start(silent, 10*time.Second)
				}
				start(quick, time.Second)
				time.Sleep(60*time.Second + holdSlot)
				if got := quick.runs.Load(); got < 59 {
					t.Errorf("%d runs in a minute, one a second was asked for", got)
				}
				if got := slots.load(kind.Kind()); got.Running < 800 {
					t.Errorf("%+v", got)
				}
				cancel()
				running.Wait()
			})
		})
	}
}

// load is what Loads says of one kind.
func (s *Slots) load(kind Kind) (of Load) {
	for _, l := range s.Loads() {
		if l.Kind == kind {
			of = l
		}
	}
	return of
}

func TestRun_StoppedInTheMiddleReportsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		r := mustNew(t, Config{Definition: Definition{TCP: "h:1", Interval: time.Second}, Report: func(s, o string) { t.Errorf("reported %s %q", s, o) }})
		r.prober = &fakeProber{takes: time.Hour}
		r.Run(ctx)
	})
}

func TestTTL_ExpiresUnlessRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		var got []string
		add := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, s)
		}
		r := mustNew(t, Config{Definition: Definition{TTL: 30 * time.Second}, Report: func(s, o string) { add(s + " " + o) }})
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		for range 4 {
			time.Sleep(25 * time.Second)
			if err := r.Update(Passing, "fine"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(29 * time.Second)
		synctest.Wait()
		add("still")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		cancel()
		<-done
		want := []string{"passing fine", "passing fine", "passing fine", "passing fine", "still",
			"critical TTL expired (last output before timeout follows): fine"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestTTL_TimeLeftAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var at []time.Duration
		began := time.Now()
		r := mustNew(t, Config{Definition: Definition{TTL: time.Hour}, Expires: 3 * time.Second, Report: func(string, string) { at = append(at, time.Since(began)) }})
		r.Run(ctx)
		if len(at) != 1 || at[0] != 3*time.Second {
			t.Errorf("got %v", at)
		}
	})
}

// A timer stands still while the host is suspended; boot time goes on.
func TestTTL_SuspendCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var suspended atomic.Int64
		began := time.Now()
		var at []time.Duration
		r := mustNew(t, Config{
			Definition: Definition{TTL: time.Hour},
			Now:        func() time.Duration { return time.Since(began) + time.Duration(suspended.Load()) },
			Report:     func(string, string) { at = append(at, time.Since(began)) },
		})
		time.AfterFunc(5*time.Second, func() { suspended.Store(int64(2 * time.Hour)) })
		r.Run(ctx)
		if len(at) != 1 || at[0] > 5*time.Second+maxNap {
			t.Errorf("got expiry at %v", at)
		}
	})
}

func TestUpdate_Refusals(t *testing.T) {
	r := mustNew(t, Config{Definition: Definition{TCP: "h:1", Interval: 1}, Report: func(string, string) {}})
	if err := r.Update(Passing, ""); !errors.Is(err, ErrNotTTL) {
		t.Errorf("got %v", err)
	}
	r = mustNew(t, Config{Definition: Definition{TTL: 1}, Report: func(string, string) {}})
	if err := r.Update("fine", ""); err == nil {
		t.Error("a status that does not exist was taken")
	}
}

func TestAlias_FollowsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		changed := make(chan struct{}, 1)
		var status atomic.Value
		status.Store(Critical)
		var got []string
		r := mustNew(t, Config{Definition: Definition{AliasService: "db"}, Changed: changed,
			Alias:  func(context.Context) (string, string) { return status.Load().(string), "" },
			Report: func(s, _ string) { got = append(got, s) }})
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		synctest.Wait()
		status.Store(Passing)
		changed <- struct{}{}
		synctest.Wait()
		cancel()
		<-done
		if diff := cmp.Diff([]string{Critical, Passing}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestOutput_TheBeginningIsKept(t *testing.T) {
	for _, c := range []struct {
		in             string
		max            int
		want, captures string
	}{
		{"short", 10, "short", "short"},
		{"0123456789", 4, "0123", "0123 ... (captured 4 of 10 bytes)"},
		{"aé", 2, "a", "a ... (captured 1 of 3 bytes)"},
		{"é", 1, "", " ... (captured 0 of 2 bytes)"},
		{"a\xffb", 9, "a\uFFFDb", "a\uFFFDb"},
		{"", 0, "", ""},
	} {
		if got := keepHead(c.in, c.max); got != c.want {
			t.Errorf("keepHead(%q, %d): got %q, want %q", c.in, c.max, got, c.want)
		}
		if got := captured(c.in, c.max); got != c.captures {
			t.Errorf("captured(%q, %d): got %q, want %q", c.in, c.max, got, c.captures)
		}
	}
}

func TestUpdate_LongOutputSaysWhatWasCut(t *testing.T) {
	for size, want := range map[int]string{0: " ... (captured 4096 of 5000 bytes)", 100: " ... (captured 100 of 5000 bytes)", 5000: "b"} {
		var got string
		r := mustNew(t, Config{Definition: Definition{TTL: time.Minute, OutputMaxSize: size}, Report: func(_, output string) { got = output }})
		if err := r.Update(Passing, "first"+strings.Repeat("b", 4995)); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(got, "first") || !strings.HasSuffix(got, want) {
			t.Errorf("%d: got %.20q … %q", size, got, got[max(len(got)-50, 0):])
		}
	}
}
