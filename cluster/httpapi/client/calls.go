package client

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"meibo/cluster/catalog"
)

// Self is what /v1/agent/self says of the daemon.
type Self struct {
	Config struct {
		Datacenter, PrimaryDatacenter, NodeName, NodeID string
		Server                                          bool
		Version, Revision, BuildDate                    string
	}
	DebugConfig map[string]any
	Member      Member
	Stats       map[string]map[string]string
	Meta        map[string]string
}

// Member is a member of the gossip pool. Status: 1 alive, 2 leaving, 3 left, 4 failed.
type Member struct {
	Name   string
	Addr   string
	Port   uint16
	Tags   map[string]string
	Status int
}

// ServiceRegistration is a service to register with the daemon, with its checks.
type ServiceRegistration struct {
	Kind              string                            `json:",omitempty"`
	ID                string                            `json:",omitempty"` // default: Name
	Name              string                            `json:",omitempty"`
	Tags              []string                          `json:",omitempty"`
	Address           string                            `json:",omitempty"`
	Port              int                               `json:",omitempty"`
	SocketPath        string                            `json:",omitempty"`
	TaggedAddresses   map[string]catalog.ServiceAddress `json:",omitempty"`
	Meta              map[string]string                 `json:",omitempty"`
	Weights           *catalog.Weights                  `json:",omitempty"`
	EnableTagOverride bool                              `json:",omitempty"`
	Checks            []CheckRegistration               `json:",omitempty"`
}

// CheckRegistration is a check to register. Durations are in Go's notation.
type CheckRegistration struct {
	CheckID                        string              `json:",omitempty"`
	Name                           string              `json:",omitempty"`
	Notes                          string              `json:",omitempty"`
	ServiceID                      string              `json:",omitempty"`
	Status                         string              `json:",omitempty"`
	Args                           []string            `json:"ScriptArgs,omitempty"`
	HTTP                           string              `json:",omitempty"`
	Header                         map[string][]string `json:",omitempty"`
	Method                         string              `json:",omitempty"`
	Body                           string              `json:",omitempty"`
	TCP                            string              `json:",omitempty"`
	UDP                            string              `json:",omitempty"`
	GRPC                           string              `json:",omitempty"`
	H2PING                         string              `json:",omitempty"`
	OSService                      string              `json:",omitempty"`
	TLSServerName                  string              `json:",omitempty"`
	TLSSkipVerify                  bool                `json:",omitempty"`
	AliasNode                      string              `json:",omitempty"`
	AliasService                   string              `json:",omitempty"`
	TTL                            string              `json:",omitempty"`
	Interval                       string              `json:",omitempty"`
	Timeout                        string              `json:",omitempty"`
	SuccessBeforePassing           int                 `json:",omitempty"`
	FailuresBeforeWarning          int                 `json:",omitempty"`
	FailuresBeforeCritical         int                 `json:",omitempty"`
	DeregisterCriticalServiceAfter string              `json:",omitempty"`
}

// CatalogService is one instance in the flat form of /v1/catalog/service.
type CatalogService struct {
	ID, Node, Address, Datacenter string
	TaggedAddresses, NodeMeta     map[string]string
	ServiceID, ServiceName        string
	ServiceTags                   []string
	ServiceAddress                string
	ServiceTaggedAddresses        map[string]catalog.ServiceAddress
	ServiceWeights                catalog.Weights
	ServiceMeta                   map[string]string
	ServicePort                   int
	ServiceEnableTagOverride      bool
	ServiceKind                   string
	CreateIndex, ModifyIndex      uint64
}

// CatalogNode is a node and its services by ID.
type CatalogNode struct {
	Node     *catalog.Node
	Services map[string]*catalog.Service
}

// Registration is a write to the catalog.
type Registration struct {
	Datacenter      string            `json:",omitempty"`
	ID              string            `json:",omitempty"`
	Node            string            `json:",omitempty"`
	Address         string            `json:",omitempty"`
	TaggedAddresses map[string]string `json:",omitempty"`
	NodeMeta        map[string]string `json:",omitempty"`
	Service         *catalog.Service  `json:",omitempty"`
	Checks          []*catalog.Check  `json:",omitempty"`
	SkipNodeUpdate  bool              `json:",omitempty"`
}

// Deregistration removes a service, a check, or with neither a node.
type Deregistration struct {
	Datacenter string `json:",omitempty"`
	Node       string
	ServiceID  string `json:",omitempty"`
	CheckID    string `json:",omitempty"`
}

// Self describes the daemon that answers.
func (c *Client) Self(ctx context.Context) (*Self, error) {
	out, _, err := c.WhoAnswers(ctx)
	return out, err
}

// WhoAnswers is Self with what the answer's headers say.
func (c *Client) WhoAnswers(ctx context.Context) (*Self, Meta, error) {
	out := new(Self)
	meta, err := c.Get(ctx, "/v1/agent/self", nil, out)
	return out, meta, err
}

// IsMeibo reports whether it was a meibo that answered, and no Consul agent.
func (s *Self) IsMeibo() bool { return strings.Contains(s.Config.Version, "+meibo") }

// Members lists the gossip pool.
func (c *Client) Members(ctx context.Context, wan bool) (out []Member, err error) {
	_, err = c.call(ctx, "GET", "/v1/agent/members", wanQuery(wan), nil, &out)
	return out, err
}

func wanQuery(wan bool) url.Values {
	if !wan {
		return nil
	}
	return url.Values{"wan": {"1"}}
}

// AgentServices lists what the daemon itself holds, by ID.
func (c *Client) AgentServices(ctx context.Context, filter string) (out map[string]*catalog.Service, err error) {
	_, err = c.Get(ctx, "/v1/agent/services", &Query{Filter: filter}, &out)
	return out, err
}

// AgentChecks lists the daemon's checks, by ID.
func (c *Client) AgentChecks(ctx context.Context, filter string) (out map[string]*catalog.Check, err error) {
	_, err = c.Get(ctx, "/v1/agent/checks", &Query{Filter: filter}, &out)
	return out, err
}

// AgentService reads one service of the daemon; with q.Hash it waits for a change.
func (c *Client) AgentService(ctx context.Context, id string, q *Query) (*catalog.Service, Meta, error) {
	out := new(catalog.Service)
	meta, err := c.Get(ctx, "/v1/agent/service/"+url.PathEscape(id), q, out)
	return out, meta, err
}

// RegisterService adds or replaces a service. With replaceChecks, checks of it that are
// not named any more are removed.
func (c *Client) RegisterService(ctx context.Context, s ServiceRegistration, replaceChecks bool) error {
	query := url.Values{}
	if replaceChecks {
		query.Set("replace-existing-checks", "true")
	}
	_, err := c.Put(ctx, "/v1/agent/service/register", query, s, nil)
	return err
}

// DeregisterService removes a service of the daemon and its checks.
func (c *Client) DeregisterService(ctx context.Context, id string) error {
	return c.put(ctx, "/v1/agent/service/deregister/"+url.PathEscape(id), nil, nil)
}

// ServiceMaintenance takes a service out of answers, or back in.
func (c *Client) ServiceMaintenance(ctx context.Context, id string, enable bool, reason string) error {
	return c.put(ctx, "/v1/agent/service/maintenance/"+url.PathEscape(id), maintenance(enable, reason), nil)
}

// NodeMaintenance takes the host out of answers, or back in.
func (c *Client) NodeMaintenance(ctx context.Context, enable bool, reason string) error {
	return c.put(ctx, "/v1/agent/maintenance", maintenance(enable, reason), nil)
}

func maintenance(enable bool, reason string) url.Values {
	v := url.Values{"enable": {strconv.FormatBool(enable)}}
	if reason != "" {
		v.Set("reason", reason)
	}
	return v
}

// RegisterCheck adds or replaces a check.
func (c *Client) RegisterCheck(ctx context.Context, check CheckRegistration) error {
	return c.put(ctx, "/v1/agent/check/register", nil, check)
}

// DeregisterCheck removes a check.
func (c *Client) DeregisterCheck(ctx context.Context, id string) error {
	return c.put(ctx, "/v1/agent/check/deregister/"+url.PathEscape(id), nil, nil)
}

// UpdateTTL reports a status for a TTL check.
func (c *Client) UpdateTTL(ctx context.Context, id, status, output string) error {
	return c.put(ctx, "/v1/agent/check/update/"+url.PathEscape(id), nil,
		map[string]string{"Status": status, "Output": output})
}

// Reload has the daemon read its configuration again.
func (c *Client) Reload(ctx context.Context) (remark string, err error) {
	meta, err := c.Put(ctx, "/v1/agent/reload", nil, nil, nil)
	return meta.Warning, err
}

func (c *Client) put(ctx context.Context, path string, query url.Values, body any) error {
	_, err := c.Put(ctx, path, query, body, nil)
	return err
}

// Datacenters lists the datacenters, the nearest first.
func (c *Client) Datacenters(ctx context.Context) (out []string, err error) {
	_, err = c.Get(ctx, "/v1/catalog/datacenters", nil, &out)
	return out, err
}

// Nodes lists the catalog's nodes.
func (c *Client) Nodes(ctx context.Context, q *Query) (out []*catalog.Node, meta Meta, err error) {
	meta, err = c.Get(ctx, "/v1/catalog/nodes", q, &out)
	return out, meta, err
}

// Services lists the catalog's services and the tags in use of each.
func (c *Client) Services(ctx context.Context, q *Query) (out map[string][]string, meta Meta, err error) {
	meta, err = c.Get(ctx, "/v1/catalog/services", q, &out)
	return out, meta, err
}

// Service lists the instances of a service, healthy or not, without their checks.
func (c *Client) Service(ctx context.Context, name string, q *Query) (out []CatalogService, meta Meta, err error) {
	meta, err = c.Get(ctx, "/v1/catalog/service/"+url.PathEscape(name), q, &out)
	return out, meta, err
}

// Node reads a node and its services; nil if there is no such node.
func (c *Client) Node(ctx context.Context, name string, q *Query) (out *CatalogNode, meta Meta, err error) {
	meta, err = c.Get(ctx, "/v1/catalog/node/"+url.PathEscape(name), q, &out)
	return out, meta, err
}

// Health lists the instances of a service with the checks that bear on them.
func (c *Client) Health(ctx context.Context, service string, q *Query) (out []catalog.Instance, meta Meta, err error) {
	meta, err = c.Get(ctx, "/v1/health/service/"+url.PathEscape(service), q, &out)
	return out, meta, err
}

// NodeChecks lists the checks on a node, its services' included.
func (c *Client) NodeChecks(ctx context.Context, node string, q *Query) ([]*catalog.Check, Meta, error) {
	return c.checks(ctx, "/v1/health/node/"+url.PathEscape(node), q)
}

// ServiceChecks lists the checks of a service's instances.
func (c *Client) ServiceChecks(ctx context.Context, service string, q *Query) ([]*catalog.Check, Meta, error) {
	return c.checks(ctx, "/v1/health/checks/"+url.PathEscape(service), q)
}

// ChecksInState lists the checks with a status, or all for "any".
func (c *Client) ChecksInState(ctx context.Context, status string, q *Query) ([]*catalog.Check, Meta, error) {
	return c.checks(ctx, "/v1/health/state/"+url.PathEscape(status), q)
}

func (c *Client) checks(ctx context.Context, path string, q *Query) (out []*catalog.Check, meta Meta, err error) {
	meta, err = c.Get(ctx, path, q, &out)
	return out, meta, err
}

// Register writes to the catalog itself. For a node that has an agent, register there
// instead: the agent undoes what it does not hold; the warning in Meta says so.
func (c *Client) Register(ctx context.Context, r Registration) (Meta, error) {
	return c.Put(ctx, "/v1/catalog/register", nil, r, nil)
}

// Deregister removes from the catalog itself.
func (c *Client) Deregister(ctx context.Context, d Deregistration) (Meta, error) {
	return c.Put(ctx, "/v1/catalog/deregister", nil, d, nil)
}

// Leader is the Raft address of the leader, empty if there is none.
func (c *Client) Leader(ctx context.Context) (out string, err error) {
	_, err = c.Get(ctx, "/v1/status/leader", nil, &out)
	return out, err
}

// Peers are the Raft addresses of the servers.
func (c *Client) Peers(ctx context.Context) (out []string, err error) {
	_, err = c.Get(ctx, "/v1/status/peers", nil, &out)
	return out, err
}
