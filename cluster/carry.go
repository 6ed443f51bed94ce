package cluster

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

// A carrier has requests about the catalog answered by the server that can: over
// links, the HTTP API being the RPC. An agent asks any server; a server that does
// not lead asks the leader; more than maxHops there never are. While nobody leads
// it waits and asks again, for reads and writes alike: each write has a request
// ID, by which the state machine carries it out once, however often it is sent.

// Bounds of carriage.
const (
	maxHops = 2 // agent to server to leader
	// relayHold is how long a server holds what another host carried to it while
	// there is no leader: longer than most elections' rest, and short enough for
	// the other host to ask a server on the right side of a partition.
	relayHold = 500 * time.Millisecond
	// firstTry and lastTry bound the growing pause between two tries.
	firstTry = 50 * time.Millisecond
	lastTry  = 500 * time.Millisecond
	// spareHold is how long servers are asked for what this host can tell from
	// its view: as long as most elections take.
	spareHold = time.Second
	// maxKept is the largest body, in bytes, that is kept for a second try.
	maxKept = 512 << 10
	// longTry is a try that worked before it failed: the waiting begins anew. It
	// is more than a server needs to be found dead.
	longTry = 10 * time.Second
)

// errNoServers means that this host knows no living server: a kind of ErrNoLeader.
var errNoServers = fmt.Errorf("no known servers: %w", ErrNoLeader)

// errHere ends a carriage: it turns out that this host is who answers.
var errHere = errors.New("to be answered here")

// whereabouts is who can be asked.
type whereabouts interface {
	// Self says whether this host is a server, and whether it leads now.
	Self() (isServer, isLeader bool)
	// Leader is the leader's link address; empty while none is known, which is
	// all that an agent needs to say. The channel is closed when that changes;
	// nil: never.
	Leader() (addr string, changed <-chan struct{})
	// Servers are link addresses of the living servers, in an order that is
	// random among hosts and steady on one.
	Servers() []string
}

// carrierConfig is what a carrier is made from. Transport and Where are required.
type carrierConfig struct {
	Transport http.RoundTripper
	Where     whereabouts
	Self      link.Peer
	// Hold is how long a request waits for a leader; 0: holdTime.
	Hold time.Duration
	// Scope reads the scope of a request about to be carried, WithScope puts one
	// that was carried into a context. nil: requests have none.
	Scope     func(*http.Request) (node, datacenter, token string)
	WithScope func(ctx context.Context, node, datacenter, token string) context.Context
	// IsServer reports whether a peer is one of the servers: those may speak for
	// others. nil: nobody is.
	IsServer func(link.Peer) bool
	// Addr is this host's link address, which it tells. Elsewhere is why a host
	// at the address is not to write as the peer; nil: it may. Both may be nil.
	Addr      func() string
	Elsewhere func(p link.Peer, addr string) error
	Logger    *slog.Logger // nil discards
}

// carrier carries requests. Its methods may be called by several goroutines.
type carrier struct {
	cfg      carrierConfig
	logger   *slog.Logger
	client   string
	requests atomic.Uint64
	last     atomic.Pointer[string] // the server that answered last
	internal atomic.Pointer[map[string]internalHandler]
	tries    *prometheus.CounterVec
}

func newCarrier(cfg carrierConfig) *carrier {
	if cfg.Hold <= 0 {
		cfg.Hold = holdTime
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &carrier{
		cfg: cfg, logger: cfg.Logger, client: catalog.NewUUID(),
		tries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "meibo_carried_total", Help: "Tries to have a request answered by another host, by result.",
		}, []string{"result"}),
	}
}

// Collector returns the carrier's metrics.
func (c *carrier) Collector() prometheus.Collector { return c.tries }

// nextRequest is a new request's ID. What one request writes is numbered from
// there, see requestFrom.
func (c *carrier) nextRequest() catalog.RequestID {
	return catalog.RequestID{Client: c.client, Counter: c.requests.Add(1) * writesPerRequest}
}

// Effect is what becomes of a request that arrives twice.
type Effect uint8

const (
	// Reads change nothing.
	Reads Effect = iota
	// Writes are carried out once, by their request ID.
	Writes
	// Acts do it once more. One that may have arrived is not sent again: it is for
	// who asked to look what became of it.
	Acts
)

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
func (c *carrier) Forward(w http.ResponseWriter, r *http.Request, cons Consistency, effect Effect, orHere bool) (done bool) {
	isServer, isLeader := c.cfg.Where.Self()
	write := effect != Reads
	if isLeader || isServer && cons == Stale && !write {
		return false
	}
	if size := headerSize(r); size > link.MaxHeader-headerRoom {
		writeCarried(w, http.StatusRequestHeaderFieldsTooLarge, "", fmt.Sprintf("the request's header has %d bytes; no server takes more than %d", size, link.MaxHeader-headerRoom))
		return true
	}
	body, err := keepBody(r)
	if err != nil {
		writeCarried(w, http.StatusBadRequest, "", "read the request's body: "+err.Error())
		return true
	}
	j := c.jobOf(r.Context(), write)
	j.once, j.acts = !body.repeats, effect == Acts
	j.blocking = !write && r.URL.Query().Get("index") != ""
	if orHere {
		j.hold = min(j.hold, spareHold)
	}
	var failed error
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { c.address(p.Out, r, j) },
		Transport: roundTripper(func(out *http.Request) (*http.Response, error) {
			res, err := c.carry(out.Context(), j, func(ctx context.Context, addr string, waited time.Duration) (*http.Request, error) {
				return requestTo(ctx, out, addr, waited, body)
			})
			if err == nil {
				cleanAnswer(w.Header(), res.Header)
			}
			return res, err
		}),
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
		ErrorLog:     slog.NewLogLogger(c.logger.Handler(), slog.LevelDebug),
	}
	proxy.ServeHTTP(w, r)
	if errors.Is(failed, errHere) {
		r.Body = body.reader()
		if write { // it may have been carried out elsewhere before this host came to lead
			*r = *r.WithContext(withRequest(r.Context(), j.request))
		}
		return false
	}
	if failed != nil && orHere && r.Context().Err() == nil {
		return false
	}
	if failed != nil { // when the context has ended too: it may be this host that stops, not who asked
		writeOutcome(w, failed)
	}
	return true
}

// address puts on a request what the host that gets it must know.
func (c *carrier) address(out, in *http.Request, j job) {
	dropMarks(out.Header)
	out.Header.Del("Connection")
	out.Header.Del("Upgrade")
	if c.cfg.Scope != nil {
		node, dc, token := c.cfg.Scope(in)
		setMark(out.Header, headerNode, node)
		setMark(out.Header, headerDatacenter, dc)
		setMark(out.Header, headerToken, token)
	}
	j.mark(out.Header)
}

// requestTo is one try's request.
func requestTo(ctx context.Context, out *http.Request, addr string, waited time.Duration, body *keptBody) (*http.Request, error) {
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
// is asked once. Errors come back as what they were: ErrNoLeader did not happen,
// consensus.ErrUnknownOutcome may have, a *catalog.Error is the state machine's
// refusal.
func (c *carrier) Call(ctx context.Context, toLeader bool, addr, path string, in, out any) error {
	body, err := encodeCall(in)
	if err != nil {
		return fmt.Errorf("call %s: %w", path, err)
	}
	j := c.jobOf(ctx, true)
	send := func(ctx context.Context, addr string, _ time.Duration) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+path, bytes.NewReader(body))
		if err == nil {
			j.mark(req.Header)
			if toLeader {
				req.Header.Set(headerTo, toTheLeader)
			}
			if j.hops == 0 && c.cfg.Addr != nil {
				setMark(req.Header, headerFrom, c.cfg.Addr())
			}
		}
		return req, err
	}
	var res *http.Response
	if toLeader {
		res, err = c.carry(ctx, j, send)
	} else {
		res, err = c.try(ctx, j, target{addr: addr}, send, 0)
	}
	if errors.Is(err, errHere) {
		return c.callHere(ctx, j, path, body, out)
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
		return callError(path, res, data)
	}
	return decodeInto(path, data, out)
}

func decodeInto(path string, data []byte, out any) error {
	if out == nil {
		return nil
	}
	if err := decodeCall(data, out); err != nil {
		return fmt.Errorf("call %s: read the answer: %w", path, err)
	}
	return nil
}

// callHere is a Call whose function is this host's own by now.
func (c *carrier) callHere(ctx context.Context, j job, path string, body []byte, out any) error {
	h := c.handlerFor(path)
	if h == nil {
		return fmt.Errorf("call %s: %w", path, ErrNoLeader)
	}
	v, err := h(withRequest(ctx, j.request), c.cfg.Self, body)
	if err != nil {
		return err
	}
	data, err := encodeCall(v)
	if err != nil {
		return fmt.Errorf("call %s: %w", path, err)
	}
	return decodeInto(path, data, out)
}

// keptBody is a request's body that can be sent again, if it is small enough.
type keptBody struct {
	data    []byte
	rest    io.Reader // what is too much for data
	repeats bool
}

// keepBody reads the body of r, and leaves r with a whole one.
func keepBody(r *http.Request) (*keptBody, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return &keptBody{repeats: true}, nil
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, maxKept+1))
	if err != nil {
		return nil, err
	}
	b := &keptBody{data: data, repeats: len(data) <= maxKept}
	if !b.repeats {
		b.rest = r.Body
	}
	r.Body = b.reader()
	return b, nil
}

// reader reads the body from its beginning; one that doesn't repeat, once.
func (b *keptBody) reader() io.ReadCloser {
	switch {
	case b.rest != nil: // which the server closes with the request
		return io.NopCloser(io.MultiReader(bytes.NewReader(b.data), b.rest))
	case len(b.data) == 0:
		return http.NoBody
	}
	return io.NopCloser(bytes.NewReader(b.data))
}

func (b *keptBody) getBody() func() (io.ReadCloser, error) {
	if !b.repeats {
		return nil
	}
	return func() (io.ReadCloser, error) { return b.reader(), nil }
}

// roundTripper makes a function a http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// cleanAnswer takes our marks off an answer, and out of the way what it says again.
func cleanAnswer(own, answer http.Header) {
	dropMarks(answer)
	for k := range answer {
		own.Del(k)
	}
}

func dropMarks(h http.Header) {
	for k := range h {
		if strings.HasPrefix(k, markPrefix) {
			delete(h, k)
		}
	}
}
