package httpapi

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"meibo/cluster/catalog"
)

// Forwarder carries requests about the catalog to where they can be answered. Safe for
// concurrent use.
type Forwarder interface {
	// Forward answers the request by having another host do so, and reports whether it
	// has; false: it is to be answered here, and nothing of it has been read or written.
	// The request carries the token to use in the header X-Consul-Token and its [Scope]
	// in its context; a write's body can be read again (GetBody). A blocking query may
	// take as long as it asks for.
	Forward(w http.ResponseWriter, r *http.Request, c catalog.Consistency, e catalog.Effect) (done bool)
}

// on makes a route that another host may answer. What is not read is a command to the
// catalog.
func (c *catalogSet) on(methods, path string, h handler) route {
	return c.endpoints.on(methods, path, c.carried(catalog.Writes, h))
}

// after makes a handler that this host lets through first.
func (c *catalogSet) after(check func(*request) error, h handler) handler {
	return func(r *request) (any, error) {
		if c.agent != nil {
			if err := check(r); err != nil {
				return nil, err
			}
		}
		return h(r)
	}
}

// cached makes a handler one that answers ?cached from what this host itself knows of the
// service. Who waits for a change waits at a server.
func (c *catalogSet) cached(h handler) handler {
	return func(r *request) (any, error) {
		ro, err := c.parseRead(r)
		if err != nil {
			return nil, err
		}
		if ro.cached && c.agent != nil && r.arg != "" && strings.Trim(r.query.Get("index"), "0") == "" && strings.EqualFold(r.scope.Datacenter, c.datacenter) {
			if rd, info, ok := c.backend.ReadKept(r.arg); ok && age(info) <= maxAge(r) {
				r.kept = &kept{rd, info}
			}
		}
		return h(r)
	}
}

// kept is a reading of what this host knows.
type kept struct {
	catalog.Reader
	info catalog.ReadInfo
}

// maxAge is how old what comes from a cache may be.
func maxAge(r *request) time.Duration {
	const any = 1 << 62
	for directive := range strings.SplitSeq(r.Header.Get("Cache-Control"), ",") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(directive)), "=")
		switch name {
		case "must-revalidate", "no-cache":
			return 0
		case "max-age":
			if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
				return time.Duration(seconds) * time.Second
			}
		}
	}
	return any
}

// carried has another host answer what it can: the forwarder is asked once the request is
// known to be sound.
func (c *catalogSet) carried(changes catalog.Effect, h handler) handler {
	return func(r *request) (any, error) {
		if c.forwarder == nil || r.kept != nil {
			return h(r)
		}
		switch done, err := c.forward(r, changes); {
		case err != nil:
			return nil, err
		case done:
			return written, nil
		}
		return h(r)
	}
}

// forward asks the forwarder for one request.
func (c *catalogSet) forward(r *request, changes catalog.Effect) (done bool, err error) {
	if r.scope.Token != "" { // this host's own, where the client brought none
		r.Header.Set("X-Consul-Token", r.scope.Token)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		if err := keepBody(r); err != nil {
			return false, err
		}
		return c.forwarder.Forward(r.w, r.Request, catalog.Default, changes), nil
	}
	if !strings.EqualFold(r.scope.Datacenter, c.datacenter) {
		return false, errNoPath
	}
	ro, err := c.parseRead(r)
	if err != nil {
		return false, err
	}
	bo, err := parseBlock(r)
	if err != nil {
		return false, err
	}
	if bo.index > 0 {
		done, err := c.waits.begin()
		if err != nil {
			return false, err
		}
		defer done()
	}
	return c.forwarder.Forward(r.w, r.Request, c.needed(r, ro), catalog.Reads), nil
}

// needed is what a read asks of the servers, ?max_stale taken into account: what is at
// hand may be too old.
func (c *catalogSet) needed(r *request, o readOptions) catalog.Consistency {
	if o.consistency != catalog.Stale || o.maxStale == 0 {
		return o.consistency
	}
	if _, info, err := c.backend.Read(r.Context(), catalog.Stale); err != nil || info.LastContact > o.maxStale {
		return catalog.Default
	}
	return catalog.Stale
}

// keepBody reads a request's body, so that it can be sent more than once: it is bounded
// and small.
func keepBody(r *request) error {
	data, err := readBody(r)
	if err != nil {
		return err
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	r.Body, _ = r.GetBody()
	r.ContentLength = int64(len(data))
	return nil
}
