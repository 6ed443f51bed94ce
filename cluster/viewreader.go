package cluster

import (
	"context"
	"fmt"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/view"
)

// viewReader reads this host's view for a request. Contents of a service that
// exists and isn't known here are asked of neighbours; when they don't tell, Err
// says so, as a list that is too short would be written into somebody's
// configuration. It is for one goroutine.
type viewReader struct {
	*view.Reader
	ctx  context.Context
	node *Node
	err  error
}

func (n *Node) viewReader(ctx context.Context) (catalog.Reader, catalog.ReadInfo, error) {
	s := n.view.Load()
	return &viewReader{Reader: s.Reader(), ctx: ctx, node: n}, n.viewInfo(s), nil
}

// leaderHeard is within which time the word of a server that has a leader says that
// there is one: servers say so every second, and find a cut cable within three.
const leaderHeard = 3 * time.Second

// viewInfo says how good the view is.
func (n *Node) viewInfo(s *view.State) catalog.ReadInfo {
	info := catalog.ReadInfo{Kept: true}
	if at := n.view.Confirmed(); !at.IsZero() {
		info.LastContact = time.Since(at)
		info.KnownLeader = s.Fresh() && info.LastContact < leaderHeard
	}
	return info
}

// Err is what kept a result from being whole: a kind of catalog.ErrNoLeader.
func (r *viewReader) Err() error { return r.err }

// ServiceInstances returns the instances of the service, healthy or not.
func (r *viewReader) ServiceInstances(ws catalog.Watch, service string) (uint64, []catalog.Instance) {
	r.need(service)
	return r.Reader.ServiceInstances(ws, service)
}

// ServiceNodes returns the instances of the service without their checks.
func (r *viewReader) ServiceNodes(ws catalog.Watch, service string) (uint64, []catalog.Instance) {
	r.need(service)
	return r.Reader.ServiceNodes(ws, service)
}

// ServiceChecks returns the checks of the service's instances, without those of
// their nodes.
func (r *viewReader) ServiceChecks(ws catalog.Watch, service string) (uint64, []*catalog.Check) {
	r.need(service)
	return r.Reader.ServiceChecks(ws, service)
}

// need sees to it that the contents of a service are here.
func (r *viewReader) need(service string) {
	s := r.node.view.Load()
	if r.knows(s, service) {
		return
	}
	wanted := r.node.view.Want(service)
	ctx, cancel := context.WithTimeout(r.ctx, view.MaxWait)
	defer cancel()
	if !s.Fresh() {
		r.node.Neighbour(ctx, service)
	} else {
		select {
		case <-wanted:
		case <-ctx.Done():
		}
	}
	s = r.node.view.Load()
	r.Reader = s.Reader()
	if !r.knows(s, service) {
		r.err = fmt.Errorf("%w, and this host does not know service %q from before", catalog.ErrNoLeader, service)
	}
}

func (r *viewReader) knows(s *view.State, service string) bool {
	if _, _, known := s.Service(service); known != catalog.NotYet {
		return true
	}
	_, ok := s.Older(service)
	return ok
}

// keptReader reads what the view knows of services for clients that go on with what
// servers say: its indexes are those of the rows, which are never above a server's.
type keptReader struct{ *view.Reader }

// ReadKept returns what this host itself knows of a service while it follows its
// changes; otherwise it subscribes, so that it soon does.
func (n *Node) ReadKept(service string) (catalog.Reader, catalog.ReadInfo, bool) {
	s := n.view.Load()
	if _, _, known := s.Service(service); !s.Fresh() || known != catalog.Present || n.view.Merging() {
		n.view.Want(service)
		return nil, catalog.ReadInfo{}, false
	}
	return keptReader{s.Reader()}, n.viewInfo(s), true
}

// ServiceInstances returns the instances of the service, healthy or not.
func (r keptReader) ServiceInstances(ws catalog.Watch, service string) (uint64, []catalog.Instance) {
	_, instances := r.Reader.ServiceInstances(ws, service)
	index := uint64(1)
	for _, in := range instances {
		index = max(index, in.Node.ModifyIndex, in.Service.ModifyIndex)
		for _, c := range in.Checks {
			index = max(index, c.ModifyIndex)
		}
	}
	return index, instances
}

// ServiceNodes returns the instances of the service.
func (r keptReader) ServiceNodes(ws catalog.Watch, service string) (uint64, []catalog.Instance) {
	return r.ServiceInstances(ws, service)
}
