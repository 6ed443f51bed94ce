package httpapi

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strings"
	"time"

	"meibo/cluster/acl"
	"meibo/cluster/catalog"
)

// service answers with one service of this host; with ?hash, once it differs from the one
// that the client has.
func (a *agentSet) service(r *request) (any, error) {
	if r.arg == "" {
		return nil, badRequest("Missing service ID")
	}
	bo, err := parseBlock(r)
	if err != nil {
		return nil, err
	}
	changed := a.cfg.Agent.Changed()
	s, err := a.readService(r)
	if hash := r.query.Get("hash"); err == nil && hash != "" && hash == s.ContentHash {
		s, err = a.awaitService(r, hash, bo.wait, changed, s)
	}
	if err != nil {
		return nil, err
	}
	r.w.Header().Set("X-Consul-ContentHash", s.ContentHash)
	return s, nil
}

func (a *agentSet) readService(r *request) (agentServiceShape, error) {
	s, ok := a.cfg.Agent.Services()[r.arg]
	if !ok {
		return agentServiceShape{}, errorf(http.StatusNotFound, "unknown service ID: %s", clip(r.arg))
	}
	if err := r.authorize(acl.Service, s.Service, acl.Read); err != nil {
		return agentServiceShape{}, err
	}
	shape := shapeAgentService(s, a.cfg.Datacenter)
	data, err := json.Marshal(shape)
	h := fnv.New64a()
	_, _ = h.Write(data) // never fails
	shape.ContentHash = fmt.Sprintf("%016x", h.Sum64())
	return shape, err
}

func (a *agentSet) awaitService(r *request, hash string, wait time.Duration, changed <-chan struct{}, s agentServiceShape) (agentServiceShape, error) {
	done, err := a.waits.begin()
	if err != nil {
		return s, err
	}
	defer done()
	deadline := time.NewTimer(a.waits.span(wait))
	defer deadline.Stop()
	for s.ContentHash == hash {
		select {
		case <-changed:
		case <-deadline.C:
			return s, nil
		case <-r.Context().Done():
			return s, nil
		}
		changed = a.cfg.Agent.Changed()
		if s, err = a.readService(r); err != nil {
			return s, err
		}
	}
	return s, nil
}

// healthShape is the local health of one service, for load balancers' probes.
type healthShape struct {
	AggregatedStatus string
	Service          agentServiceShape
	Checks           []checkShape
	// LeftOut says which definitions of it in this host's files are not used, and why.
	LeftOut []string `json:",omitempty"`
}

func (a *agentSet) healthByID(r *request) (any, error) {
	s, ok := a.cfg.Agent.Services()[r.arg]
	if !ok {
		for _, l := range a.cfg.Agent.LeftOut() {
			if l.Check || l.ID == "" || l.ID != r.arg {
				continue
			}
			if err := r.authorize(acl.Service, l.Name, acl.Read); err != nil {
				return nil, err
			}
			h := a.healthOfLeftOut(l)
			return a.health(r, h.AggregatedStatus, h.AggregatedStatus+": "+h.LeftOut[0], h)
		}
		return a.health(r, "", fmt.Sprintf("ServiceId %s not found", clip(r.arg)), nil)
	}
	if err := r.authorize(acl.Service, s.Service, acl.Read); err != nil {
		return nil, err
	}
	h := a.healthOf(s)
	return a.health(r, h.AggregatedStatus, h.AggregatedStatus, h)
}

func (a *agentSet) healthByName(r *request) (any, error) {
	if err := r.authorize(acl.Service, r.arg, acl.Read); err != nil {
		return nil, err
	}
	services, missing := a.servicesNamed(r.arg), a.leftOutNamed(r.arg)
	if len(services)+len(missing) == 0 {
		return a.health(r, "", fmt.Sprintf("ServiceName %s Not Found", clip(r.arg)), []healthShape{})
	}
	list := make([]healthShape, 0, len(services)+len(missing))
	worst := catalog.Passing
	for _, s := range services {
		h := a.healthOf(s)
		list = append(list, h)
		if badness(h.AggregatedStatus) > badness(worst) {
			worst = h.AggregatedStatus
		}
	}
	reason := worst
	for i, l := range missing {
		h := a.healthOfLeftOut(l)
		list = append(list, h)
		if badness(h.AggregatedStatus) > badness(worst) {
			worst = h.AggregatedStatus
		}
		if i == 0 {
			reason = worst + ": " + h.LeftOut[0]
		}
	}
	return a.health(r, worst, reason, list)
}

// leftOutNamed are the services of a name that this host should have and has not: a
// definition of an ID that another one has taken is told with that.
func (a *agentSet) leftOutNamed(name string) []LeftOut {
	services := a.cfg.Agent.Services()
	return slices.DeleteFunc(slices.Clone(a.cfg.Agent.LeftOut()), func(l LeftOut) bool {
		return l.Check || l.Name == "" || !strings.EqualFold(l.Name, name) || services[l.ID] != nil
	})
}

// healthOfLeftOut is that of a service that isn't there because its definition has a
// fault: critical, with a check that says so, which Consul's clients show.
func (a *agentSet) healthOfLeftOut(l LeftOut) healthShape {
	s := &catalog.Service{ID: l.ID, Service: l.Name}
	why := saidOf(l)
	return healthShape{
		AggregatedStatus: catalog.Critical,
		Service:          shapeAgentService(s, a.cfg.Datacenter),
		Checks: []checkShape{{
			Node: a.cfg.Node, CheckID: "definition:" + l.ID, Name: "Definition of the service", Status: catalog.Critical,
			Output: why, ServiceID: l.ID, ServiceName: l.Name,
		}},
		LeftOut: []string{why},
	}
}

func saidOf(l LeftOut) string { return l.What + " is left out: " + l.Why }

func badness(status string) int {
	switch status {
	case catalog.Passing:
		return 0
	case catalog.Warning:
		return 1
	case catalog.Critical:
		return 2
	}
	return 3 // maintenance
}

// healthOf aggregates the service's own checks and those of the host.
func (a *agentSet) healthOf(s *catalog.Service) healthShape {
	var checks []*catalog.Check
	for _, c := range sortedValues(a.cfg.Agent.Checks()) {
		if c.ServiceID == "" || c.ServiceID == s.ID {
			checks = append(checks, c)
		}
	}
	h := healthShape{
		AggregatedStatus: catalog.AggregateStatus(checks),
		Service:          shapeAgentService(s, a.cfg.Datacenter),
		Checks:           make([]checkShape, 0, len(checks)),
	}
	for _, c := range checks {
		h.Checks = append(h.Checks, a.shapeCheck(c))
	}
	for _, l := range a.cfg.Agent.LeftOut() {
		if l.Check && (l.ServiceID == "" || l.ServiceID == s.ID) || !l.Check && l.ID == s.ID {
			h.LeftOut = append(h.LeftOut, saidOf(l))
		}
	}
	return h
}

// wantsText: the header counts before the parameter, as in Consul.
func wantsText(r *request) bool {
	return strings.HasPrefix(r.Header.Get("Accept"), "text/plain") || r.query.Get("format") == "text"
}

// health answers with a status code that a probe understands without reading the body.
func (a *agentSet) health(r *request, status, reason string, v any) (any, error) {
	code := http.StatusServiceUnavailable
	switch status {
	case "":
		code = http.StatusNotFound
	case catalog.Passing:
		code = http.StatusOK
	case catalog.Warning:
		code = http.StatusTooManyRequests
	}
	r.w.Header().Set("X-Consul-Reason", reason)
	if wantsText(r) || v == nil {
		return textBody(code, reason), nil
	}
	data, err := encode(r, v)
	return &body{status: code, contentType: "application/json", data: data}, err
}
