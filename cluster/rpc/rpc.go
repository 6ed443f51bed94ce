// Package rpc has a request about the catalog answered by the server that can,
// over links, the HTTP API being the RPC. An agent asks any server, and the leader
// to write, once it has been told who that is; a server that does not lead asks the
// leader; more than maxHops there never are. While nobody leads it waits and asks
// again, for reads and writes alike: each write has a request ID, by which the state
// machine carries it out once, however often it is sent.
//
// The package knows the servers by a [Router], and not what a request is about.
package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meibo/cluster/catalog"
	"meibo/cluster/link"
)

// DefaultHold is how long a request waits for a leader before it fails, as Consul's
// rpc_hold_timeout. A host that starts, or elects, is done well before.
const DefaultHold = 7 * time.Second

const (
	maxHops = 2 // agent to server to leader
	// relayHold is how long a server holds what another host sent it while
	// there is no leader: longer than most elections' rest, and short enough for
	// the other host to ask a server on the right side of a partition.
	relayHold = 500 * time.Millisecond
	// firstPause and lastPause bound the growing pause between two attempts.
	firstPause = 50 * time.Millisecond
	lastPause  = 500 * time.Millisecond
	// viewHold is how long servers are asked for what this host can tell from
	// its view: as long as most elections take.
	viewHold = time.Second
	// maxBuffered is the largest body, in bytes, that is kept for another attempt.
	maxBuffered = 512 << 10
	// longAttempt is one that worked before it failed: the waiting begins anew. It
	// is more than a server needs to be found dead.
	longAttempt = 10 * time.Second
	// firstPatience is how long a server has to answer a write before another is
	// asked, which may know of a new leader while this one is frozen; twice as long
	// with each attempt, as a disk may be slow.
	firstPatience = time.Second
)

// errLocal ends a request that is sent: it turns out that this host is who answers.
var errLocal = errors.New("to be answered here")

// Router is who can be asked in a datacenter.
type Router interface {
	// Self says whether this host is a server, and whether it leads now.
	Self() (isServer, isLeader bool)
	// Leader is the leader's link address; empty while none is known, which is
	// all that an agent needs to say. The channel is closed when that changes;
	// nil: never.
	Leader(datacenter string) (addr string, changed <-chan struct{})
	// Servers are link addresses of the living servers, in an order that is
	// random among hosts and steady on one.
	Servers(datacenter string) []string
}

// Config is what an Endpoint is made from. Transport and Router are required.
type Config struct {
	Transport http.RoundTripper
	Router    Router
	Self      link.Peer
	// Hold is how long a request waits for a leader; 0: DefaultHold.
	Hold time.Duration
	// Scope reads on whose behalf a request is made that is about to be sent,
	// WithScope puts that into a context where it arrives. nil: requests have none.
	Scope     func(*http.Request) (node, datacenter, token string)
	WithScope func(ctx context.Context, node, datacenter, token string) context.Context
	// IsServer reports whether a peer is one of the servers: those may speak for
	// others. nil: nobody is.
	IsServer func(link.Peer) bool
	// Addr is this host's link address, which it tells; nil: it doesn't.
	Addr   func() string
	Logger *slog.Logger // nil discards
}

// Endpoint is a host's end of RPC: it sends requests and answers those of others.
// Its methods may be called by several goroutines.
type Endpoint struct {
	cfg      Config
	logger   *slog.Logger
	client   string
	requests atomic.Uint64
	last     atomic.Pointer[string] // the server that answered last
	leader   atomic.Pointer[string] // who led, by the word of a server; nil: nobody said
	internal atomic.Pointer[map[string]HandlerFunc]
	attempts *prometheus.CounterVec
}

// New returns an Endpoint. It starts nothing.
func New(cfg Config) *Endpoint {
	if cfg.Hold <= 0 {
		cfg.Hold = DefaultHold
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Endpoint{
		cfg: cfg, logger: cfg.Logger, client: catalog.NewUUID(),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meibo_rpc_attempts_total", Help: "Attempts to have a request answered by another host, by result.",
		}, []string{"result"}),
	}
}

// Collector returns the metrics.
func (c *Endpoint) Collector() prometheus.Collector { return c.attempts }

// newRequestID is a new request's ID. What one request writes is numbered from
// there, see NextRequestID.
func (c *Endpoint) newRequestID() catalog.RequestID {
	return catalog.RequestID{Client: c.client, Counter: c.requests.Add(1) * writesPerRequest}
}

// headerRoom is left in a request's header for what hosts tell each other.
const headerRoom = 4 << 10

// headerSize is what HTTP/2 counts. (RFC 9113 section 6.5.2)
func headerSize(r *http.Request) int {
	const field = 32
	size := len(r.URL.RequestURI()) + field
	for name, values := range r.Header {
		for _, v := range values {
			size += len(name) + len(v) + field
		}
	}
	return size
}

// Forward has another host answer r, if it isn't for this one to, and reports
// whether it did; false: answer here, r's body is whole. A leader answers itself,
// and any server a stale read. It waits for a leader, or for a server, as long as
// the hold time; then the answer is Consul's 500. A blocking query whose server
// dies is asked again elsewhere, and so is a write, which is carried out once all
// the same. What this host can answer too, orHere, is asked of others for a second
// only, and comes back unanswered then.
func (c *Endpoint) Forward(w http.ResponseWriter, r *http.Request, cons catalog.Consistency, effect catalog.Effect, orHere bool) (done bool) {
	isServer, isLeader := c.cfg.Router.Self()
	write := effect != catalog.Reads
	if isLeader || isServer && cons == catalog.Stale && !write {
		return false
	}
	if size := headerSize(r); size > link.MaxHeader-headerRoom {
		writeText(w, http.StatusRequestHeaderFieldsTooLarge, "", fmt.Sprintf("the request's header has %d bytes; no server takes more than %d", size, link.MaxHeader-headerRoom))
		return true
	}
	body, err := bufferBody(r)
	if err != nil {
		writeText(w, http.StatusBadRequest, "", "read the request's body: "+err.Error())
		return true
	}
	j := c.newCall(r.Context(), write)
	j.once, j.acts = !body.repeats, effect == catalog.Acts
	j.blocking = !write && r.URL.Query().Get("index") != ""
	if orHere {
		j.hold = min(j.hold, viewHold)
	}
	var failed, unknown error
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { c.setRequestHeaders(p.Out, r, j) },
		Transport: roundTripper(func(out *http.Request) (*http.Response, error) {
			var res *http.Response
			var err error
			res, unknown, err = c.send(out.Context(), j, func(ctx context.Context, addr string, waited time.Duration) (*http.Request, error) {
				return requestTo(ctx, out, addr, waited, body)
			})
			if err == nil {
				cleanResponse(w.Header(), res.Header)
			}
			return res, err
		}),
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
		ErrorLog:     slog.NewLogLogger(c.logger.Handler(), slog.LevelDebug),
	}
	proxy.ServeHTTP(w, r)
	if errors.Is(failed, errLocal) {
		r.Body = body.reader()
		if write { // it may have been carried out elsewhere before this host came to lead
			*r = *r.WithContext(WithRequestID(r.Context(), j.request, unknown))
		}
		return false
	}
	if failed != nil && orHere && r.Context().Err() == nil {
		return false
	}
	if failed != nil { // when the context has ended too: it may be this host that stops, not who asked
		writeError(w, failed)
	}
	return true
}

// setRequestHeaders puts on a request what the host that gets it must know.
func (c *Endpoint) setRequestHeaders(out, in *http.Request, j call) {
	dropHeaders(out.Header)
	out.Header.Del("Connection")
	out.Header.Del("Upgrade")
	if c.cfg.Scope != nil {
		node, dc, token := c.cfg.Scope(in)
		setEscaped(out.Header, headerNode, node)
		setEscaped(out.Header, headerDatacenter, dc)
		setEscaped(out.Header, headerToken, token)
	}
	j.setHeaders(out.Header)
}

// requestTo is one attempt's request.
func requestTo(ctx context.Context, out *http.Request, addr string, waited time.Duration, body *replayableBody) (*http.Request, error) {
	req := out.WithContext(ctx)
	u := *out.URL
	u.Scheme, u.Host = "https", addr
	if waited > 0 {
		shortenWait(&u, waited)
	}
	req.URL, req.Host = &u, addr
	req.Body, req.GetBody = body.reader(), body.getBody()
	return req, nil
}

// shortenWait takes what a blocking query has waited already off what it asked
// for, so that its client doesn't give up on it.
func shortenWait(u *url.URL, waited time.Duration) {
	q := u.Query()
	asked, err := time.ParseDuration(q.Get("wait"))
	if err != nil {
		return
	}
	left := max(asked-waited, time.Millisecond)
	q.Set("wait", strconv.FormatInt(left.Milliseconds(), 10)+"ms")
	u.RawQuery = q.Encode()
}

// Call asks another host to carry out an internal function: the leader, or the
// host at addr. in is sent in msgpack, or as it is if it is a []byte; what comes
// back is read into out unless that is nil. To the leader it is tried again, for
// the hold time and as long as ctx allows, and carried out once; a host by address
// is asked once. Errors come back as what they were: catalog.ErrNoLeader did not happen,
// catalog.ErrUnknownOutcome may have, a *catalog.Error is the state machine's
// refusal.
func (c *Endpoint) Call(ctx context.Context, toLeader bool, addr, path string, in, out any) error {
	body, err := encode(in)
	if err != nil {
		return fmt.Errorf("call %s: %w", path, err)
	}
	j := c.newCall(ctx, true)
	send := func(ctx context.Context, addr string, _ time.Duration) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+path, bytes.NewReader(body))
		if err == nil {
			j.setHeaders(req.Header)
			if toLeader {
				req.Header.Set(headerTo, toTheLeader)
			}
			if j.hops == 0 && c.cfg.Addr != nil {
				setEscaped(req.Header, headerFrom, c.cfg.Addr())
			}
		}
		return req, err
	}
	var res *http.Response
	var unknown error
	if toLeader {
		res, unknown, err = c.send(ctx, j, send)
	} else {
		res, err = c.attempt(ctx, j, target{addr: addr}, send, 0, 0)
	}
	if errors.Is(err, errLocal) {
		return Again(unknown, c.callLocal(ctx, j, path, body, out))
	}
	if err != nil {
		return callFailed(ctx, path, err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body) // is here already
	if err != nil {
		return callFailed(ctx, path, err)
	}
	if res.StatusCode != http.StatusOK {
		return Again(unknown, callError(path, res, data))
	}
	return decodeInto(path, data, out)
}

func decodeInto(path string, data []byte, out any) error {
	if out == nil {
		return nil
	}
	if err := Decode(data, out); err != nil {
		return fmt.Errorf("call %s: read the answer: %w", path, err)
	}
	return nil
}

// callLocal is a Call whose function is this host's own by now.
func (c *Endpoint) callLocal(ctx context.Context, j call, path string, body []byte, out any) error {
	h := c.handlerFor(path)
	if h == nil {
		return fmt.Errorf("call %s: %w", path, catalog.ErrNoLeader)
	}
	v, err := h(WithRequestID(ctx, j.request, nil), Caller{Peer: c.cfg.Self, IsServer: true}, body)
	if err != nil {
		return err
	}
	data, err := encode(v)
	if err != nil {
		return fmt.Errorf("call %s: %w", path, err)
	}
	return decodeInto(path, data, out)
}

// replayableBody is a request's body that can be sent again, if it is small enough.
type replayableBody struct {
	data    []byte
	rest    io.Reader // what is too much for data
	repeats bool
}

// bufferBody reads the body of r, and leaves r with a whole one.
func bufferBody(r *http.Request) (*replayableBody, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return &replayableBody{repeats: true}, nil
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, maxBuffered+1))
	if err != nil {
		return nil, err
	}
	b := &replayableBody{data: data, repeats: len(data) <= maxBuffered}
	if !b.repeats {
		b.rest = r.Body
	}
	r.Body = b.reader()
	return b, nil
}

// reader reads the body from its beginning; one that doesn't repeat, once.
func (b *replayableBody) reader() io.ReadCloser {
	switch {
	case b.rest != nil: // which the server closes with the request
		return io.NopCloser(io.MultiReader(bytes.NewReader(b.data), b.rest))
	case len(b.data) == 0:
		return http.NoBody
	}
	return io.NopCloser(bytes.NewReader(b.data))
}

func (b *replayableBody) getBody() func() (io.ReadCloser, error) {
	if !b.repeats {
		return nil
	}
	return func() (io.ReadCloser, error) { return b.reader(), nil }
}

// roundTripper makes a function a http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// cleanResponse takes our headers off an answer, and out of the way what it says again.
func cleanResponse(own, answer http.Header) {
	dropHeaders(answer)
	for k := range answer {
		own.Del(k)
	}
}

func dropHeaders(h http.Header) {
	for k := range h {
		if strings.HasPrefix(k, headerPrefix) {
			delete(h, k)
		}
	}
}
