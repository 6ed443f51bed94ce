package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/link"
)

// world is a cluster of which only the links and the endpoints are real: who leads
// is what the test says, and a write is one entry in done.
type world struct {
	t testing.TB

	mu      sync.Mutex // guards following
	hosts   []*worldHost
	leader  *worldHost
	changed chan struct{}
	done    map[catalog.RequestID]int // how often each write was carried out
	index   int
	moved   chan struct{} // closed when index moves
	// onWrite is called at the leader after a write was carried out.
	onWrite func(at *worldHost) error
}

func newWorld(t testing.TB) *world {
	return &world{t: t, changed: make(chan struct{}), moved: make(chan struct{}), done: map[catalog.RequestID]int{}, index: 1}
}

// worldHost is one host: its link, its endpoint, and the API in front of it.
type worldHost struct {
	*Endpoint
	w      *world
	link   *link.Link
	name   string
	server bool
	kill   func()
	gone   chan struct{} // closed once it is killed

	// where this host believes a server to be, if not where the world knows.
	servers []string
	onHops  chan<- int  // hears how far each request has come; nil: nobody listens
	asked   chan string // paths of requests that this host answers itself, if anybody listens
}

func (w *world) add(name string, server bool, change ...func(*link.Config)) *worldHost {
	w.t.Helper()
	logger := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("host", name)
	w.mu.Lock()
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 77, byte(len(w.hosts) + 1)}), 0)
	w.mu.Unlock()
	self := link.Peer{ID: catalog.NewUUID(), Name: name, Datacenter: "dc1"}
	cfg := link.Config{Listen: addr, Self: self, Logger: logger}
	for _, f := range change {
		f(&cfg)
	}
	l, err := link.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	h := &worldHost{w: w, link: l, name: name, server: server, asked: make(chan string, 100)}
	h.Endpoint = New(Config{
		Transport: l.Transport(), Router: h, Self: self, Logger: logger,
		Scope: func(r *http.Request) (string, string, string) {
			if s, ok := r.Context().Value(scopeOfTest{}).([3]string); ok {
				return s[0], s[1], s[2]
			}
			return name, "dc1", r.Header.Get("X-Consul-Token")
		},
		WithScope: func(ctx context.Context, node, dc, token string) context.Context {
			return context.WithValue(ctx, scopeOfTest{}, [3]string{node, dc, token})
		},
		IsServer: w.isServer,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	h.gone = make(chan struct{})
	wg.Go(func() {
		defer close(h.gone)
		if err := l.Run(ctx); err != nil {
			w.t.Errorf("run %s: %v", name, err)
		}
	})
	serving, stop := context.WithCancel(context.Background())
	internal := map[string]HandlerFunc{pathApply: h.applyFor}
	wg.Go(func() {
		if err := l.Serve(serving, h.Handler(h, internal)); err != nil {
			w.t.Errorf("serve %s: %v", name, err)
		}
	})
	h.kill = sync.OnceFunc(func() {
		w.mu.Lock()
		w.hosts = slices.DeleteFunc(w.hosts, func(o *worldHost) bool { return o == h })
		w.mu.Unlock()
		cancel()
		<-h.gone // the links first, as when a process dies: nothing more is answered
		stop()
		wg.Wait()
	})
	w.t.Cleanup(h.kill)
	for { // until it serves
		tc, err := l.Dial(w.t.Context(), l.Addr().String(), link.HTTP, self.ID)
		if err == nil {
			tc.Close()
			break
		}
		if !errors.Is(err, link.ErrProtocol) {
			w.t.Fatal(err)
		}
	}
	w.mu.Lock()
	w.hosts = append(w.hosts, h)
	w.mu.Unlock()
	return h
}

type scopeOfTest struct{}

func (w *world) isServer(p link.Peer) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.hosts, func(h *worldHost) bool { return h.server && h.cfg.Self.ID == p.ID })
}

// lead makes h the leader; nil: nobody leads.
func (w *world) lead(h *worldHost) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leader = h
	close(w.changed)
	w.changed = make(chan struct{})
}

// move changes what reads return.
func (w *world) move() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	close(w.moved)
	w.moved = make(chan struct{})
}

func (w *world) writes() (times []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.done {
		times = append(times, n)
	}
	return times
}

func (h *worldHost) addr() string { return h.link.Addr().String() }

// Self implements Router.
func (h *worldHost) Self() (bool, bool) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	return h.server, h.w.leader == h
}

// Leader implements Router.
func (h *worldHost) Leader(string) (string, <-chan struct{}) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if !h.server || h.w.leader == nil {
		return "", h.w.changed
	}
	return h.w.leader.addr(), h.w.changed
}

// Servers implements Router.
func (h *worldHost) Servers(string) (addrs []string) {
	h.w.mu.Lock()
	defer h.w.mu.Unlock()
	if h.servers != nil {
		return h.servers
	}
	for _, o := range h.w.hosts {
		if o.server {
			addrs = append(addrs, o.addr())
		}
	}
	return addrs
}

// pathApply is a function that writes: the body names the host that it writes for.
const pathApply = "/internal/apply"

type applied struct{ Index uint64 }

func (h *worldHost) applyFor(ctx context.Context, from Caller, body []byte) (any, error) {
	if !from.IsServer && string(body) != from.Name {
		return nil, catalog.ErrNotAllowed
	}
	index, err := h.write(ctx)
	return applied{index}, err
}

// apply has the leader write for this host.
func (h *worldHost) apply(ctx context.Context) (uint64, error) {
	var reply applied
	err := h.Call(ctx, true, "", pathApply, []byte(h.name), &reply)
	return reply.Index, err
}

// write is what a server does to write.
func (h *worldHost) write(ctx context.Context) (uint64, error) {
	h.w.mu.Lock()
	if h.w.leader != h {
		h.w.mu.Unlock()
		return 0, RecordOutcome(ctx, catalog.ErrNoLeader)
	}
	id, ok := NextRequestID(ctx)
	if !ok {
		id = h.newRequestID()
	}
	// As the state machine: the same request is not carried out again.
	if h.w.done[id] == 0 {
		h.w.done[id]++
	}
	index, on := uint64(len(h.w.done)), h.w.onWrite
	h.w.mu.Unlock()
	if on != nil {
		if err := on(h); err != nil {
			return 0, RecordOutcome(ctx, err)
		}
	}
	return index, nil
}

// ServeHTTP is the API: what a client of the host, or another host, asks.
func (h *worldHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if in := inboundFrom(r.Context()); in != nil && h.onHops != nil {
		h.onHops <- in.hops
	}
	cons, write := catalog.Default, r.Method == http.MethodPut
	switch {
	case r.URL.Query().Has("stale"):
		cons = catalog.Stale
	case r.URL.Query().Has("consistent"):
		cons = catalog.Consistent
	case r.URL.Query().Has("cached"):
		cons = catalog.Cached
	}
	effect := catalog.Reads
	switch {
	case r.Method == http.MethodPost:
		effect, write = catalog.Acts, true
	case write:
		effect = catalog.Writes
	}
	if h.Forward(w, r, cons, effect, cons == catalog.Cached && inboundFrom(r.Context()) == nil) {
		return
	}
	select {
	case h.asked <- r.URL.RequestURI():
	default:
	}
	body, _ := io.ReadAll(r.Body)
	if write {
		if _, err := h.write(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	} else if at := r.URL.Query().Get("index"); at != "" {
		h.block(r.Context(), at)
		if r.Context().Err() != nil {
			panic(http.ErrAbortHandler) // who was killed answers nothing
		}
	}
	h.w.mu.Lock()
	w.Header().Set("X-Consul-Index", fmt.Sprint(h.w.index))
	h.w.mu.Unlock()
	scope, _ := r.Context().Value(scopeOfTest{}).([3]string)
	fmt.Fprintf(w, "%s %s for %v body %d", h.name, r.URL.Path, scope, len(body))
}

// block waits until the index differs.
func (h *worldHost) block(ctx context.Context, at string) {
	for {
		h.w.mu.Lock()
		now, moved := fmt.Sprint(h.w.index), h.w.moved
		h.w.mu.Unlock()
		if now != at {
			return
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return
		}
	}
}

// ask is a client's request to the host.
func (h *worldHost) ask(method, target string, body []byte) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(h.w.t.Context(), method, target, bytes.NewReader(body))
	r.Header.Set("X-Meibo-Hops", "2") // a client's own headers mean nothing
	r.Header.Set("X-Consul-Token", "secret")
	h.ServeHTTP(rec, r)
	return rec
}

func (h *worldHost) untilAsked(t testing.TB) string {
	t.Helper()
	select {
	case path := <-h.asked:
		return path
	case <-time.After(10 * time.Second):
		t.Fatalf("%s was never asked", h.name)
	}
	return ""
}

func wantAnswer(t testing.TB, rec *httptest.ResponseRecorder, status int, text string) {
	t.Helper()
	if got := rec.Body.String(); rec.Code != status || !strings.HasPrefix(got, text) {
		t.Fatalf("got %d %q, want %d %q", rec.Code, got, status, text)
	}
}

// three are two servers, the first of which leads, and an agent that asks the
// second.
func three(t testing.TB) (w *world, s1, s2, agent *worldHost) {
	w = newWorld(t)
	s1, s2, agent = w.add("s1", true), w.add("s2", true), w.add("agent", false)
	agent.servers = []string{s2.addr(), s1.addr()}
	w.lead(s1)
	return w, s1, s2, agent
}

func TestForward_GoesWhereTheConsistencyNeeds(t *testing.T) {
	_, s1, s2, agent := three(t)
	for _, tt := range []struct {
		at             *worldHost
		method, target string
		want           string
	}{
		{s1, "GET", "/v1/read", "s1 /v1/read"},
		{s1, "GET", "/v1/read?stale", "s1 /v1/read"},
		{s1, "PUT", "/v1/write", "s1 /v1/write"},
		{s2, "GET", "/v1/read", "s1 /v1/read for [s2 dc1 secret]"},
		{s2, "GET", "/v1/read?consistent", "s1 /v1/read"},
		{s2, "GET", "/v1/read?stale", "s2 /v1/read"},
		{s2, "PUT", "/v1/write", "s1 /v1/write for [s2 dc1 secret]"},
		{agent, "GET", "/v1/read?stale", "s2 /v1/read for [agent dc1 secret]"},
		{agent, "GET", "/v1/read?cached", "s1 /v1/read for [agent dc1 secret]"},
		{agent, "GET", "/v1/read", "s1 /v1/read for [agent dc1 secret]"},
		{agent, "PUT", "/v1/write", "s1 /v1/write for [agent dc1 secret]"},
	} {
		t.Run(tt.at.name+" "+tt.method+" "+tt.target, func(t *testing.T) {
			rec := tt.at.ask(tt.method, tt.target, []byte("body"))
			wantAnswer(t, rec, 200, tt.want)
			if rec.Header().Get("X-Consul-Index") != "1" {
				t.Errorf("headers %v", rec.Header())
			}
			for k := range rec.Header() {
				if strings.HasPrefix(k, headerPrefix) {
					t.Errorf("mark %s is left on the answer", k)
				}
			}
		})
	}
}

func TestForward_CarriesQueryAndBody(t *testing.T) {
	_, s1, _, agent := three(t)
	for _, size := range []int{0, 1, 100_000, maxBuffered, maxBuffered + 1, 2 * maxBuffered} {
		rec := agent.ask("PUT", "/v1/write/a%2Fb//c?x=1&y=%20", make([]byte, size))
		wantAnswer(t, rec, 200, fmt.Sprintf("s1 /v1/write/a/b//c for [agent dc1 secret] body %d", size))
		if got := s1.untilAsked(t); got != "/v1/write/a%2Fb//c?x=1&y=%20" {
			t.Errorf("arrived as %s", got)
		}
	}
}

func TestForward_NobodyLeadsIsConsuls500AfterTheHoldTime(t *testing.T) {
	w, s1, s2, agent := three(t)
	w.lead(nil)
	for _, h := range []*worldHost{s1, s2, agent} {
		h.cfg.Hold = 100 * time.Millisecond
		wantAnswer(t, h.ask("GET", "/v1/read", nil), 500, "No cluster leader")
		wantAnswer(t, h.ask("PUT", "/v1/write", nil), 500, "No cluster leader")
	}
	wantAnswer(t, agent.ask("GET", "/v1/read?stale", nil), 200, "s2")
	for _, h := range []*worldHost{s2, agent} { // which know it themselves
		wantAnswer(t, h.ask("GET", "/v1/read?cached", nil), 200, h.name)
	}
	agent.servers = []string{}
	wantAnswer(t, agent.ask("GET", "/v1/read", nil), 500, "No known Consul servers")
	if n := len(w.writes()); n != 0 {
		t.Errorf("%d writes were carried out", n)
	}
}

func TestForward_WaitsForALeader(t *testing.T) {
	w, _, s2, agent := three(t)
	w.lead(nil)
	var wg sync.WaitGroup
	for _, h := range []*worldHost{s2, agent} {
		for _, method := range []string{"GET", "PUT"} {
			wg.Go(func() {
				rec := h.ask(method, "/v1/x", []byte("body"))
				if rec.Code != 200 || !strings.HasPrefix(rec.Body.String(), "s2") || !strings.HasSuffix(rec.Body.String(), "4") {
					t.Errorf("%s at %s: got %d %q, want s2's answer to 4 bytes", method, h.name, rec.Code, rec.Body)
				}
			})
		}
	}
	time.AfterFunc(100*time.Millisecond, func() { w.lead(s2) })
	wg.Wait()
}

func TestForward_BlockingQueryOutlivesItsServer(t *testing.T) {
	w, s1, s2, agent := three(t)
	answers := make(chan *httptest.ResponseRecorder, 1)
	go func() { answers <- agent.ask("GET", "/v1/read?stale&index=1&wait=5m", nil) }()
	s2.untilAsked(t)
	s2.kill()
	again := s1.untilAsked(t)
	if !strings.Contains(again, "index=1") || strings.Contains(again, "wait=5m") {
		t.Errorf("asked again as %s, want less to wait", again)
	}
	w.move()
	rec := <-answers
	wantAnswer(t, rec, 200, "s1")
	if rec.Header().Get("X-Consul-Index") != "2" {
		t.Errorf("headers %v", rec.Header())
	}
}

func TestForward_BlockingQueryMovesToTheNewLeader(t *testing.T) {
	w, s1, s2, _ := three(t)
	s3 := w.add("s3", true)
	answers := make(chan *httptest.ResponseRecorder, 1)
	go func() { answers <- s2.ask("GET", "/v1/read?index=1", nil) }()
	s1.untilAsked(t)
	w.lead(nil)
	w.lead(s3) // s1 goes on as if frozen
	s3.untilAsked(t)
	w.lead(s2) // now it is this host itself
	s2.untilAsked(t)
	w.move()
	wantAnswer(t, <-answers, 200, "s2")
}

func TestForward_WriteIsCarriedOutOnceWhenTheLeaderDiesBeforeItAnswers(t *testing.T) {
	w, s1, s2, agent := three(t)
	s3 := w.add("s3", true)
	agent.servers = []string{s2.addr(), s3.addr()}
	var die sync.Once
	w.onWrite = func(at *worldHost) error {
		if at != s1 {
			return nil
		}
		die.Do(func() { go func() { s1.kill(); w.lead(s3) }() })
		<-s1.gone
		return nil
	}
	wantAnswer(t, agent.ask("PUT", "/v1/write", []byte("body")), 200, "s3 /v1/write for [agent dc1 secret] body 4")
	if got := w.writes(); !slices.Equal(got, []int{1}) {
		t.Errorf("writes carried out: %v, want one, once", got)
	}
}

func (w *world) all() []*worldHost {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.hosts)
}

func TestForward_WriteIsCarriedOutOnceWhenTheServerInBetweenDies(t *testing.T) {
	w, _, s2, agent := three(t)
	w.onWrite = func(*worldHost) error {
		if slices.Contains(w.all(), s2) {
			go s2.kill()
			<-s2.gone
		}
		return nil
	}
	wantAnswer(t, agent.ask("PUT", "/v1/write", nil), 200, "s1")
	if got := w.writes(); !slices.Equal(got, []int{1}) {
		t.Errorf("writes carried out: %v, want one, once", got)
	}
}

// What does something anew each time is sent once, unless it surely did not arrive.
func TestForward_ActsAreNotSentAgain(t *testing.T) {
	w, s1, s2, agent := three(t)
	t.Run("the leadership moves on the way, which it may have done itself", func(t *testing.T) {
		w.onWrite = func(at *worldHost) error { w.lead(s2); return nil }
		wantAnswer(t, agent.ask("POST", "/v1/act", nil), 200, "s1")
	})
	t.Run("its outcome is not known", func(t *testing.T) {
		w.lead(s1)
		w.onWrite = func(*worldHost) error { return fmt.Errorf("%w: leadership lost", catalog.ErrUnknownOutcome) }
		wantAnswer(t, agent.ask("POST", "/v1/act", nil), 500, "")
	})
	if got := w.writes(); !slices.Equal(got, []int{1, 1}) {
		t.Errorf("carried out: %v, want two, once each", got)
	}
	t.Run("nobody led", func(t *testing.T) {
		w.onWrite = nil
		w.lead(nil)
		time.AfterFunc(100*time.Millisecond, func() { w.lead(s2) })
		wantAnswer(t, agent.ask("POST", "/v1/act", nil), 200, "s2")
	})
}

func TestForward_LargeHeaderIsRefusedAtOnce(t *testing.T) {
	_, s1, _, agent := three(t)
	for size, want := range map[int]int{50 << 10: 200, 70 << 10: 431} {
		rec := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/v1/read", nil)
		r.Header.Set("X-Long", strings.Repeat("x", size))
		agent.ServeHTTP(rec, r)
		if rec.Code != want {
			t.Errorf("%d bytes: got %d %.100q, want %d", size, rec.Code, rec.Body, want)
		}
	}
	s1.untilAsked(t)
}

// A server that stops ends the requests that it carries on before its links.
func TestForward_ServerThatStopsHandsItsRequestsBack(t *testing.T) {
	w, s1, s2, agent := three(t)
	for _, method := range []string{"GET", "PUT"} {
		t.Run(method, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var once sync.Once
			w.onWrite = func(*worldHost) error { once.Do(cancel); <-ctx.Done(); return nil }
			go func() {
				if s1.untilAsked(t); method == "GET" {
					cancel()
				}
			}()
			rec := httptest.NewRecorder()
			in := &inbound{peer: agent.cfg.Self, hops: 1, request: agent.newRequestID()}
			s2.ServeHTTP(rec, httptest.NewRequestWithContext(in.in(ctx), method, "/v1/x?index=1", nil))
			if rec.Code != 500 || rec.Header().Get(headerOutcome) == "" {
				// The leader may have been as quick as the end.
				if method == "GET" || rec.Code != 200 || rec.Body.Len() == 0 {
					t.Errorf("got %d %v %q, want word that it may be asked for again", rec.Code, rec.Header(), rec.Body)
				}
			}
		})
	}
}

func TestForward_UnknownOutcomeIsTriedAgainByTheSameID(t *testing.T) {
	w, _, s2, agent := three(t)
	lost := 0
	w.onWrite = func(*worldHost) error {
		if lost++; lost < 3 {
			return fmt.Errorf("%w: leadership lost", catalog.ErrUnknownOutcome)
		}
		return nil
	}
	wantAnswer(t, s2.ask("PUT", "/v1/write", nil), 200, "s1")
	wantAnswer(t, agent.ask("PUT", "/v1/write", nil), 200, "s1")
	if got := w.writes(); !slices.Equal(got, []int{1, 1}) {
		t.Errorf("writes carried out: %v, want two, once each", got)
	}
	// What cannot be sent again says so.
	lost = 0
	rec := s2.ask("PUT", "/v1/write", make([]byte, 2*maxBuffered))
	wantAnswer(t, rec, 500, "the outcome of the write is unknown")
}

func TestForward_HostThatComesToLeadAnswersByTheSameID(t *testing.T) {
	w, s1, s2, _ := three(t)
	w.onWrite = func(at *worldHost) error {
		if at == s1 {
			w.lead(s2)
			return fmt.Errorf("%w: leadership lost", catalog.ErrUnknownOutcome)
		}
		return nil
	}
	wantAnswer(t, s2.ask("PUT", "/v1/write", []byte("body")), 200, "s2 /v1/write for [  ] body 4")
	if got := w.writes(); !slices.Equal(got, []int{1}) {
		t.Errorf("writes carried out: %v, want one, once", got)
	}
}

func TestForward_HopsAreBounded(t *testing.T) {
	w, s1, s2, agent := three(t)
	// Each believes that the other leads, and a server believes an agent to be one.
	a := &confused{worldHost: s1, leader: s2.addr()}
	b := &confused{worldHost: s2, leader: s1.addr()}
	s1.cfg.Router, s2.cfg.Router = a, b
	for _, h := range []*worldHost{s1, s2, agent} {
		h.cfg.Hold = 50 * time.Millisecond
		wantAnswer(t, h.ask("PUT", "/v1/write", nil), 500, "No cluster leader")
	}
	a.leader = agent.addr()
	wantAnswer(t, s1.ask("PUT", "/v1/write", nil), 500, "No cluster leader")
	if n := len(w.writes()); n != 0 {
		t.Errorf("%d writes were carried out", n)
	}
}

// confused believes that another leads, whatever the world says.
type confused struct {
	*worldHost
	leader string
}

func (c *confused) Self() (bool, bool)                      { return true, false }
func (c *confused) Leader(string) (string, <-chan struct{}) { return c.leader, nil }

func TestHandler_IsForOtherHostsAlone(t *testing.T) {
	_, s1, _, _ := three(t)
	rec := httptest.NewRecorder()
	r := httptest.NewRequest("PUT", "/internal/apply", nil)
	r.Header.Set(headerHops, "1")
	s1.Handler(s1, nil).ServeHTTP(rec, r)
	wantAnswer(t, rec, 403, "this is for other hosts")
}

func TestCall_ErrorsAreWhatTheyWereThere(t *testing.T) {
	w, s1, _, agent := three(t)
	agent.cfg.Hold = 100 * time.Millisecond
	for _, tt := range []struct {
		name string
		told error
		is   func(error) bool
	}{
		{"none", nil, func(err error) bool { return err == nil }},
		{"refusal", &catalog.Error{Text: "no such thing"}, func(err error) bool {
			var e *catalog.Error
			return errors.As(err, &e) && e.Text == "no such thing"
		}},
		{"no leader", catalog.ErrNoLeader, func(err error) bool { return errors.Is(err, catalog.ErrNoLeader) }},
		{"unknown", catalog.ErrUnknownOutcome, func(err error) bool {
			return errors.Is(err, catalog.ErrUnknownOutcome) && !errors.Is(err, catalog.ErrNoLeader)
		}},
		{"busy", catalog.ErrBusy, func(err error) bool { return errors.Is(err, catalog.ErrBusy) }},
		{"full", catalog.ErrDiskFull, func(err error) bool { return errors.Is(err, catalog.ErrDiskFull) }},
		{"other", errors.New("odd"), func(err error) bool {
			return err != nil && strings.Contains(err.Error(), "odd") && !errors.Is(err, catalog.ErrNoLeader)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.mu.Lock()
			w.onWrite = func(*worldHost) error { return tt.told }
			w.mu.Unlock()
			if _, err := agent.apply(t.Context()); !tt.is(err) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("no such function", func(t *testing.T) {
		err := agent.Call(t.Context(), false, s1.addr(), "/internal/absent", nil, nil)
		if err == nil || !strings.Contains(err.Error(), "another version") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		err := agent.Call(t.Context(), false, "127.0.77.250:1", pathApply, nil, nil)
		if !errors.Is(err, catalog.ErrNoLeader) || errors.Is(err, catalog.ErrUnknownOutcome) {
			t.Errorf("got %v, want one that did not happen", err)
		}
	})
}

// An agent that says it speaks for another host speaks for itself.
func TestHandler_OnlyServersSpeakForOthers(t *testing.T) {
	w, s1, s2, agent := three(t)
	victim := s2.cfg.Self
	req, _ := http.NewRequest("POST", "https://"+s1.addr()+pathApply, strings.NewReader(victim.Name))
	call{hops: 1, origin: victim, write: true, request: agent.newRequestID()}.setHeaders(req.Header)
	res, err := agent.link.Transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 500 || res.Header.Get(headerError) != "refused" || len(w.writes()) != 0 {
		t.Errorf("got %d %v, %d writes", res.StatusCode, res.Header, len(w.writes()))
	}
}

func TestCall_IsCarriedOutOnceThroughALeaderChange(t *testing.T) {
	w, s1, s2, agent := three(t)
	w.onWrite = func(at *worldHost) error {
		if at == s1 {
			w.lead(s2)
			return catalog.ErrUnknownOutcome
		}
		return nil
	}
	if index, err := agent.apply(t.Context()); err != nil || index != 1 {
		t.Errorf("agent: got %d, %v", index, err)
	}
	w.lead(s1)
	if index, err := s2.apply(t.Context()); err != nil || index != 2 {
		t.Errorf("server that comes to lead: got %d, %v", index, err)
	}
	if got := w.writes(); !slices.Equal(got, []int{1, 1}) {
		t.Errorf("writes carried out: %v, want two, once each", got)
	}
}

// A write that may have happened has not failed when the next attempt does.
func TestAgain_WhatMayHaveHappenedStaysUnknown(t *testing.T) {
	for name, then := range map[string]error{"no leader": catalog.ErrNoLeader, "busy": catalog.ErrBusy, "disk full": catalog.ErrDiskFull} {
		t.Run(name, func(t *testing.T) {
			w, s1, s2, agent := three(t)
			// The first that leads loses it; whoever leads then takes no writes.
			first, second := s1, s2
			w.onWrite = func(at *worldHost) error {
				if at == first {
					w.lead(second)
					return catalog.ErrUnknownOutcome
				}
				return then
			}
			s2.cfg.Hold, agent.cfg.Hold = 200*time.Millisecond, 200*time.Millisecond
			for who, apply := range map[string]func(context.Context) (uint64, error){"agent": agent.apply, "server that comes to lead": s2.apply} {
				w.lead(first)
				if _, err := apply(t.Context()); !errors.Is(err, catalog.ErrUnknownOutcome) || errors.Is(err, catalog.ErrNoLeader) {
					t.Errorf("%s: got %v, want %v", who, err, catalog.ErrUnknownOutcome)
				}
			}
			w.lead(first)
			if rec := s2.ask("PUT", "/v1/write", nil); then == catalog.ErrNoLeader && !strings.Contains(rec.Body.String(), "unknown") {
				t.Errorf("for a client of the server that comes to lead: got %q", rec.Body)
			}
		})
	}
}

func TestForward_WrongKeyGetsNowhere(t *testing.T) {
	w, _, _, _ := three(t)
	stranger := w.add("stranger", false, func(c *link.Config) { c.Keys = strangeKey{} })
	stranger.cfg.Hold = 100 * time.Millisecond
	for _, method := range []string{"GET", "PUT"} {
		rec := stranger.ask(method, "/v1/x", nil)
		wantAnswer(t, rec, 500, "rpc error making call")
		if !strings.Contains(rec.Body.String(), link.ErrKey.Error()) {
			t.Errorf("got %q, want it to name the key", rec.Body)
		}
	}
	if n := len(w.writes()); n != 0 {
		t.Errorf("%d writes were carried out", n)
	}
}

type strangeKey struct{}

func (strangeKey) Keys() ([][]byte, <-chan struct{}) { return [][]byte{[]byte("another key")}, nil }

func TestNextRequestID_EachIDIsUsedOnce(t *testing.T) {
	id := catalog.RequestID{Client: catalog.NewUUID(), Counter: writesPerRequest}
	ctx := WithRequestID(context.Background(), id, nil)
	again := WithRequestID(context.Background(), id, nil)
	seen := map[catalog.RequestID]bool{}
	for range writesPerRequest {
		a, ok := NextRequestID(ctx)
		b, _ := NextRequestID(again)
		if !ok || seen[a] || a != b {
			t.Fatalf("got %v %v, seen before: %v, the second time %v", a, ok, seen[a], b)
		}
		seen[a] = true
	}
	if _, ok := NextRequestID(ctx); ok {
		t.Error("more IDs than there are before the next request's")
	}
	if _, ok := NextRequestID(context.Background()); ok {
		t.Error("an ID out of nothing")
	}
}

func FuzzParseRequestID(f *testing.F) {
	f.Add("7f3c2c1e-8a5d-4f7e-9b0a-1c2d3e4f5a6b:256")
	f.Add(":")
	f.Add("x:18446744073709551616")
	f.Fuzz(func(t *testing.T, s string) {
		id, ok := parseRequestID(s)
		if !ok {
			return
		}
		if again, ok := parseRequestID(fmt.Sprintf("%s:%d", id.Client, id.Counter)); !ok || again != id {
			t.Errorf("%q is %v, and then %v", s, id, again)
		}
	})
}

// Each answer says who leads: the first write of an agent comes by way of another
// server, the next ones go straight to the leader, and reads stay where they were.
func TestForward_NextWriteGoesStraightToTheLeader(t *testing.T) {
	w, s1, s2, agent := three(t)
	hops := make(chan int, 10)
	s1.onHops, s2.onHops = hops, hops
	for i, want := range []int{2, 1, 1} {
		if rec := agent.ask("PUT", "/v1/write", nil); rec.Code != http.StatusOK {
			t.Fatalf("write %d: %d %s", i, rec.Code, rec.Body)
		} else if rec.Header().Get(headerLeader) != "" {
			t.Errorf("a client is told of the leader's link: %v", rec.Header())
		}
		got := 0
		for len(hops) > 0 {
			got = max(got, <-hops)
		}
		if got != want {
			t.Errorf("write %d came over %d hops, want %d", i, got, want)
		}
	}
	w.lead(s2)
	for range 2 { // the first finds out
		wantAnswer(t, agent.ask("PUT", "/v1/write", nil), 200, "s2 /v1/write")
	}
	if _, err := agent.apply(t.Context()); err != nil {
		t.Error(err)
	}
	if leader := agent.leader.Load(); leader == nil || *leader != s2.addr() {
		t.Errorf("leader is %v, want %s", leader, s2.addr())
	}
}

// A server that is frozen neither answers nor refuses. A write doesn't wait for it for
// good: another server is asked, which knows of a new leader.
func TestForward_WriteLeavesAFrozenLeader(t *testing.T) {
	w, s1, s2, agent := three(t)
	wantAnswer(t, agent.ask("PUT", "/v1/write", nil), 200, "s1 /v1/write")
	thaw := make(chan struct{})
	defer close(thaw)
	w.mu.Lock()
	w.onWrite = func(at *worldHost) error {
		if at == s1 {
			w.lead(s2)
			<-thaw
		}
		return nil
	}
	w.mu.Unlock()
	wantAnswer(t, agent.ask("PUT", "/v1/write", nil), 200, "s2 /v1/write")
	if got := w.writes(); !slices.Equal(got, []int{1, 1}) {
		t.Errorf("writes carried out: %v, want two, once each", got)
	}
}
