package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	"meibo/cluster"
	"meibo/cluster/agent"
	"meibo/cluster/catalog"
	"meibo/cluster/definition"
	"meibo/cluster/httpapi"
	"meibo/cluster/membership"
	"meibo/cluster/server"
)

// The rooms on both sides of these adapters don't know each other. They say the same in their own words; nothing is
// decided here.

// catalogBackend is the catalog as the API asks for it.
type catalogBackend struct{ node *cluster.Node }

var _ httpapi.Backend = catalogBackend{}

func (b catalogBackend) Read(ctx context.Context, c catalog.Consistency) (catalog.Reader, catalog.ReadInfo, error) {
	reader, info, err := b.node.Read(ctx, c)
	return reader, info, inAPIWords(err)
}

func (b catalogBackend) ReadKept(service string) (catalog.Reader, catalog.ReadInfo, bool) {
	return b.node.ReadKept(service)
}

func (b catalogBackend) Apply(ctx context.Context, body catalog.Body) (uint64, error) {
	index, err := b.node.Apply(ctx, body)
	return index, inAPIWords(err)
}

func (b catalogBackend) AwaitView(ctx context.Context, index uint64) { b.node.AwaitView(ctx, index) }

// Forward implements httpapi.Forwarder.
func (b catalogBackend) Forward(w http.ResponseWriter, r *http.Request, c catalog.Consistency, e catalog.Effect) bool {
	return b.node.Forward(w, r, c, e)
}

// scopeOf and withScope let a request keep on whose behalf it is made when another host answers it.
func scopeOf(r *http.Request) (node, datacenter, token string) {
	s, _ := httpapi.ScopeFrom(r.Context())
	return s.Node, s.Datacenter, s.Token
}

func withScope(ctx context.Context, node, datacenter, token string) context.Context {
	return httpapi.WithScope(ctx, httpapi.Scope{Node: node, Datacenter: datacenter, Token: token})
}

func (b catalogBackend) Leader(context.Context) string  { return b.node.Leader() }
func (b catalogBackend) Peers(context.Context) []string { return b.node.Peers() }

// inAPIWords maps the errors of the cluster's rooms to those that the API has a status for.
func inAPIWords(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, catalog.ErrNoLeader):
		return catalog.ErrNoLeader
	case errors.Is(err, cluster.ErrUnknownMember):
		return httpapi.ErrUnknownMember
	case errors.Is(err, server.ErrUnknownServer):
		return fmt.Errorf("%w: %w", httpapi.ErrUnknownServer, err)
	case errors.Is(err, agent.ErrUnknownService):
		return httpapi.Marked(err, httpapi.ErrUnknownService)
	case errors.Is(err, agent.ErrUnknownCheck):
		return httpapi.Marked(err, httpapi.ErrUnknownCheck)
	case errors.Is(err, agent.ErrNotTTL):
		return httpapi.Marked(err, httpapi.ErrNotTTL)
	case errors.Is(err, agent.ErrInvalid):
		return httpapi.Marked(err, httpapi.ErrInvalid)
	}
	return err
}

// hostAgent is this host as the API asks for it.
type hostAgent struct{ d *daemon }

var _ httpapi.Agent = hostAgent{}

func (h hostAgent) agent() *agent.Agent { return h.d.node.Agent() }

func (h hostAgent) Services() map[string]*catalog.Service { return h.agent().Services() }
func (h hostAgent) Checks() map[string]*catalog.Check     { return h.agent().Checks() }
func (h hostAgent) Changed() <-chan struct{}              { return h.agent().Changed() }

func (h hostAgent) LeftOut() []httpapi.LeftOut {
	var all []httpapi.LeftOut
	for _, l := range h.d.leftOut() {
		all = append(all, httpapi.LeftOut{Check: l.Check, ID: l.ID, Name: l.Name, ServiceID: l.ServiceID, What: l.What(), Why: l.Why()})
	}
	return all
}

// catalogWait is how long an answer waits for the catalog to have what was written here.
const catalogWait = time.Second

// intoCatalog follows a write to this host: while a leader is known the catalog has it, too, before it is answered, so
// that clients find what they have just registered. Without one it is this host's to see to later.
func (h hostAgent) intoCatalog(ctx context.Context, err error) error {
	if err != nil {
		return inAPIWords(err)
	}
	if h.d.node.View().Load().Fresh() {
		ctx, cancel := context.WithTimeout(ctx, catalogWait)
		defer cancel()
		h.agent().AwaitSync(ctx)
	}
	return nil
}

func (h hostAgent) RegisterService(ctx context.Context, def definition.Service, replaceChecks bool) error {
	return h.intoCatalog(ctx, h.agent().AddService(def, agent.SourceAPI, replaceChecks))
}

func (h hostAgent) DeregisterService(ctx context.Context, id string) error {
	return h.intoCatalog(ctx, h.agent().RemoveService(id))
}

func (h hostAgent) RegisterCheck(ctx context.Context, def definition.Check) error {
	return h.intoCatalog(ctx, h.agent().AddCheck(def, agent.SourceAPI))
}

func (h hostAgent) DeregisterCheck(ctx context.Context, id string) error {
	return h.intoCatalog(ctx, h.agent().RemoveCheck(id))
}

func (h hostAgent) UpdateTTL(ctx context.Context, id, status, output string) error {
	return h.intoCatalog(ctx, h.agent().UpdateTTL(id, status, output))
}

func (h hostAgent) ServiceMaintenance(ctx context.Context, id string, enable bool, reason string) error {
	return h.intoCatalog(ctx, h.agent().ServiceMaintenance(id, enable, reason))
}

func (h hostAgent) NodeMaintenance(ctx context.Context, enable bool, reason string) error {
	return h.intoCatalog(ctx, h.agent().NodeMaintenance(enable, reason))
}

func (h hostAgent) Reload(ctx context.Context) (remark string, err error) {
	waiting, err := h.d.Reload(ctx)
	if len(waiting) > 0 {
		remark = "changed, and wait for a restart: " + strings.Join(waiting, ", ")
	}
	return remark, err
}

func (h hostAgent) Members() []httpapi.Member {
	var members []httpapi.Member
	for _, m := range h.d.node.Members() {
		members = append(members, apiMember(m))
	}
	return members
}

// member is this host as gossip knows it.
func (h hostAgent) member() httpapi.Member {
	if m := h.d.node.MemberOf(h.d.node.Record().ID); m != nil {
		return apiMember(m)
	}
	return httpapi.Member{Name: h.d.node.Record().Node}
}

// apiMember is a member in the words of the API.
func apiMember(m *cluster.Member) httpapi.Member {
	status := map[membership.Status]httpapi.MemberStatus{
		membership.Alive: httpapi.MemberAlive, membership.Suspect: httpapi.MemberAlive,
		membership.Failed: httpapi.MemberFailed, membership.Left: httpapi.MemberLeft,
	}[m.Status]
	return httpapi.Member{
		Name: m.Name, Addr: m.Addr.String(), Port: m.Port, Tags: m.Tags, Status: status,
		ProtocolMin: 1, ProtocolMax: 5, ProtocolCur: 2, DelegateMin: 2, DelegateMax: 5, DelegateCur: 4,
		Detail: httpapi.MemberDetail{
			ID: m.ID, State: m.Status.String(), Since: m.Since, Told: m.Told.String(), ToldBy: m.ToldBy, ToldAt: m.ToldAt,
			HeldUntil: m.HeldUntil, Flaps: m.Flaps, RTT: m.RTT, Conflict: m.Conflict, History: m.Tags["history"],
		},
	}
}

func (h hostAgent) Standing() httpapi.Standing {
	node := h.d.node
	state := node.View().Load()
	server, since := node.Stream()
	return httpapi.Standing{
		Braking: node.Guarded(), Merging: node.View().Merging(), History: state.History().ID, Index: state.Index(),
		Confirmed: node.View().Confirmed(), Stale: !state.Fresh(), Server: server, ServerSince: since,
	}
}

func (h hostAgent) KnowsNode(ctx context.Context, name string) bool {
	_, _, known := h.d.node.View().Load().Node(name)
	return known != catalog.Absent || h.d.node.CatalogHasNode(ctx, name)
}

func (h hostAgent) Unconfirmed() []httpapi.UnconfirmedNode {
	var all []httpapi.UnconfirmedNode
	for _, u := range h.d.node.View().Load().AllUnconfirmed() {
		all = append(all, httpapi.UnconfirmedNode{
			Node: u.Node.Node, ID: u.Node.ID, Address: u.Node.Address, All: u.All, Services: u.Services, Confirmed: u.Confirmed,
		})
	}
	return all
}

func (h hostAgent) Join(ctx context.Context, addr string) error {
	if err := h.d.config().CheckJoin([]string{addr}); err != nil {
		return err
	}
	_, err := h.d.node.Join(ctx, []string{addr})
	return err
}

func (h hostAgent) Leave(ctx context.Context) error {
	h.d.log.Info("asked to end", "by", "the HTTP API or its control socket", "leave", true)
	return h.d.leaveCluster(ctx)
}

func (h hostAgent) ForceLeave(ctx context.Context, node string, prune bool) (remark string, err error) {
	lives, err := h.d.node.ForceLeave(ctx, node, prune)
	if lives {
		remark = fmt.Sprintf("%s is alive and contradicts: it stays a member, and its services stay; to have it leave, use `meibo leave` there", node)
	}
	return remark, inAPIWords(err)
}

// clusterOperator is the cluster as its operator's endpoints ask for it.
type clusterOperator struct{ d *daemon }

var _ httpapi.Operator = clusterOperator{}

func (o clusterOperator) Keyring(ctx context.Context, op httpapi.KeyringOp, key string, opts httpapi.KeyringOptions) ([]httpapi.KeyringResponse, error) {
	answers, err := o.d.node.Keyring(ctx, cluster.KeyringOp(op), key, opts.LocalOnly)
	if err != nil {
		return nil, err
	}
	pool := httpapi.KeyringResponse{
		Datacenter: o.d.node.Record().Datacenter, Messages: map[string]string{}, Keys: map[string]int{}, PrimaryKeys: map[string]int{},
	}
	for _, a := range answers {
		if a.Down {
			pool.Failed = append(pool.Failed, a.Node)
			continue
		}
		pool.NumNodes++
		if a.Err != "" {
			pool.Messages[a.Node] = a.Err
		}
		for i, key := range a.Keys {
			pool.Keys[key]++
			if i == 0 {
				pool.PrimaryKeys[key]++
			}
		}
	}
	if n := len(pool.Messages); n > 0 {
		pool.Error = fmt.Sprintf("%d of %d hosts could not do it", n, pool.NumNodes)
	}
	slices.Sort(pool.Failed)
	return []httpapi.KeyringResponse{pool}, nil
}

func (o clusterOperator) RaftConfiguration(context.Context) (httpapi.RaftConfiguration, error) {
	servers, index, err := o.d.node.RaftConfiguration()
	if err != nil {
		return httpapi.RaftConfiguration{}, inAPIWords(err)
	}
	conf := httpapi.RaftConfiguration{Index: index}
	for _, s := range servers {
		conf.Servers = append(conf.Servers, httpapi.RaftServer{
			ID: s.ID, RaftID: s.RaftID, Node: s.Node, Address: s.Addr, Leader: s.Leading, ProtocolVersion: "3", Voter: s.Voter,
		})
	}
	return conf, nil
}

func (o clusterOperator) RemovePeer(ctx context.Context, id, address string) error {
	return inAPIWords(o.d.node.RemovePeer(ctx, id, address))
}

func (o clusterOperator) TransferLeader(ctx context.Context, id string) error {
	return inAPIWords(o.d.node.TransferLeader(ctx, id))
}

func (o clusterOperator) AutopilotConfig(context.Context) (*catalog.Autopilot, error) {
	conf, err := o.d.node.AutopilotConfig()
	return conf, inAPIWords(err)
}

func (o clusterOperator) AutopilotHealth(context.Context) (httpapi.AutopilotHealth, error) {
	health, err := o.d.node.AutopilotHealth()
	if err != nil {
		return httpapi.AutopilotHealth{}, inAPIWords(err)
	}
	out := httpapi.AutopilotHealth{Healthy: health.Healthy, FailureTolerance: health.FailureTolerance}
	for _, s := range health.Servers {
		out.Servers = append(out.Servers, httpapi.AutopilotServer(s))
	}
	return out, nil
}

// mountsOf are the handlers besides Consul's API.
func mountsOf(explain http.Handler, debug bool) map[string]http.Handler {
	mounts := map[string]http.Handler{"/v1/meibo/": explain}
	if debug {
		mux := http.NewServeMux()
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
		mounts["/debug/pprof/"] = mux
	}
	return mounts
}
