package leader

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"meibo/cluster/catalog"
)

// What serfHealth says; Consul's words.
const (
	serfName   = "Serf Health Status"
	serfAlive  = "Agent alive and reachable"
	serfFailed = "Agent not live or unreachable"
)

// reconcile goes through the members. One that can't be brought into the
// catalog doesn't keep the others from it.
func (l *Leader) reconcile(ctx context.Context, members []Member) error {
	var errs []error
	for _, m := range members {
		body := l.wanted(m)
		if body == nil {
			continue
		}
		if err := l.cfg.Catalog.Apply(ctx, body); err != nil {
			errs = append(errs, fmt.Errorf("member %s: %w", m.Node.Node, err))
			var refused *catalog.Error
			if !errors.As(err, &refused) {
				break // not the member's fault: the others would fare the same
			}
		}
	}
	return errors.Join(errs...)
}

// wanted returns the command that makes the catalog say of a member what is
// known of it; nil if it does already.
func (l *Leader) wanted(m Member) catalog.Body {
	r := l.cfg.Catalog.Read()
	_, node := r.Node(nil, m.Node.Node)
	switch {
	case m.Status == Left:
		// Another node may have taken the name since.
		if node == nil || node.ID != m.Node.ID {
			return nil
		}
		return &catalog.Deregister{Node: node.Node}
	case m.Status == Failed && (node == nil || node.ID != m.Node.ID):
		return nil // what it had is gone, and the dead register nothing
	}
	want := register(m)
	// A node of the name that is another's is judged by the rules for names.
	want.SkipNodeUpdate = node != nil && node.ID == m.Node.ID
	if want.SkipNodeUpdate && isRegistered(r, want) {
		return nil
	}
	return want
}

// register is a member's registration.
func register(m Member) *catalog.Register {
	serf := &catalog.Check{
		Node: m.Node.Node, CheckID: catalog.SerfHealth, Name: serfName,
		Status: catalog.Passing, Output: serfAlive,
	}
	if m.Status == Failed {
		serf.Status, serf.Output = catalog.Critical, serfFailed
	}
	want := &catalog.Register{Node: m.Node, Checks: []*catalog.Check{serf}}
	if m.Server != nil {
		want.Service = &catalog.Service{
			Node: m.Node.Node, ID: catalog.ConsulService, Service: catalog.ConsulService,
			Port: m.Server.Port, Meta: m.Server.Meta, Weights: catalog.Weights{Passing: 1, Warning: 1},
		}
	}
	return want
}

// isRegistered reports whether the catalog has the check and the service.
func isRegistered(r Reader, want *catalog.Register) bool {
	_, checks := r.NodeChecks(nil, want.Node.Node)
	_, services := r.NodeServices(nil, want.Node.Node)
	for _, c := range want.Checks {
		if !slices.ContainsFunc(checks, func(have *catalog.Check) bool {
			return have.CheckID == c.CheckID && have.Status == c.Status && have.Output == c.Output
		}) {
			return false
		}
	}
	return want.Service == nil || slices.ContainsFunc(services, func(have *catalog.Service) bool {
		return have.ID == want.Service.ID && have.Port == want.Service.Port && maps.Equal(have.Meta, want.Service.Meta)
	})
}
