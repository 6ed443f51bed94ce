package cluster

import (
	"context"
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

// carried is what the context of a request knows that came from another host, or
// will be sent to one.
type carried struct {
	peer    link.Peer // where it began
	hops    int
	request catalog.RequestID
	writes  atomic.Uint64
	outcome atomic.Pointer[string]
}

type carriedKey struct{}

func carriedIn(ctx context.Context) *carried {
	c, _ := ctx.Value(carriedKey{}).(*carried)
	return c
}

func (c *carried) in(ctx context.Context) context.Context {
	return context.WithValue(ctx, carriedKey{}, c)
}

// writesPerRequest is how many commands one request may lead to.
const writesPerRequest = 256

// requestFrom is the ID for the next command that this request leads to; false
// if its sender gave none. Each is used once: a request that is sent again gets
// the same ones in the same order.
func requestFrom(ctx context.Context) (catalog.RequestID, bool) {
	c := carriedIn(ctx)
	if c == nil || c.request.Client == "" {
		return catalog.RequestID{}, false
	}
	n := c.writes.Add(1) - 1
	if n >= writesPerRequest {
		return catalog.RequestID{}, false
	}
	return catalog.RequestID{Client: c.request.Client, Counter: c.request.Counter + n}, true
}

// withRequest gives a context the ID of the command that is about to be sent:
// what was tried here already, and may have happened, is tried elsewhere by the
// same ID.
func withRequest(ctx context.Context, id catalog.RequestID) context.Context {
	c := &carried{request: id}
	if in := carriedIn(ctx); in != nil {
		c.peer, c.hops = in.peer, in.hops
	}
	return c.in(ctx)
}

// noteOutcome remembers for the host that sent the request whether it may try
// again, and returns err. Whatever reads or writes the catalog for a request calls
// it with its error.
func noteOutcome(ctx context.Context, err error) error {
	if c := carriedIn(ctx); c != nil {
		if o := outcomeOf(err); o != "" {
			c.outcome.Store(&o)
		}
	}
	return err
}

// internalHandler answers a Call: body as it was sent, from is the host where the
// call began. What it returns is sent back in msgpack, a []byte as it is.
type internalHandler func(ctx context.Context, from link.Peer, body []byte) (any, error)

// Handler is what this host serves to other hosts: the catalog's API, and
// internal functions by path ("/internal/…").
func (c *carrier) Handler(api http.Handler, internal map[string]internalHandler) http.Handler {
	c.internal.Store(&internal)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, err := c.receive(r)
		if err != nil {
			writeCarried(w, http.StatusForbidden, "", err.Error())
			return
		}
		ctx := in.in(r.Context())
		if strings.HasPrefix(r.URL.Path, "/internal/") {
			c.serveCall(w, r.WithContext(ctx), in)
			return
		}
		if c.cfg.WithScope != nil {
			h := r.Header
			ctx = c.cfg.WithScope(ctx, getMark(h, headerNode), getMark(h, headerDatacenter), getMark(h, headerToken))
		}
		dropMarks(r.Header)
		api.ServeHTTP(&markingWriter{ResponseWriter: w, in: in}, r.WithContext(ctx))
	})
}

func (c *carrier) isServer(p link.Peer) bool { return c.cfg.IsServer != nil && c.cfg.IsServer(p) }

func (c *carrier) handlerFor(path string) internalHandler {
	m := c.internal.Load()
	if m == nil {
		return nil
	}
	return (*m)[path]
}

// receive reads the marks of a request from another host.
func (c *carrier) receive(r *http.Request) (*carried, error) {
	peer, ok := link.PeerFrom(r.Context())
	if !ok {
		return nil, fmt.Errorf("this is for other hosts, over links")
	}
	hops, err := strconv.Atoi(r.Header.Get(headerHops))
	if err != nil || hops < 1 || hops > maxHops {
		return nil, fmt.Errorf("hop count %.10q: want 1 to %d", r.Header.Get(headerHops), maxHops)
	}
	in := &carried{peer: peer, hops: hops}
	// Only a server speaks for another host; any other speaks for itself.
	if id := getMark(r.Header, headerOriginID); id != "" && c.isServer(peer) {
		in.peer = link.Peer{ID: id, Name: getMark(r.Header, headerOriginName), Datacenter: getMark(r.Header, headerOriginDatacenter)}
	}
	if v := r.Header.Get(headerRequest); v != "" {
		if in.request, ok = parseRequestID(v); !ok {
			return nil, fmt.Errorf("request ID %.60q: want client:counter", v)
		}
	}
	return in, nil
}

// serveCall answers an internal call, or has the leader answer it.
func (c *carrier) serveCall(w http.ResponseWriter, r *http.Request, in *carried) {
	h := c.handlerFor(r.URL.Path)
	if h == nil || r.Method != http.MethodPost {
		writeCarried(w, http.StatusNotFound, "", "no internal function "+r.URL.Path+" here: this host has another version, or is no server")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCall))
	if err != nil {
		writeCarried(w, http.StatusBadRequest, "", "read the call's body: "+err.Error())
		return
	}
	if from := getMark(r.Header, headerFrom); from != "" && r.URL.Path == pathApply && c.cfg.Elsewhere != nil {
		if err := c.cfg.Elsewhere(in.peer, from); err != nil {
			writeOutcome(w, err)
			return
		}
	}
	_, isLeader := c.cfg.Where.Self()
	if r.Header.Get(headerTo) == toTheLeader && !isLeader {
		if c.relayCall(w, r, body) {
			return
		}
	}
	v, err := h(r.Context(), in.peer, body)
	if err == nil {
		body, err = encodeCall(v)
	}
	if err != nil {
		writeOutcome(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/msgpack")
	_, _ = w.Write(body)
}

// relayCall has the leader answer; false: this host has become it.
func (c *carrier) relayCall(w http.ResponseWriter, r *http.Request, body []byte) bool {
	ctx := r.Context()
	j := c.jobOf(ctx, true)
	in := carriedIn(ctx)
	j.request = in.request // as it came, whatever it leads to
	in.writes.Store(0)
	kept := &keptBody{data: body, repeats: true}
	out := r.Clone(ctx)
	out.RequestURI = ""
	dropMarks(out.Header)
	j.mark(out.Header)
	out.Header.Set(headerTo, toTheLeader)
	res, err := c.carry(ctx, j, func(ctx context.Context, addr string, _ time.Duration) (*http.Request, error) {
		return requestTo(ctx, out, addr, 0, kept)
	})
	switch {
	case err == errHere:
		return false
	case err != nil:
		writeOutcome(w, err)
		return true
	}
	defer res.Body.Close()
	for _, k := range []string{headerError, "Content-Type"} {
		if v := res.Header.Get(k); v != "" {
			w.Header().Set(k, v)
		}
	}
	w.WriteHeader(res.StatusCode)
	_, _ = io.Copy(w, res.Body)
	return true
}

// markingWriter puts on an answer that failed whether it may be asked for again.
type markingWriter struct {
	http.ResponseWriter
	in *carried
}

// WriteHeader implements http.ResponseWriter.
func (w *markingWriter) WriteHeader(status int) {
	if o := w.in.outcome.Load(); o != nil && status >= http.StatusInternalServerError {
		w.Header().Set(headerOutcome, *o)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap serves http.ResponseController.
func (w *markingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
