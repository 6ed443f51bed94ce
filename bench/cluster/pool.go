package main

import (
	"context"
	"sync"

	"meibo/cluster/catalog"
	"meibo/cluster/view"
)

// pool has each record of the catalog once for all hosts of a process: hosts hold the same, and thousands of copies of it
// don't fit into one machine. So what a host takes in memory is measured of a real one.
type pool struct {
	mu       sync.RWMutex
	nodes    map[record]*catalog.Node
	services map[record]*catalog.Service
	checks   map[record]*catalog.Check
	names    map[string]string
}

// record is what a record is kept by.
type record struct {
	node, id string
	index    uint64
}

func newPool() *pool {
	return &pool{
		nodes: make(map[record]*catalog.Node), services: make(map[record]*catalog.Service),
		checks: make(map[record]*catalog.Check), names: make(map[string]string),
	}
}

// pooled gives a source's updates with records from the pool.
type pooled struct {
	view.Source
	pool *pool
}

// Next implements view.Source.
func (p pooled) Next(ctx context.Context) (catalog.Update, error) {
	u, err := p.Source.Next(ctx)
	p.pool.share(u.Nodes, u.Names, u.Parts, u.Complete)
	return u, err
}

// share replaces records, and names, by equal ones that others have.
func (p *pool) share(nodes []catalog.NodeState, names []string, parts []catalog.Part, complete []string) {
	for i := range nodes {
		n := nodes[i].Node
		nodes[i].Node = same(p, p.nodes, record{n.Node, "", n.ModifyIndex}, n, func(a, b *catalog.Node) bool { return a.Address == b.Address })
		p.shareChecks(nodes[i].Checks)
	}
	for i := range parts {
		part := &parts[i]
		part.Node, part.Service = same(p, p.names, part.Node, part.Node, nil), same(p, p.names, part.Service, part.Service, nil)
		for j, s := range part.Services {
			part.Services[j] = same(p, p.services, record{s.Node, s.ID, s.ModifyIndex}, s, catalog.SameService)
		}
		p.shareChecks(part.Checks)
	}
	for _, list := range [][]string{names, complete} {
		for i, name := range list {
			list[i] = same(p, p.names, name, name, nil)
		}
	}
}

func (p *pool) shareChecks(list []*catalog.Check) {
	for i, k := range list {
		list[i] = same(p, p.checks, record{k.Node, k.CheckID, k.ModifyIndex}, k,
			func(a, b *catalog.Check) bool { return a.Status == b.Status && a.Output == b.Output })
	}
}

// same returns what the pool has by a key, if it is equal to what is given; else that.
func same[K comparable, R any](p *pool, from map[K]R, by K, given R, equal func(a, b R) bool) R {
	p.mu.RLock()
	known, ok := from[by]
	p.mu.RUnlock()
	switch {
	case !ok:
		p.mu.Lock()
		from[by] = given
		p.mu.Unlock()
	case equal == nil || equal(known, given):
		return known
	}
	return given
}
