// Package control answers what a person wants to know of the resolver: where an
// answer comes from and how old it is, and what the cache holds.
//
//	GET /v1/meibo/lookup?name=NAME[&type=TYPE][&do=1][&cd=1]   one question, explained
//	GET /v1/meibo/cache                                       figures of the cache
//	PUT /v1/meibo/cache/flush[?name=NAME|?suffix=NAME]        forget answers
//
// A name that is an IP address is asked for its PTR record. Replies are JSON; an
// error is a line of text with a status of 400 or above. The package decides
// nothing about who may ask: whoever mounts the handler does.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"meibo/cache"
	"meibo/resolver"
	"meibo/resolver/wire"
)

// Lookup is the reply of /v1/meibo/lookup.
type Lookup struct {
	Name string // with a trailing dot
	Type string
	// Rcode is the response code's name: "NOERROR", "NXDOMAIN".
	Rcode string
	Flags []string // "qr", "aa", "tc", "rd", "ra", "ad", "cd"
	// The sections in presentation form, one record a string.
	Answer     []string
	Authority  []string
	Additional []string
	// Mount is the zone or route that answered, Source what it had the answer
	// from: "view", "upstream 192.0.2.1:53". Both are empty when there is none.
	Mount  string
	Source string
	// Cached: it was in the cache. Stale: it is expired, and all there is.
	Cached bool
	Stale  bool
	// AgeSeconds is how long ago the answer was made. LeftSeconds is how long it
	// may still be kept; nil when it lives until what it rests on changes.
	AgeSeconds  float64
	LeftSeconds *float64 `json:",omitempty"`
	// EDE is the Extended DNS Error of the reply.
	EDE *EDE `json:",omitempty"`
	// Error says why there is no answer, or why it is stale.
	Error string `json:",omitempty"`
	// TookSeconds is how long the answer took.
	TookSeconds float64
	// Catalog says how well the answer is founded; nil for names that are not
	// the catalog's.
	Catalog *Catalog `json:",omitempty"`
	// Instances are those of the service that the name belongs to, left out ones
	// included.
	Instances []Instance `json:",omitempty"`
}

// EDE is an Extended DNS Error (RFC 8914).
type EDE struct {
	Code uint16
	Name string // of the code
	Text string
}

// Catalog is what this host knows of the catalog, and how well.
type Catalog struct {
	// History is the life of the catalog that it belongs to, Index how far it is
	// known, as clients of the HTTP API see it; "" and 0 before a server has told
	// anything.
	History string
	Index   uint64
	// Fresh: a server that has a leader has confirmed it just now. Confirmed is
	// when one last did; nil: never.
	Fresh     bool
	Confirmed *time.Time `json:",omitempty"`
	// Way is by what way what the answer says came to be known: "catalog
	// subscription", "disk", "neighbour", "agent" (this host's own word).
	Way string
	// Trouble is why this host hears of no other at present; "": nothing is wrong.
	Trouble string `json:",omitempty"`
}

// Instance is one instance of a service, and whether answers contain it.
type Instance struct {
	Node      string
	ServiceID string
	Address   string
	Port      int
	// Status is "passing", "warning", "critical", "maintenance", or "invalid": this
	// host's files define it with a fault, so that it has no address and port here.
	Status   string
	Answered bool
	// Unconfirmed: only an earlier history of the catalog knows of it, no server
	// confirms it.
	Unconfirmed bool   `json:",omitempty"`
	Reason      string `json:",omitempty"` // why it is left out, or answered all the same
	CheckID     string `json:",omitempty"` // the check that says so
	Output      string `json:",omitempty"` // of that check
	// OutputSeconds is how old the output is; nil: unknown.
	OutputSeconds *float64 `json:",omitempty"`
	// HeldUntil is when a host that is back will be answered again, if it stays.
	HeldUntil *time.Time `json:",omitempty"`
}

// Flushed is the reply of /v1/meibo/cache/flush.
type Flushed struct {
	What string // "everything", or the name or suffix
}

// Config of the handler. Resolver and Cache are required.
type Config struct {
	Resolver *resolver.Resolver
	Cache    *cache.Cache
	// Instances explains a name that belongs to a service; nil, or an empty
	// result, for one that doesn't. Called concurrently.
	Instances func(ctx context.Context, name string) []Instance
	// Catalog says how well an answer for a name of the catalog is founded; nil
	// for others. Called concurrently.
	Catalog func(name string) *Catalog
	Logger  *slog.Logger // nil: discard
}

type control struct {
	cfg Config
	log *slog.Logger
}

// New returns the handler for everything below /v1/meibo/.
func New(cfg Config) (http.Handler, error) {
	if cfg.Resolver == nil || cfg.Cache == nil {
		return nil, errors.New("control: Resolver and Cache are required")
	}
	c := &control{cfg: cfg, log: cfg.Logger}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/meibo/lookup", c.lookup)
	mux.HandleFunc("GET /v1/meibo/cache", c.stats)
	mux.HandleFunc("PUT /v1/meibo/cache/flush", c.flush)
	return mux, nil
}

func (c *control) lookup(w http.ResponseWriter, req *http.Request) {
	q, err := question(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	x, err := c.cfg.Resolver.Explain(req.Context(), q)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	name := wire.Name(q.NameAsked()).String()
	l := explain(name, wire.TypeString(q.Type), x)
	if strings.HasPrefix(l.Mount, "route ") {
		c.reply(w, l) // a route has the name, so that what the catalog says of it is nobody's answer
		return
	}
	if c.cfg.Instances != nil {
		l.Instances = c.cfg.Instances(req.Context(), name)
	}
	if c.cfg.Catalog != nil {
		l.Catalog = c.cfg.Catalog(name)
	}
	c.reply(w, l)
}

// question reads the parameters of a lookup.
func question(req *http.Request) (*wire.Query, error) {
	p := req.URL.Query()
	text, typeText := strings.TrimSpace(p.Get("name")), p.Get("type")
	if text == "" {
		return nil, errors.New("parameter name is missing")
	}
	if a, err := netip.ParseAddr(text); err == nil && (typeText == "" || strings.EqualFold(typeText, "PTR")) {
		if text, err = dns.ReverseAddr(a.Unmap().WithZone("").String()); err != nil {
			return nil, err
		}
		typeText = "PTR"
	}
	if typeText == "" {
		typeText = "A"
	}
	typ, ok := wire.ParseType(typeText)
	if !ok {
		return nil, fmt.Errorf("parameter type: %q is no record type", typeText)
	}
	name, err := wire.ParseName(text)
	if err != nil {
		return nil, fmt.Errorf("parameter name: %w", err)
	}
	q := wire.NewQuery(name, typ)
	q.DO, q.CD = isSet(p.Get("do")), isSet(p.Get("cd"))
	return q, nil
}

func isSet(v string) bool { return v == "1" || v == "true" }

// explain puts an explanation into presentation form.
func explain(name, typ string, x resolver.Explanation) Lookup {
	l := Lookup{
		Name: name, Type: typ, Rcode: wire.RcodeString(x.Rcode),
		Mount: x.Mount, Source: x.Source, Cached: x.Cached, Stale: x.Stale,
		AgeSeconds: x.Age.Seconds(), TookSeconds: x.Took.Seconds(),
	}
	if !x.Watched && x.Mount != "" {
		left := x.Left.Seconds()
		l.LeftSeconds = &left
	}
	switch x.EDE {
	case 0:
	case wire.EDEOther:
		l.EDE = &EDE{Code: 0, Name: dns.ExtendedErrorCodeToString[0], Text: x.EDEText}
	default:
		l.EDE = &EDE{Code: x.EDE, Name: dns.ExtendedErrorCodeToString[x.EDE], Text: x.EDEText}
	}
	if x.Err != nil {
		l.Error = x.Err.Error()
	}
	var m dns.Msg
	if err := m.Unpack(x.Message); err != nil {
		l.Error = fmt.Sprintf("unpack the answer: %v", err)
		return l
	}
	l.Flags = flags(&m)
	l.Answer, l.Authority, l.Additional = present(m.Answer), present(m.Ns), present(m.Extra)
	return l
}

func flags(m *dns.Msg) []string {
	out := []string{"qr"}
	for _, f := range []struct {
		set  bool
		name string
	}{
		{m.Authoritative, "aa"}, {m.Truncated, "tc"}, {m.RecursionDesired, "rd"}, {m.RecursionAvailable, "ra"},
		{m.AuthenticatedData, "ad"}, {m.CheckingDisabled, "cd"},
	} {
		if f.set {
			out = append(out, f.name)
		}
	}
	return out
}

// present lists records as dig does, OPT left out.
func present(rrs []dns.RR) []string {
	out := []string{}
	for _, rr := range rrs {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, rr.String())
		}
	}
	return out
}

func (c *control) stats(w http.ResponseWriter, _ *http.Request) {
	c.reply(w, c.cfg.Cache.Stats())
}

func (c *control) flush(w http.ResponseWriter, req *http.Request) {
	p := req.URL.Query()
	what := "everything"
	switch {
	case p.Has("name"), p.Has("suffix"):
		what = p.Get("name") + p.Get("suffix")
		name, err := wire.ParseName(what)
		if err != nil || p.Has("name") && p.Has("suffix") {
			http.Error(w, fmt.Sprintf("flush takes either a name or a suffix, not %q", what), http.StatusBadRequest)
			return
		}
		if p.Has("name") {
			c.cfg.Cache.Drop(name)
		} else {
			c.cfg.Cache.DropSuffix(name)
		}
	default:
		c.cfg.Cache.Flush()
	}
	c.log.Info("cache flushed", "zone", what)
	c.reply(w, Flushed{What: what})
}

func (c *control) reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "    ")
	if err := enc.Encode(v); err != nil {
		c.log.Debug("write a reply", "err", err)
	}
}
