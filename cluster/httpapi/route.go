package httpapi

import (
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"meibo/cluster/acl"
)

// endpoints is what both sets of handlers share.
type endpoints struct {
	mayOperate func(*http.Request) bool // nil: all may
	control    func() string            // path of the control socket
	log        *slog.Logger
	acl        acl.Resolver
	metrics    *metrics
	waits      *waits
	maxBody    int64
	warned     atomic.Int64 // Unix nanoseconds of the last warning in the log
}

// route is one endpoint. A path that ends in "/" takes the rest of the URL as its
// argument, which may hold slashes; any other matches whole.
type route struct {
	path    string
	methods []string // HEAD and OPTIONS are added
	handle  http.HandlerFunc
}

// handler answers a request with a value to be written as JSON (nil: an empty body), a
// *body, or an error that statusOf maps.
type handler func(*request) (any, error)

// on makes a route whose handler gets the request with its scope, parameters and
// authorizer ready.
func (e *endpoints) on(methods, path string, h handler) route {
	return route{path: path, methods: strings.Split(methods, ","), handle: func(w http.ResponseWriter, r *http.Request) {
		req, err := e.open(w, r, path)
		if err != nil {
			writeError(w, err)
			return
		}
		v, err := h(req)
		if err != nil {
			writeError(w, err)
			return
		}
		e.respond(req, v)
	}}
}

// router finds routes. It is not http.ServeMux, which redirects paths with "//" or "..",
// both of which are legal in service IDs and keys.
type router struct {
	whole    map[string]route
	prefixes []route // longest first
}

func newRouter(sets ...[]route) *router {
	rt := &router{whole: make(map[string]route)}
	for _, set := range sets {
		for _, r := range set {
			if strings.HasSuffix(r.path, "/") && r.path != "/" {
				rt.prefixes = append(rt.prefixes, r)
			} else {
				rt.whole[r.path] = r
			}
		}
	}
	slices.SortStableFunc(rt.prefixes, func(a, b route) int { return len(b.path) - len(a.path) })
	return rt
}

// serve answers and returns the path of the route, for metrics.
func (rt *router) serve(w http.ResponseWriter, r *http.Request) string {
	if cleaned, ok := oneSlash(r.URL); ok {
		redirect(w, r, cleaned)
		return "none"
	}
	found, ok := rt.find(r.URL.Path)
	if !ok {
		writeError(w, errorf(http.StatusNotFound, "Invalid URL path: not a recognized HTTP API endpoint"))
		return "none"
	}
	switch {
	case r.Method == http.MethodOptions:
		w.Header().Set("Allow", strings.Join(append([]string{http.MethodOptions}, found.methods...), ","))
		w.WriteHeader(http.StatusOK)
	case slices.Contains(found.methods, r.Method),
		r.Method == http.MethodHead && slices.Contains(found.methods, http.MethodGet):
		found.handle(w, r)
	default:
		w.Header().Set("Allow", strings.Join(found.methods, ","))
		writeError(w, errorf(http.StatusMethodNotAllowed, "method %s not allowed", clip(r.Method)))
	}
	return found.path
}

// oneSlash tells where a path is meant that has several slashes before or after its
// version, as those of clients do whose base URL ends in one. Further on they may be part
// of an ID.
func oneSlash(u *url.URL) (string, bool) {
	const version = "/v1/"
	path := "/" + strings.TrimLeft(u.Path, "/")
	if rest, ok := strings.CutPrefix(path, version); ok {
		path = version + strings.TrimLeft(rest, "/")
	}
	cleaned := url.URL{Path: path, RawQuery: u.RawQuery}
	return cleaned.String(), path != u.Path && strings.HasPrefix(u.Path, "/")
}

// redirect sends the client elsewhere on this host, with the method and body it came with.
func redirect(w http.ResponseWriter, r *http.Request, to string) {
	status := http.StatusPermanentRedirect
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		status = http.StatusMovedPermanently
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	http.Redirect(w, r, to, status)
}

func (rt *router) find(path string) (route, bool) {
	if r, ok := rt.whole[path]; ok {
		return r, true
	}
	for _, r := range rt.prefixes {
		if strings.HasPrefix(path, r.path) {
			return r, true
		}
	}
	return route{}, false
}

// request is one request as handlers see it.
type request struct {
	*http.Request
	w     http.ResponseWriter
	scope Scope
	query url.Values
	arg   string // what follows the route's path; empty for whole routes
	az    acl.Authorizer
	// kept is what this host itself knows of what is asked for; nil: servers are asked.
	kept *kept
	// dropped counts what the authorizer took out of the answer.
	dropped int
	// missing is set by a reading whose subject does not exist.
	missing bool
}

func (e *endpoints) open(w http.ResponseWriter, r *http.Request, path string) (*request, error) {
	scope, ok := ScopeFrom(r.Context())
	if !ok {
		return nil, errorf(http.StatusInternalServerError, "the request has no scope: whoever carries requests must set one")
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil { // what can't be read could have been a filter, or narrowed a write
		return nil, badRequest("Invalid query string: %v", err)
	}
	req := &request{Request: r, w: w, scope: scope, query: query}
	if strings.HasSuffix(path, "/") {
		req.arg = strings.TrimPrefix(r.URL.Path, path)
	}
	if err := refuseEnterprise(req); err != nil {
		return nil, err
	}
	r.Body = http.MaxBytesReader(w, r.Body, e.maxBody)
	az, err := e.acl.Resolve(r.Context(), scope.Token)
	if err != nil {
		return nil, err
	}
	req.az = az
	return req, nil
}

// refuseEnterprise answers what names a namespace or partition as Consul's free edition does.
func refuseEnterprise(r *request) error {
	for _, p := range []struct{ param, header, what string }{
		{"ns", "X-Consul-Namespace", "Namespaces are"},
		{"partition", "X-Consul-Partition", "Partitions are"},
		{"ap", "", "Partitions are"},
	} {
		if r.query.Get(p.param) != "" {
			return badRequest("Invalid query parameter: %q - %s a Consul Enterprise feature", p.param, p.what)
		}
		if p.header != "" && r.Header.Get(p.header) != "" {
			return badRequest("Invalid header: %q - %s a Consul Enterprise feature", p.header, p.what)
		}
	}
	return nil
}

// authorize asks for one permission.
func (r *request) authorize(res acl.Resource, name string, a acl.Access) error {
	return r.az.Authorize(res, name, a)
}

// may is authorize for items of a list: what is refused is counted and left out.
func (r *request) may(res acl.Resource, name string) bool {
	if acl.Allowed(r.az, res, name, acl.Read) {
		return true
	}
	r.dropped++
	return false
}

// has reports whether a parameter is present, whatever its value.
func (r *request) has(param string) bool {
	_, ok := r.query[param]
	return ok
}

// flag reads a parameter that is on or off: off without it, on with it and no value.
func (r *request) flag(param string) (bool, error) {
	v := r.query.Get(param)
	if v == "" {
		return r.has(param), nil
	}
	on, err := strconv.ParseBool(v)
	if err != nil {
		return false, badRequest("Invalid value for ?%s", param)
	}
	return on, nil
}

// flags reads several of them.
func (r *request) flags(params ...string) (on map[string]bool, err error) {
	on = make(map[string]bool, len(params))
	for _, p := range params {
		if on[p], err = r.flag(p); err != nil {
			return nil, err
		}
	}
	return on, nil
}

func stack() string { return string(debug.Stack()) }
