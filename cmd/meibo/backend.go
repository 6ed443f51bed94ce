package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/pprof"
	"strings"

	"meibo/cluster"
	"meibo/cluster/agent"
	"meibo/cluster/catalog"
	"meibo/cluster/check"
	"meibo/cluster/httpapi"
)

// The rooms on both sides of these adapters don't know each other. They say the same in their own words; nothing is
// decided here.

// catalogBackend is the catalog as the API asks for it.
type catalogBackend struct{ node *cluster.Node }

var _ httpapi.Backend = catalogBackend{}

func (b catalogBackend) Read(ctx context.Context, c httpapi.Consistency) (httpapi.Reader, httpapi.ReadInfo, error) {
	reader, info, err := b.node.Read(ctx, cluster.Consistency(c))
	if err != nil {
		return nil, httpapi.ReadInfo(info), inAPIWords(err)
	}
	return reader, httpapi.ReadInfo(info), nil
}

func (b catalogBackend) Apply(ctx context.Context, body catalog.Body) error {
	_, err := b.node.Apply(ctx, body)
	return inAPIWords(err)
}

func (b catalogBackend) Leader(context.Context) string  { return b.node.Leader() }
func (b catalogBackend) Peers(context.Context) []string { return b.node.Peers() }

// inAPIWords maps the errors of the cluster's rooms to those that the API has a status for.
func inAPIWords(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cluster.ErrNoLeader):
		return httpapi.ErrNoLeader
	case errors.Is(err, agent.ErrUnknownService):
		return httpapi.ErrUnknownService
	case errors.Is(err, agent.ErrUnknownCheck):
		return httpapi.ErrUnknownCheck
	case errors.Is(err, agent.ErrNotTTL):
		return httpapi.ErrNotTTL
	case errors.Is(err, agent.ErrInvalid):
		return httpapi.Invalid(err)
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

func (h hostAgent) RegisterService(_ context.Context, def httpapi.ServiceDefinition, replaceChecks bool) error {
	return inAPIWords(h.agent().AddService(serviceDefinition(def), agent.SourceAPI, replaceChecks))
}

func (h hostAgent) DeregisterService(_ context.Context, id string) error {
	return inAPIWords(h.agent().RemoveService(id))
}

func (h hostAgent) RegisterCheck(_ context.Context, def httpapi.CheckDefinition) error {
	return inAPIWords(h.agent().AddCheck(checkDefinition(def), agent.SourceAPI))
}

func (h hostAgent) DeregisterCheck(_ context.Context, id string) error {
	return inAPIWords(h.agent().RemoveCheck(id))
}

func (h hostAgent) UpdateTTL(_ context.Context, id, status, output string) error {
	return inAPIWords(h.agent().UpdateTTL(id, status, output))
}

func (h hostAgent) ServiceMaintenance(_ context.Context, id string, enable bool, reason string) error {
	return inAPIWords(h.agent().ServiceMaintenance(id, enable, reason))
}

func (h hostAgent) NodeMaintenance(_ context.Context, enable bool, reason string) error {
	return inAPIWords(h.agent().NodeMaintenance(enable, reason))
}

func (h hostAgent) Reload(ctx context.Context) error { return h.d.Reload(ctx) }

func (h hostAgent) Self() httpapi.Self {
	cfg := h.d.config()
	record := h.d.node.Record()
	debug := make(map[string]any)
	for line := range strings.Lines(cfg.Redacted()) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " = "); ok {
			debug[key] = value
		}
	}
	return httpapi.Self{
		NodeID: record.ID, NodeName: record.Node, Datacenter: record.Datacenter, PrimaryDatacenter: cfg.Node.PrimaryDatacenter,
		Server: h.isServer(), Member: h.member(), Meta: record.Meta, Stats: h.d.node.Stats(), Debug: debug,
	}
}

func (h hostAgent) isServer() bool { return h.d.node.Status().State != cluster.Absent }

func (h hostAgent) Members() []httpapi.Member { return []httpapi.Member{h.member()} }

// member is this host in the words of gossip, which a single host doesn't speak yet.
func (h hostAgent) member() httpapi.Member {
	record := h.d.node.Record()
	role := "node"
	if h.isServer() {
		role = "consul"
	}
	return httpapi.Member{
		Name: record.Node, Addr: record.Address, Port: uint16(h.d.config().Cluster.SerfLAN.Port()), Status: httpapi.MemberAlive,
		Tags:        map[string]string{"role": role, "dc": record.Datacenter, "id": record.ID, "build": apiLevel, "vsn": "2"},
		ProtocolMin: 1, ProtocolMax: 5, ProtocolCur: 2, DelegateMin: 2, DelegateMax: 5, DelegateCur: 4,
	}
}

// errAlone answers what a single host has no use for.
var errAlone = errors.New("not there yet: this daemon is not wired to a cluster")

func (h hostAgent) Standing() httpapi.Standing                     { return httpapi.Standing{} }
func (h hostAgent) Join(context.Context, string) error             { return errAlone }
func (h hostAgent) Leave(context.Context) error                    { return errAlone }
func (h hostAgent) ForceLeave(context.Context, string, bool) error { return errAlone }

// clusterOperator is the cluster as its operator's endpoints ask for it.
type clusterOperator struct{ d *daemon }

var _ httpapi.Operator = clusterOperator{}

func (o clusterOperator) Keyring(context.Context, httpapi.KeyringOp, string, httpapi.KeyringOptions) ([]httpapi.KeyringResponse, error) {
	return nil, errAlone
}

func (o clusterOperator) RaftConfiguration(context.Context) (httpapi.RaftConfiguration, error) {
	return httpapi.RaftConfiguration{}, errAlone
}

func (o clusterOperator) RemovePeer(context.Context, string, string) error { return errAlone }
func (o clusterOperator) TransferLeader(context.Context, string) error     { return errAlone }
func (o clusterOperator) AutopilotConfig() httpapi.AutopilotConfig {
	return httpapi.AutopilotConfig(o.d.config().Cluster.Autopilot)
}

func (o clusterOperator) AutopilotHealth(context.Context) (httpapi.AutopilotHealth, error) {
	return httpapi.AutopilotHealth{}, errAlone
}

func serviceDefinition(def httpapi.ServiceDefinition) agent.ServiceDefinition {
	s := def.Service
	out := agent.ServiceDefinition{
		Kind: s.Kind, ID: s.ID, Name: s.Service, Tags: s.Tags, Address: s.Address, Port: s.Port, SocketPath: s.SocketPath,
		TaggedAddresses: s.TaggedAddresses, Meta: s.Meta, EnableTagOverride: s.EnableTagOverride, Token: def.Token,
	}
	if s.Weights != (catalog.Weights{}) {
		out.Weights = &s.Weights
	}
	for _, c := range def.Checks {
		out.Checks = append(out.Checks, checkDefinition(c))
	}
	return out
}

func checkDefinition(c httpapi.CheckDefinition) agent.CheckDefinition {
	return agent.CheckDefinition{
		ID: c.ID, Name: c.Name, Notes: c.Notes, Status: c.Status, ServiceID: c.ServiceID, Token: c.Token,
		DeregisterCriticalServiceAfter: c.DeregisterCriticalServiceAfter,
		Definition: check.Definition{
			ScriptArgs: c.Args, HTTP: c.HTTP, Method: c.Method, Header: c.Header, Body: c.Body, DisableRedirects: c.DisableRedirects,
			TCP: c.TCP, TCPUseTLS: c.TCPUseTLS, UDP: c.UDP, GRPC: c.GRPC, GRPCUseTLS: c.GRPCUseTLS,
			H2PING: c.H2PING, H2PingUseTLS: c.H2PingUseTLS, OSService: c.OSService,
			DockerContainerID: c.DockerContainerID, Shell: c.Shell, AliasNode: c.AliasNode, AliasService: c.AliasService,
			TTL: c.TTL, TLSServerName: c.TLSServerName, TLSSkipVerify: c.TLSSkipVerify,
			Interval: c.Interval, Timeout: c.Timeout, SuccessBeforePassing: c.SuccessBeforePassing,
			FailuresBeforeWarning: c.FailuresBeforeWarning, FailuresBeforeCritical: c.FailuresBeforeCritical, OutputMaxSize: c.OutputMaxSize,
		},
	}
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
