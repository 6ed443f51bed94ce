package httpapi

import (
	"context"
	"net/http"
	"strings"
)

// Scope is what a request is about and on whose behalf it is made, wherever it is
// answered. It stands in for "this host" in the catalog's handlers.
type Scope struct {
	Node       string // the node through whose agent the request came
	Datacenter string // the datacenter it asks about
	Token      string // the secret it carries; empty: anonymous
}

type scopeKey struct{}

// WithScope returns a context for a request with this scope.
func WithScope(ctx context.Context, s Scope) context.Context {
	return context.WithValue(ctx, scopeKey{}, s)
}

// ScopeFrom returns the scope of a request; false if nobody gave it one.
func ScopeFrom(ctx context.Context) (Scope, bool) {
	s, ok := ctx.Value(scopeKey{}).(Scope)
	return s, ok
}

// scopeOf reads the scope of a client's request: its parameters and headers, then this
// host's defaults.
func (a *API) scopeOf(r *http.Request) Scope {
	s := Scope{Node: a.cfg.Node, Datacenter: a.cfg.Datacenter, Token: tokenOf(r)}
	if s.Token == "" && a.cfg.DefaultToken != nil {
		s.Token = a.cfg.DefaultToken()
	}
	if dc := datacenterOf(r); dc != "" {
		s.Datacenter = dc
	}
	return s
}

// carriedScope fills in the scope of a request from another host what it says itself.
func carriedScope(r *http.Request) *http.Request {
	s, ok := ScopeFrom(r.Context())
	if !ok {
		return r // refused by open
	}
	if t := tokenOf(r); t != "" {
		s.Token = t
	}
	if dc := datacenterOf(r); dc != "" {
		s.Datacenter = dc
	}
	return r.WithContext(WithScope(r.Context(), s))
}

func datacenterOf(r *http.Request) string {
	q := r.URL.Query()
	if dc := q.Get("dc"); dc != "" {
		return dc
	}
	return q.Get("datacenter")
}

// tokenOf finds the token in the order that Consul looks for it.
func tokenOf(r *http.Request) string {
	if t := r.URL.Query().Get("token"); t != "" {
		return t
	}
	if t := r.Header.Get("X-Consul-Token"); t != "" {
		return t
	}
	scheme, t, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(t)
	}
	return ""
}
