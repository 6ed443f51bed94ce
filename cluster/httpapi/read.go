package httpapi

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"meibo/cluster/catalog"
)

// readOptions are what a request says of freshness.
type readOptions struct {
	consistency catalog.Consistency
	maxStale    time.Duration // of a stale read; 0: any age
	cached      bool
}

func (c *catalogSet) parseRead(r *request) (o readOptions, err error) {
	on, err := r.flags("cached", "stale", "consistent", "leader")
	if err != nil {
		return o, err
	}
	o.cached = on["cached"]
	stale, consistent := on["stale"], on["consistent"]
	if v := r.query.Get("max_stale"); v != "" {
		if o.maxStale, err = time.ParseDuration(v); err != nil || o.maxStale < 0 {
			return o, badRequest("Invalid max_stale value %q", clip(v))
		}
		stale = true
	}
	switch {
	case stale && consistent:
		return o, badRequest("Cannot specify ?stale with ?consistent, conflicting semantics.")
	case o.cached && consistent:
		return o, badRequest("Cannot specify ?cached with ?consistent, conflicting semantics.")
	case consistent:
		o.consistency = catalog.Consistent
	case stale && !on["leader"]:
		o.consistency = catalog.Stale
	case o.cached && !on["leader"]:
		o.consistency = catalog.Cached
	case c.discoveryStale > 0 && !on["leader"] && isDiscovery(r.URL.Path):
		o.consistency, o.maxStale = catalog.Stale, c.discoveryStale
	}
	return o, nil
}

// isDiscovery tells the reads that discovery_max_stale is about.
func isDiscovery(path string) bool {
	return strings.HasPrefix(path, "/v1/catalog/") || strings.HasPrefix(path, "/v1/health/")
}

// query reads one result. It may be called several times, each time with a newer state.
type query func(rd catalog.Reader, ws catalog.Watch) (index uint64, v any, err error)

// read answers a request from the catalog: at once, or, with ?index, when the result's
// index has changed or the wait is over. An index that went back (the catalog was
// restored) is a change too.
func (c *catalogSet) read(r *request, q query) (any, error) {
	if !strings.EqualFold(r.scope.Datacenter, c.datacenter) {
		return nil, errNoPath
	}
	ro, err := c.parseRead(r)
	if err != nil {
		return nil, err
	}
	bo, err := parseBlock(r)
	if err != nil {
		return nil, err
	}
	res, ws, err := c.readOnce(r, ro, q)
	if err != nil {
		return nil, err
	}
	if bo.index > 0 && res.index == bo.index {
		if res, err = c.block(r, ro, bo, q, res, ws); err != nil {
			return nil, err
		}
	}
	r.dropped = res.dropped
	c.setReadHeaders(r, ro, res)
	return res.value, nil
}

// result is one reading: what goes into the body and the headers.
type result struct {
	value   any
	index   uint64 // never 0
	info    catalog.ReadInfo
	dropped int
	missing bool // the service or node asked for does not exist
}

func (c *catalogSet) readOnce(r *request, o readOptions, q query) (result, *watchSet, error) {
	rd, info, err := c.readerFor(r, o)
	if err == nil && o.consistency == catalog.Stale && o.maxStale > 0 && info.LastContact > o.maxStale {
		rd, info, err = c.backend.Read(r.Context(), catalog.Default)
	}
	if err != nil {
		return result{}, nil, err
	}
	ws := new(watchSet)
	r.dropped, r.missing = 0, false
	index, v, err := q(rd, ws)
	if p, ok := rd.(partial); ok && err == nil {
		err = p.Err()
	}
	return result{value: v, index: max(index, 1), info: info, dropped: r.dropped, missing: r.missing}, ws, err
}

func (c *catalogSet) readerFor(r *request, o readOptions) (catalog.Reader, catalog.ReadInfo, error) {
	if r.kept != nil {
		return r.kept.Reader, r.kept.info, nil
	}
	return c.backend.Read(r.Context(), o.consistency)
}

// block waits until the index differs from the one asked for. What was missing and still
// is has not changed, though its index moves whenever anything of its kind goes away. When
// the wait is over it reads once more, so that a leader lost meanwhile is told.
func (c *catalogSet) block(r *request, ro readOptions, bo blockOptions, q query, res result, ws *watchSet) (result, error) {
	done, err := c.waits.begin()
	if err != nil {
		return result{}, err
	}
	defer done()
	deadline := time.NewTimer(c.waits.span(bo.wait))
	defer deadline.Stop()
	for unchanged := bo.index; res.index == unchanged; {
		changed, missing := ws.wait(r.Context(), deadline.C), res.missing
		if r.Context().Err() != nil {
			return res, nil // the client left, or the daemon stops: what is at hand
		}
		if res, ws, err = c.readOnce(r, ro, q); err != nil || !changed {
			return res, err
		}
		if missing && res.missing && res.index > unchanged {
			unchanged = res.index
		}
	}
	return res, nil
}

func (c *catalogSet) setReadHeaders(r *request, o readOptions, res result) {
	h := r.w.Header()
	h.Set("X-Consul-Index", strconv.FormatUint(res.index, 10))
	h.Set("X-Consul-KnownLeader", strconv.FormatBool(res.info.KnownLeader))
	h.Set("X-Consul-LastContact", strconv.FormatInt(res.info.LastContact.Milliseconds(), 10))
	h.Set("X-Consul-Effective-Consistency", o.consistency.String())
	h.Set("X-Consul-Query-Backend", "blocking-query")
	h.Set("X-Consul-Default-ACL-Policy", "allow")
	switch {
	case o.cached && res.info.Kept:
		h.Set("X-Cache", "HIT")
		h.Set("Age", strconv.FormatInt(int64(age(res.info).Round(time.Second).Seconds()), 10))
	case o.cached:
		h.Set("X-Cache", "MISS")
	}
}

// errNoPath is Consul's answer for a datacenter it has never heard of.
var errNoPath = &Error{Status: http.StatusInternalServerError, Text: "No path to datacenter"}
