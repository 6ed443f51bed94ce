package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/link"
)

// inbound is what the context of a request knows that came from another host, or
// will be sent to one.
type inbound struct {
	peer    link.Peer // where it began
	hops    int
	request catalog.RequestID
	tried   error // what came of it before, if it may have happened
	writes  atomic.Uint64
	outcome atomic.Pointer[string]
}

type inboundKey struct{}

// IsRemote reports whether the request of a context came from another host.
func IsRemote(ctx context.Context) bool { return inboundFrom(ctx) != nil }

func inboundFrom(ctx context.Context) *inbound {
	c, _ := ctx.Value(inboundKey{}).(*inbound)
	return c
}

func (c *inbound) in(ctx context.Context) context.Context {
	return context.WithValue(ctx, inboundKey{}, c)
}

// writesPerRequest is how many commands one request may lead to.
const writesPerRequest = 256

// NextRequestID is the ID for the next command that this request leads to; false
// if its requestMaker gave none. Each is used once: a request that is sent again gets
// the same ones in the same order.
func NextRequestID(ctx context.Context) (catalog.RequestID, bool) {
	c := inboundFrom(ctx)
	if c == nil || c.request.Client == "" {
		return catalog.RequestID{}, false
	}
	n := c.writes.Add(1) - 1
	if n >= writesPerRequest {
		return catalog.RequestID{}, false
	}
	return catalog.RequestID{Client: c.request.Client, Counter: c.request.Counter + n}, true
}

// WithRequestID gives a context the ID of the command that is about to be sent:
// what was tried here already, and may have happened, is tried elsewhere by the
// same ID. tried is what came of that, nil if nothing was.
func WithRequestID(ctx context.Context, id catalog.RequestID, tried error) context.Context {
	c := &inbound{request: id, tried: tried}
	if in := inboundFrom(ctx); in != nil {
		c.peer, c.hops = in.peer, in.hops
	}
	return c.in(ctx)
}

// RecordOutcome remembers for the host that sent the request whether it may try
// again, and returns err, or that of what was tried before: see [Again]. Whatever
// reads or writes the catalog for a request calls it with its error.
func RecordOutcome(ctx context.Context, err error) error {
	if c := inboundFrom(ctx); c != nil {
		err = Again(c.tried, err)
		if o := outcomeOf(err); o != "" {
			c.outcome.Store(&o)
		}
	}
	return err
}

// Again is the error of a write that was tried again by the same ID. One that may have
// happened before stays of unknown outcome until it is carried out, or the state
// machine refuses it: whoever else refuses it says nothing of what was before.
func Again(tried, err error) error {
	var refusal *catalog.Error
	if err == nil || !errors.Is(tried, catalog.ErrUnknownOutcome) || errors.Is(err, catalog.ErrUnknownOutcome) || errors.As(err, &refusal) {
		return err
	}
	return fmt.Errorf("%w; then %v", tried, err)
}

// Caller is the host where a call began.
type Caller struct {
	link.Peer
	IsServer bool
	Addr     string // its link address, by its own word; "" if it said none to this host
}

// HandlerFunc answers a [Endpoint.Call], body as it was sent, see [Decode]. What it
// returns is sent back in msgpack, a []byte as it is.
type HandlerFunc func(ctx context.Context, from Caller, body []byte) (any, error)

// Handler is what this host serves to other hosts: the catalog's API, and
// internal functions by path ("/internal/…").
func (c *Endpoint) Handler(api http.Handler, internal map[string]HandlerFunc) http.Handler {
	c.internal.Store(&internal)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, err := c.receive(r)
		if err != nil {
			writeText(w, http.StatusForbidden, "", err.Error())
			return
		}
		if leader, _ := c.cfg.Router.Leader(c.cfg.Self.Datacenter); leader != "" {
			setEscaped(w.Header(), headerLeader, leader)
		}
		ctx := in.in(r.Context())
		if strings.HasPrefix(r.URL.Path, "/internal/") {
			c.serveCall(w, r.WithContext(ctx), in)
			return
		}
		if c.cfg.WithScope != nil {
			h := r.Header
			ctx = c.cfg.WithScope(ctx, getEscaped(h, headerNode), getEscaped(h, headerDatacenter), getEscaped(h, headerToken))
		}
		dropHeaders(r.Header)
		api.ServeHTTP(&outcomeWriter{ResponseWriter: w, in: in}, r.WithContext(ctx))
	})
}

func (c *Endpoint) isServer(p link.Peer) bool { return c.cfg.IsServer != nil && c.cfg.IsServer(p) }

func (c *Endpoint) handlerFor(path string) HandlerFunc {
	m := c.internal.Load()
	if m == nil {
		return nil
	}
	return (*m)[path]
}

// receive reads the headers of a request from another host.
func (c *Endpoint) receive(r *http.Request) (*inbound, error) {
	peer, ok := link.PeerFrom(r.Context())
	if !ok {
		return nil, fmt.Errorf("this is for other hosts, over links")
	}
	hops, err := strconv.Atoi(r.Header.Get(headerHops))
	if err != nil || hops < 1 || hops > maxHops {
		return nil, fmt.Errorf("hop count %.10q: want 1 to %d", r.Header.Get(headerHops), maxHops)
	}
	in := &inbound{peer: peer, hops: hops}
	// Only a server speaks for another host; any other speaks for itself.
	if id := getEscaped(r.Header, headerOriginID); id != "" && c.isServer(peer) {
		in.peer = link.Peer{ID: id, Name: getEscaped(r.Header, headerOriginName), Datacenter: getEscaped(r.Header, headerOriginDatacenter)}
	}
	if v := r.Header.Get(headerRequest); v != "" {
		if in.request, ok = parseRequestID(v); !ok {
			return nil, fmt.Errorf("request ID %.60q: want client:counter", v)
		}
	}
	return in, nil
}

// serveCall answers an internal call, or has the leader answer it.
func (c *Endpoint) serveCall(w http.ResponseWriter, r *http.Request, in *inbound) {
	h := c.handlerFor(r.URL.Path)
	if h == nil || r.Method != http.MethodPost {
		writeText(w, http.StatusNotFound, "", "no internal function "+r.URL.Path+" here: this host has another version, or is no server")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCall))
	if err != nil {
		writeText(w, http.StatusBadRequest, "", "read the call's body: "+err.Error())
		return
	}
	_, isLeader := c.cfg.Router.Self()
	if r.Header.Get(headerTo) == toTheLeader && !isLeader {
		if c.relay(w, r, body) {
			return
		}
	}
	v, err := h(r.Context(), Caller{in.peer, c.isServer(in.peer), getEscaped(r.Header, headerFrom)}, body)
	err = Again(in.tried, err)
	if err == nil {
		body, err = encode(v)
	}
	if err != nil {
		writeError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/msgpack")
	_, _ = w.Write(body)
}

// relay has the leader answer; false: this host has become it.
func (c *Endpoint) relay(w http.ResponseWriter, r *http.Request, body []byte) bool {
	ctx := r.Context()
	j := c.newCall(ctx, true)
	in := inboundFrom(ctx)
	j.request = in.request // as it came, whatever it leads to
	in.writes.Store(0)
	kept := &replayableBody{data: body, repeats: true}
	out := r.Clone(ctx)
	out.RequestURI = ""
	dropHeaders(out.Header)
	j.setHeaders(out.Header)
	out.Header.Set(headerTo, toTheLeader)
	res, unknown, err := c.send(ctx, j, func(ctx context.Context, addr string, _ time.Duration) (*http.Request, error) {
		return requestTo(ctx, out, addr, 0, kept)
	})
	switch {
	case err == errLocal:
		in.tried = unknown
		return false
	case err != nil:
		writeError(w, err)
		return true
	}
	defer res.Body.Close()
	if unknown != nil && res.StatusCode != http.StatusOK && res.Header.Get(headerError) != kindCatalog {
		writeError(w, unknown)
		return true
	}
	for _, k := range []string{headerError, headerLeader, "Content-Type"} {
		if v := res.Header.Get(k); v != "" {
			w.Header().Set(k, v)
		}
	}
	w.WriteHeader(res.StatusCode)
	_, _ = io.Copy(w, res.Body)
	return true
}

// outcomeWriter puts on an answer that failed whether it may be asked for again.
type outcomeWriter struct {
	http.ResponseWriter
	in *inbound
}

// WriteHeader implements http.ResponseWriter.
func (w *outcomeWriter) WriteHeader(status int) {
	if o := w.in.outcome.Load(); o != nil && status >= http.StatusInternalServerError {
		w.Header().Set(headerOutcome, *o)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap serves http.ResponseController.
func (w *outcomeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
