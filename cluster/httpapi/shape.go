package httpapi

import (
	"encoding/json"
	"maps"
	"slices"

	"meibo/cluster/catalog"
)

// The shapes of Consul's JSON: field names, their order, and which absent things are
// null, [], {} or left out are Consul's. Filters select by these names, too.

type nodeShape struct {
	ID              string
	Node            string
	Address         string
	Datacenter      string
	TaggedAddresses map[string]string
	Meta            map[string]string
	Locality        *catalog.Locality `json:",omitempty"`
	CreateIndex     uint64
	ModifyIndex     uint64
}

// proxyShape and connectShape are of the service mesh, which meibo has not; clients expect
// the objects all the same.
type proxyShape struct {
	Mode        string
	MeshGateway struct{}
	Expose      struct{}
}

type connectShape struct{}

// serviceShape is a service as the catalog shows it on its node.
type serviceShape struct {
	Kind              string `json:",omitempty"`
	ID                string
	Service           string
	Tags              []string
	Address           string
	TaggedAddresses   map[string]catalog.ServiceAddress `json:",omitempty"`
	Meta              map[string]string
	Port              int    `json:",omitempty"`
	SocketPath        string `json:",omitempty"`
	Weights           catalog.Weights
	EnableTagOverride bool
	Proxy             proxyShape
	Connect           connectShape
	PeerName          string
	Locality          *catalog.Locality `json:",omitempty"`
	CreateIndex       uint64
	ModifyIndex       uint64
}

// agentServiceShape is a service as its own agent shows it.
type agentServiceShape struct {
	Kind              string `json:",omitempty"`
	ID                string
	Service           string
	Tags              []string
	Meta              map[string]string
	Port              int
	Address           string
	SocketPath        string                            `json:",omitempty"`
	TaggedAddresses   map[string]catalog.ServiceAddress `json:",omitempty"`
	Weights           catalog.Weights
	EnableTagOverride bool
	ContentHash       string `json:",omitempty"`
	Datacenter        string
	Locality          *catalog.Locality `json:",omitempty"`
}

// catalogServiceShape is a service and its node in one flat object.
type catalogServiceShape struct {
	ID                       string
	Node                     string
	Address                  string
	Datacenter               string
	TaggedAddresses          map[string]string
	NodeMeta                 map[string]string
	ServiceKind              string
	ServiceID                string
	ServiceName              string
	ServiceTags              []string
	ServiceAddress           string
	ServiceTaggedAddresses   map[string]catalog.ServiceAddress `json:",omitempty"`
	ServiceWeights           catalog.Weights
	ServiceMeta              map[string]string
	ServicePort              int
	ServiceSocketPath        string
	ServiceEnableTagOverride bool
	ServiceProxy             proxyShape
	ServiceConnect           connectShape
	ServiceLocality          *catalog.Locality `json:",omitempty"`
	CreateIndex              uint64
	ModifyIndex              uint64
}

// checkShape is a check; catalog.Check has the fields, in order.
type checkShape catalog.Check

// MarshalJSON writes absent tags as [].
func (c checkShape) MarshalJSON() ([]byte, error) {
	c.ServiceTags = notNil(c.ServiceTags)
	return json.Marshal(catalog.Check(c))
}

// instanceShape is one entry of /v1/health/service.
type instanceShape struct {
	Node    nodeShape
	Service serviceShape
	Checks  []checkShape
}

// null is an answer of JSON's null; a nil value would be an empty body.
var null = json.RawMessage("null")

func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func shapeNode(n *catalog.Node, datacenter string) nodeShape {
	s := nodeShape{
		ID: n.ID, Node: n.Node, Address: n.Address, Datacenter: n.Datacenter,
		TaggedAddresses: n.TaggedAddresses, Meta: n.Meta, Locality: n.Locality,
		CreateIndex: n.CreateIndex, ModifyIndex: n.ModifyIndex,
	}
	if s.Datacenter == "" {
		s.Datacenter = datacenter
	}
	return s
}

func shapeService(s *catalog.Service) serviceShape {
	return serviceShape{
		Kind: s.Kind, ID: s.ID, Service: s.Service, Tags: notNil(s.Tags), Address: s.Address,
		TaggedAddresses: s.TaggedAddresses, Meta: s.Meta, Port: s.Port, SocketPath: s.SocketPath,
		Weights: weights(s.Weights), EnableTagOverride: s.EnableTagOverride, Locality: s.Locality,
		CreateIndex: s.CreateIndex, ModifyIndex: s.ModifyIndex,
	}
}

func weights(w catalog.Weights) catalog.Weights {
	if w == (catalog.Weights{}) {
		return catalog.Weights{Passing: 1, Warning: 1}
	}
	return w
}

func shapeAgentService(s *catalog.Service, datacenter string) agentServiceShape {
	meta := s.Meta
	if meta == nil {
		meta = map[string]string{}
	}
	return agentServiceShape{
		Kind: s.Kind, ID: s.ID, Service: s.Service, Tags: notNil(s.Tags), Meta: meta,
		Port: s.Port, Address: s.Address, SocketPath: s.SocketPath,
		TaggedAddresses: s.TaggedAddresses, Weights: weights(s.Weights),
		EnableTagOverride: s.EnableTagOverride, Datacenter: datacenter, Locality: s.Locality,
	}
}

func shapeCatalogService(i catalog.Instance, datacenter string) catalogServiceShape {
	n, s := shapeNode(i.Node, datacenter), i.Service
	meta := s.Meta
	if meta == nil {
		meta = map[string]string{}
	}
	return catalogServiceShape{
		ID: n.ID, Node: n.Node, Address: n.Address, Datacenter: n.Datacenter,
		TaggedAddresses: n.TaggedAddresses, NodeMeta: n.Meta,
		ServiceKind: s.Kind, ServiceID: s.ID, ServiceName: s.Service, ServiceTags: notNil(s.Tags),
		ServiceAddress: s.Address, ServiceTaggedAddresses: s.TaggedAddresses,
		ServiceWeights: weights(s.Weights), ServiceMeta: meta, ServicePort: s.Port,
		ServiceSocketPath: s.SocketPath, ServiceEnableTagOverride: s.EnableTagOverride, ServiceLocality: s.Locality,
		CreateIndex: s.CreateIndex, ModifyIndex: s.ModifyIndex,
	}
}

func shapeChecks(checks []*catalog.Check) []checkShape {
	shaped := make([]checkShape, len(checks))
	for i, c := range checks {
		shaped[i] = checkShape(*c)
	}
	return shaped
}

// sortedValues returns a map's values in the order of its keys.
func sortedValues[V any](m map[string]V) []V {
	values := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		values = append(values, m[k])
	}
	return values
}
