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

func scopeFrom(ctx context.Context) (Scope, bool) {
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
	q := r.URL.Query()
	for _, name := range []string{"dc", "datacenter"} {
		if dc := q.Get(name); dc != "" {
			s.Datacenter = dc
			break
		}
	}
	return s
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
