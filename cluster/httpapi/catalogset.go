package httpapi

import (
	"maps"
	"slices"
	"strings"
	"time"

	"meibo/cluster/acl"
	"meibo/cluster/catalog"
)

// catalogSet are the endpoints that speak for a datacenter. They look at the backend and
// the request, never at this host.
type catalogSet struct {
	*endpoints
	backend    Backend
	forwarder  Forwarder // nil: everything is answered here
	datacenter string
	agent      Agent // nil: what it knows is not asked
	// discoveryStale is DiscoveryMaxStale; 0 for what other hosts carry here: they
	// have decided.
	discoveryStale time.Duration
}

func (c *catalogSet) routes() []route {
	return []route{
		c.endpoints.on("GET", "/v1/catalog/datacenters", c.datacenters),
		c.on("GET", "/v1/catalog/nodes", c.nodes),
		c.on("GET", "/v1/catalog/services", c.services),
		c.endpoints.on("GET", "/v1/catalog/service/", c.cached(c.carried(catalog.Writes, c.service))),
		c.on("GET", "/v1/catalog/node/", c.node),
		c.on("GET", "/v1/catalog/node-services/", c.nodeServices),
		c.on("PUT", "/v1/catalog/register", c.register),
		c.on("PUT", "/v1/catalog/deregister", c.deregister),
		c.endpoints.on("GET", "/v1/health/service/", c.cached(c.carried(catalog.Writes, c.healthService))),
		c.on("GET", "/v1/health/node/", c.healthNode),
		c.on("GET", "/v1/health/checks/", c.healthChecks),
		c.on("GET", "/v1/health/state/", c.healthState),
		c.endpoints.on("PUT", "/v1/meibo/forget/", c.operates(c.after(c.mayBeForgotten, c.carried(catalog.Writes, c.forget)))),
		c.on("GET", "/v1/status/leader", c.leader),
		c.on("GET", "/v1/status/peers", c.peers),
	}
}

func (c *catalogSet) datacenters(*request) (any, error) { return []string{c.datacenter}, nil }

func (c *catalogSet) leader(r *request) (any, error) {
	if !strings.EqualFold(r.scope.Datacenter, c.datacenter) {
		return nil, errNoPath
	}
	return c.backend.Leader(r.Context()), nil
}

func (c *catalogSet) peers(r *request) (any, error) {
	if !strings.EqualFold(r.scope.Datacenter, c.datacenter) {
		return nil, errNoPath
	}
	return notNil(c.backend.Peers(r.Context())), nil
}

func (c *catalogSet) nodes(r *request) (any, error) {
	f, meta, err := parseListing(r)
	if err != nil {
		return nil, err
	}
	return c.read(r, func(rd catalog.Reader, ws catalog.Watch) (uint64, any, error) {
		index, nodes := rd.Nodes(ws)
		list := make([]nodeShape, 0, len(nodes))
		for _, n := range nodes {
			if meta.match(n.Meta) && r.may(acl.Node, n.Node) {
				list = append(list, shapeNode(n, c.datacenter))
			}
		}
		list, err := apply(f, list)
		return index, list, err
	})
}

// services lists names with their tags. A filter and ?node-meta select instances, as in
// Consul: what is left of a service are the tags of those.
func (c *catalogSet) services(r *request) (any, error) {
	f, meta, err := parseListing(r)
	if err != nil {
		return nil, err
	}
	return c.read(r, func(rd catalog.Reader, ws catalog.Watch) (uint64, any, error) {
		index, tags := rd.Services(ws)
		names := slices.DeleteFunc(slices.Sorted(maps.Keys(tags)), func(name string) bool { return !r.may(acl.Service, name) })
		if f != nil || len(meta) > 0 {
			index, tags, err = c.tagsOf(rd, ws, f, meta, names, index)
		}
		list := make(map[string][]string, len(names))
		for _, name := range names {
			if t, ok := tags[name]; ok {
				list[name] = notNil(t)
			}
		}
		return index, list, err
	})
}

// tagsOf reads the tags of the instances that the filter and the metadata leave, and
// raises the index to that of what these look at.
func (c *catalogSet) tagsOf(rd catalog.Reader, ws catalog.Watch, f *filter, meta nodeMeta, names []string, index uint64) (uint64, map[string][]string, error) {
	var all []catalogServiceShape
	for _, name := range names {
		at, instances := rd.ServiceNodes(ws, name)
		index = max(index, at)
		for _, i := range instances {
			if meta.match(i.Node.Meta) {
				all = append(all, shapeCatalogService(i, c.datacenter))
			}
		}
	}
	all, err := apply(f, all)
	tags := make(map[string][]string)
	for _, s := range all {
		tags[s.ServiceName] = append(tags[s.ServiceName], s.ServiceTags...)
	}
	for name, t := range tags {
		slices.Sort(t)
		tags[name] = slices.Compact(t)
	}
	return index, tags, err
}

func (c *catalogSet) service(r *request) (any, error) {
	if r.arg == "" {
		return nil, badRequest("Missing service name")
	}
	f, meta, err := parseListing(r)
	if err != nil {
		return nil, err
	}
	return c.read(r, func(rd catalog.Reader, ws catalog.Watch) (uint64, any, error) {
		index, instances := rd.ServiceNodes(ws, r.arg)
		r.missing = len(instances) == 0
		list := make([]catalogServiceShape, 0, len(instances))
		for _, i := range instances {
			if asked(r, i, meta) {
				list = append(list, shapeCatalogService(i, c.datacenter))
			}
		}
		list, err := apply(f, list)
		return index, list, err
	})
}

// asked holds what ?tag, ?node-meta and the token say of an instance. No instance has an
// empty tag: whoever asks for one gets none, not all.
func asked(r *request, i catalog.Instance, meta nodeMeta) bool {
	for _, tag := range r.query["tag"] {
		if !i.Service.HasTag(tag) {
			return false
		}
	}
	return meta.match(i.Node.Meta) && r.may(acl.Service, i.Service.Service) && r.may(acl.Node, i.Node.Node)
}

type catalogNodeShape struct {
	Node     nodeShape
	Services map[string]serviceShape
}

func (c *catalogSet) node(r *request) (any, error) {
	return c.onNode(r, func(node nodeShape, list []serviceShape) any {
		services := make(map[string]serviceShape, len(list))
		for _, s := range list {
			services[s.ID] = s
		}
		return catalogNodeShape{node, services}
	}, null)
}

type nodeServicesShape struct {
	Node     *nodeShape
	Services []serviceShape
}

func (c *catalogSet) nodeServices(r *request) (any, error) {
	return c.onNode(r, func(node nodeShape, list []serviceShape) any {
		return nodeServicesShape{&node, list}
	}, nodeServicesShape{Services: []serviceShape{}})
}

// onNode reads a node and what runs on it; absent is the answer for one that isn't there.
func (c *catalogSet) onNode(r *request, shape func(nodeShape, []serviceShape) any, absent any) (any, error) {
	if r.arg == "" {
		return nil, badRequest("Missing node name")
	}
	f, _, err := parseListing(r)
	if err != nil {
		return nil, err
	}
	return c.read(r, func(rd catalog.Reader, ws catalog.Watch) (uint64, any, error) {
		index, node := rd.Node(ws, r.arg)
		if node == nil {
			if ofAll, byID := nodeByID(rd, ws, r.arg); byID != nil {
				index, node = ofAll, byID
			}
		}
		name := r.arg
		if node != nil {
			name = node.Node
		}
		ofServices, services := rd.NodeServices(ws, name)
		index = max(index, ofServices)
		r.missing = node == nil
		if node == nil || !r.may(acl.Node, node.Node) {
			return index, absent, nil
		}
		list := make([]serviceShape, 0, len(services))
		for _, s := range services {
			if r.may(acl.Service, s.Service) {
				list = append(list, shapeService(s))
			}
		}
		list, err := apply(f, list)
		return index, shape(shapeNode(node, c.datacenter), list), err
	})
}

// nodeByID finds the one node whose ID is this or begins so, as Consul does where no node
// has the name.
func nodeByID(rd catalog.Reader, ws catalog.Watch, prefix string) (uint64, *catalog.Node) {
	const shortest = 2
	prefix = strings.ToLower(prefix)
	index, nodes := rd.Nodes(ws)
	var found *catalog.Node
	for _, n := range nodes {
		if len(prefix) < shortest || !strings.HasPrefix(n.ID, prefix) {
			continue
		}
		if found != nil {
			return index, nil // of several none is meant
		}
		found = n
	}
	return index, found
}

// nodeMeta is what ?node-meta asks for: every pair must be there.
type nodeMeta map[string]string

func (m nodeMeta) match(meta map[string]string) bool {
	for k, v := range m {
		if got, ok := meta[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// parseListing reads the parameters that all lists take. `near` is accepted and changes
// nothing: without coordinates every order is as near as another.
func parseListing(r *request) (*filter, nodeMeta, error) {
	if peer := r.query.Get("peer"); peer != "" {
		return nil, nil, badRequest("Invalid query parameter: %q - there is no cluster peering here", "peer")
	}
	f, err := parseFilter(r)
	if err != nil {
		return nil, nil, err
	}
	meta := make(nodeMeta)
	for _, pair := range r.query["node-meta"] {
		k, v, _ := strings.Cut(pair, ":")
		meta[k] = v
	}
	return f, meta, nil
}

// remark says something in the answer, which stays a success.
func (r *request) remark(text string) {
	if text != "" {
		r.w.Header().Add("X-Meibo-Warning", text)
	}
}

// warn says something in the answer, which stays a success, and in the log, at most once a
// second: a client in a loop must not fill it.
func (e *endpoints) warn(r *request, text string, args ...any) {
	r.remark(text)
	now, last := time.Now().UnixNano(), e.warned.Load()
	if now-last >= int64(time.Second) && e.warned.CompareAndSwap(last, now) {
		e.log.Warn(text, args...)
	}
}
