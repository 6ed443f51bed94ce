package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/membership"
	"meibo/cluster/view"
	"meibo/cmd/meibo/config"
	"meibo/resolver/consul"
	"meibo/resolver/control"
)

// fetchTimeout bounds how long a person waits for what a check prints now.
const fetchTimeout = time.Second

// facts is what explains an answer of the catalog to people: what the zone makes of each instance and why, and how well
// it is founded.
type facts struct {
	zone        *consul.Zone
	view        *view.View
	self        string // this host's node name
	onlyPassing func() bool
	// member is what gossip says of a node, by its ID; nil: there is no gossip.
	member  func(nodeID string) *membership.Member
	guarded func() bool // gossip takes out nobody
	// held asks the leader until when it holds this host down; nil: nobody does.
	held func(ctx context.Context) (until time.Time, flaps int)
	// leftOut are definitions of this host's files that are not used; nil: none.
	leftOut func() []config.LeftOut
	// trouble is why this host speaks to no other; nil: there is nothing that could be.
	trouble func() error
	// checks fetches the checks of a service as the leader has them now.
	checks func(ctx context.Context, service string) (map[checkKey]string, error)
}

// checkKey names a check.
type checkKey struct{ node, id string }

func (d *daemon) facts() *facts {
	return &facts{
		zone: d.dns.zone, view: d.node.View(), self: d.node.Record().Node,
		onlyPassing: func() bool { return d.config().Zone.OnlyPassing },
		checks:      d.fetchChecks,
		member:      d.node.MemberOf,
		guarded:     d.node.Guarded,
		held:        d.node.HeldDown,
		leftOut:     d.leftOut,
		trouble:     d.node.NetworkError,
	}
}

// catalog says how well what is known of a name is founded.
func (f *facts) catalog(name string) *control.Catalog {
	if !f.zone.Owns(name) {
		return nil
	}
	s := f.view.Load()
	service, _, _ := f.zone.ServiceOf(name)
	way, at := f.provenance(s, service)
	c := &control.Catalog{History: s.History().ID, Index: s.Index(), Fresh: s.Fresh(), Way: way}
	if !at.IsZero() {
		c.Confirmed = &at
	}
	if f.trouble != nil {
		if err := f.trouble(); err != nil {
			c.Trouble = strings.ReplaceAll("this host cannot speak to others: "+err.Error(), "\n", "; ")
		}
	}
	return c
}

// provenance says by what way a service came to be known, and when a server last confirmed it.
func (f *facts) provenance(s *view.State, service string) (way string, confirmed time.Time) {
	way, confirmed = s.Provenance(service)
	switch {
	case way == "":
		return "agent", time.Time{}
	case way == "catalog":
		return "catalog subscription", confirmed
	}
	return way, confirmed
}

// found returns the instances that answers are made from.
func (f *facts) found(service string) []catalog.Instance {
	s := f.view.Load()
	found, _, known := s.Service(service)
	if known == catalog.NotYet {
		found, _ = s.Older(service)
	}
	return found
}

// instances explains a name that belongs to a service.
func (f *facts) instances(ctx context.Context, name string) []control.Instance {
	service, tag, ok := f.zone.ServiceOf(name)
	if !ok {
		return nil
	}
	found, onlyPassing := f.found(service), f.onlyPassing()
	lastResort := consul.LastResort(found, onlyPassing)
	out := make([]control.Instance, 0, len(found))
	asks := false
	for _, in := range found {
		one := f.explain(ctx, in, tag, onlyPassing, lastResort)
		one.Unconfirmed = f.view.Load().Unconfirmed(in.Node.Node, in.Service.ID)
		asks = asks || one.CheckID != "" && one.CheckID != catalog.SerfHealth && in.Node.Node != f.self
		out = append(out, one)
	}
	if asks {
		f.refresh(ctx, service, out)
	}
	return f.withLeftOut(service, out)
}

// withLeftOut adds what this host's files define of a service and what is not used, because of a fault.
func (f *facts) withLeftOut(service string, out []control.Instance) []control.Instance {
	if f.leftOut == nil {
		return out
	}
	for _, l := range f.leftOut() {
		why := "its definition has a fault: " + l.Why()
		if !l.Check && l.Name != "" && strings.EqualFold(l.Name, service) {
			out = append(out, control.Instance{Node: f.self, ServiceID: l.ID, Status: "invalid", Reason: why})
		}
		for i := range out {
			if in := &out[i]; l.Check && l.ServiceID != "" && in.Node == f.self && in.ServiceID == l.ServiceID && in.Reason == "" {
				in.Reason = l.What() + " is left out: " + why
			}
		}
	}
	return out
}

// explain says what the zone makes of one instance, and why.
func (f *facts) explain(ctx context.Context, in catalog.Instance, tag string, onlyPassing, lastResort bool) control.Instance {
	one := control.Instance{
		Node: in.Node.Node, ServiceID: in.Service.ID, Address: in.Service.Address, Port: in.Service.Port,
		Status: in.Status(), Answered: true,
	}
	if one.Address == "" {
		one.Address = in.Node.Address
	}
	if c := consul.Excluded(in, onlyPassing, lastResort); c != nil {
		one.Answered = false
		f.blame(ctx, &one, in, c)
	} else if c := consul.Excluded(in, onlyPassing, false); c != nil {
		f.blame(ctx, &one, in, c)
		one.Reason = "nothing else is left, though " + one.Reason
	} else if m := f.memberOf(in.Node); m != nil && m.Status == membership.Suspect && f.guarded() {
		one.Reason = fmt.Sprintf("its host has not answered for %s, and is not taken out: more than half of the others went at once, and no server confirms it", since(m.Since))
	}
	if tag != "" && !in.Service.HasTag(tag) {
		one.Answered, one.Reason = false, "does not have the tag "+tag
		one.CheckID, one.Output, one.OutputSeconds, one.HeldUntil = "", "", nil, nil
	}
	return one
}

// blame names the check that keeps an instance out; for a dead host, what gossip says of it.
func (f *facts) blame(ctx context.Context, one *control.Instance, in catalog.Instance, c *catalog.Check) {
	one.Reason, one.CheckID, one.Output = "check "+c.Name+" is "+c.Status, c.CheckID, c.Output
	if one.Output == "" {
		one.Output = c.Notes
	}
	if c.CheckID == catalog.SerfHealth {
		one.Reason, one.HeldUntil = f.whyDead(ctx, in.Node)
		return
	}
	if in.Node.Node == f.self {
		one.OutputSeconds = new(float64)
	}
}

// whyDead says who holds a host for dead.
func (f *facts) whyDead(ctx context.Context, n *catalog.Node) (reason string, heldUntil *time.Time) {
	if n.Node == f.self && f.held != nil {
		ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
		defer cancel()
		if until, flaps := f.held(ctx); !until.IsZero() {
			return fmt.Sprintf("the others hold this host down until it is steady (gone %d times lately)", flaps), &until
		}
	}
	m := f.memberOf(n)
	switch {
	case m != nil && m.HeldUntil.After(time.Now()):
		return fmt.Sprintf("its host is back and held down until it is steady (gone %d times lately)", m.Flaps), &m.HeldUntil
	case m != nil && m.Status == membership.Failed:
		return "its host is dead, found by gossip " + since(m.Since) + " ago", nil
	case m != nil:
		return "the catalog says that its host is dead; gossip says it is " + m.Status.String(), nil
	}
	return "the catalog says that its host is dead", nil
}

// memberOf is what gossip says of a node's host.
func (f *facts) memberOf(n *catalog.Node) *membership.Member {
	if f.member == nil || n.ID == "" {
		return nil
	}
	return f.member(n.ID)
}

func since(at time.Time) string { return time.Since(at).Round(time.Second).String() }

// refresh puts what checks print now in the place of what came with their last change.
func (f *facts) refresh(ctx context.Context, service string, out []control.Instance) {
	now := map[checkKey]string{}
	if f.checks != nil {
		now, _ = f.checks(ctx, service) // without it the older output has to do
	}
	stale := !f.view.Load().Fresh()
	confirmed := f.view.Confirmed()
	for i := range out {
		one := &out[i]
		if one.CheckID == "" || one.CheckID == catalog.SerfHealth || one.OutputSeconds != nil {
			continue
		}
		if text, ok := now[checkKey{one.Node, one.CheckID}]; ok {
			one.OutputSeconds = new(float64)
			if text != "" {
				one.Output = text
			}
		} else if stale && !confirmed.IsZero() {
			age := time.Since(confirmed).Seconds()
			one.OutputSeconds = &age
		}
	}
}

// fetchChecks asks the API of this daemon, which carries the question to the leader.
func (d *daemon) fetchChecks(ctx context.Context, service string) (map[checkKey]string, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/v1/health/service/"+url.PathEscape(service), nil)
	if err != nil {
		return nil, err
	}
	req.RemoteAddr = "127.0.0.1:0"
	var reply memoryReply
	d.api.ServeHTTP(&reply, req)
	if reply.status != http.StatusOK {
		return nil, fmt.Errorf("fetch the checks of %s: status %d", service, reply.status)
	}
	var instances []struct{ Checks []catalog.Check }
	if err := json.Unmarshal(reply.body.Bytes(), &instances); err != nil {
		return nil, fmt.Errorf("fetch the checks of %s: %w", service, err)
	}
	out := make(map[checkKey]string, len(instances))
	for _, in := range instances {
		for _, c := range in.Checks {
			out[checkKey{c.Node, c.CheckID}] = c.Output
		}
	}
	return out, nil
}

// memoryReply keeps a reply of the API in memory.
type memoryReply struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (r *memoryReply) Header() http.Header {
	if r.header == nil {
		r.header = make(http.Header)
	}
	return r.header
}

// WriteHeader implements http.ResponseWriter.
func (r *memoryReply) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

// Write implements http.ResponseWriter.
func (r *memoryReply) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}
