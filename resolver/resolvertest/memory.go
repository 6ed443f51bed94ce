package resolvertest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"meibo/resolver"
	"meibo/resolver/wire"
)

// State is how a Memory upstream is.
type State uint8

const (
	// Up answers by the rules.
	Up State = iota
	// Silent says nothing until its timeout of 4 s is over.
	Silent
	// Refused fails at once, as a host without a name server does.
	Refused
	// Dead is Refused, and known to be: resolver.Health says so.
	Dead
)

// Memory is a resolver.Upstream in memory, for tests in virtual time.
type Memory struct {
	Route atomic.Uint64 // for resolver.Mount.Route
	// TrustAD passes the AD bit of the rules on.
	TrustAD bool
	// Servers is its Identity.
	Servers string

	mu    sync.Mutex // guards following
	rules map[string]Rule
	state State
	delay time.Duration
	asked int
}

var (
	_ resolver.Upstream = (*Memory)(nil)
	_ resolver.Health   = (*Memory)(nil)
	_ resolver.Lasting  = (*Memory)(nil)
)

// NewMemory returns an upstream that denies every name, without an SOA.
func NewMemory() *Memory { return &Memory{rules: map[string]Rule{}} }

// Set gives the rule for a question, or replaces it.
func (m *Memory) Set(name string, typ uint16, r Rule) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rules[key(name, typ)] = r
}

// Identity implements resolver.Lasting.
func (m *Memory) Identity() string { return m.Servers }

// SetState changes how it is; questions under way stay as they were.
func (m *Memory) SetState(s State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = s
}

// SetDelay makes every answer late.
func (m *Memory) SetDelay(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.delay = d
}

// Asked is how many questions it got.
func (m *Memory) Asked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

// Down implements resolver.Health.
func (m *Memory) Down() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state == Dead
}

// Mount is the mount of this upstream at a suffix.
func (m *Memory) Mount(suffix wire.Name) resolver.Mount {
	rank, name := resolver.RankRoute, "route "+suffix.String()
	if suffix == wire.Root {
		rank, name = resolver.RankDefault, "default route"
	}
	return resolver.Mount{Suffix: suffix, Rank: rank, Upstream: m, Route: &m.Route, Name: name}
}

// Exchange implements resolver.Upstream.
func (m *Memory) Exchange(ctx context.Context, q *wire.Query) (resolver.Result, error) {
	if until, ok := ctx.Deadline(); ok { // its end is for us to see to
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	req := new(dns.Msg)
	if err := req.Unpack(wire.AppendQuery(nil, q, 1, true)); err != nil {
		return resolver.Result{}, fmt.Errorf("unpack the question: %w", err)
	}
	m.mu.Lock()
	m.asked++
	state, delay := m.state, m.delay
	rule, known := m.rules[key(req.Question[0].Name, req.Question[0].Qtype)]
	m.mu.Unlock()
	if !known {
		rule = Rule{Rcode: dns.RcodeNameError}
	}
	switch state {
	case Silent:
		if err := wait(ctx, 4*time.Second); err != nil {
			return resolver.Result{}, err
		}
		return resolver.Result{}, &resolver.Failure{EDE: wire.EDENoReachable, Text: "no answer from memory"}
	case Refused, Dead:
		return resolver.Result{}, &resolver.Failure{EDE: wire.EDENetworkError, Text: "memory not reachable"}
	}
	if err := wait(ctx, delay+rule.Delay); err != nil {
		return resolver.Result{}, err
	}
	return m.answer(req, rule)
}

func (m *Memory) answer(req *dns.Msg, rule Rule) (resolver.Result, error) {
	msg, err := rule.message(req)
	if err != nil {
		return resolver.Result{}, err
	}
	msg.Truncated = rule.Truncate
	b, err := msg.Pack()
	if err != nil {
		return resolver.Result{}, err
	}
	a, err := wire.ParseAnswer(b)
	if err != nil {
		return resolver.Result{}, err
	}
	return resolver.Result{Answer: a, Ages: true, AD: m.TrustAD && a.AD(), Source: "upstream memory"}, nil
}

func wait(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
