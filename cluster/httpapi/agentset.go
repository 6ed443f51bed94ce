package httpapi

import (
	"maps"
	"net/http"
	"strconv"
	"strings"

	"meibo/cluster/acl"
	"meibo/cluster/catalog"
	"meibo/cluster/definition"
)

// agentSet are the endpoints under /v1/agent/: this host speaks for itself.
type agentSet struct {
	*endpoints
	cfg *Config
}

func (a *agentSet) routes() []route {
	return []route{
		a.on("GET", "/", a.index),
		a.on("GET", "/v1/agent/self", a.self),
		a.on("GET", "/v1/agent/version", a.version),
		a.on("GET", "/v1/agent/members", a.members),
		a.on("GET", "/v1/meibo/members", a.detailedMembers),
		a.on("GET", "/v1/meibo/unconfirmed", a.unconfirmed),
		a.on("PUT", "/v1/agent/join/", a.join),
		a.on("PUT", "/v1/agent/leave", a.operates(a.leave)),
		a.on("PUT", "/v1/agent/force-leave/", a.operates(a.forceLeave)),
		a.on("GET", "/v1/agent/services", a.services),
		a.on("GET", "/v1/agent/checks", a.checks),
		a.on("GET", "/v1/agent/metrics", a.metricsJSON),
		a.on("GET", "/v1/agent/metrics/stream", a.metricsStream),
		a.on("GET", "/metrics", a.metricsText),
		a.on("GET", "/v1/agent/monitor", a.monitor),
		a.on("GET", "/v1/agent/host", a.host),
		a.on("PUT", "/v1/agent/token/", a.token),
		a.on("GET", "/v1/agent/service/", a.service),
		a.on("GET", "/v1/agent/health/service/id/", a.healthByID),
		a.on("GET", "/v1/agent/health/service/name/", a.healthByName),
		a.on("PUT", "/v1/agent/reload", a.reload),
		a.on("PUT", "/v1/agent/maintenance", a.nodeMaintenance),
		a.on("PUT", "/v1/agent/service/register", a.registerService),
		a.on("PUT", "/v1/agent/service/deregister/", a.deregisterService),
		a.on("PUT", "/v1/agent/service/maintenance/", a.serviceMaintenance),
		a.on("PUT", "/v1/agent/check/register", a.registerCheck),
		a.on("PUT", "/v1/agent/check/deregister/", a.deregisterCheck),
		a.on("PUT", "/v1/agent/check/pass/", a.ttl(catalog.Passing)),
		a.on("PUT", "/v1/agent/check/warn/", a.ttl(catalog.Warning)),
		a.on("PUT", "/v1/agent/check/fail/", a.ttl(catalog.Critical)),
		a.on("PUT", "/v1/agent/check/update/", a.updateCheck),
	}
}

// index tells whoever opens the address in a browser, or probes it, what listens here.
func (a *agentSet) index(*request) (any, error) {
	return textBody(http.StatusOK, "meibo agent on "+a.cfg.Node+": Consul's HTTP API is under /v1/, metrics are under /metrics\n"), nil
}

type selfShape struct {
	Config      selfConfig
	DebugConfig map[string]any
	Coord       coordShape
	Member      Member
	Stats       map[string]map[string]string
	Meta        map[string]string
}

// selfConfig is what clients read: Prometheus and consul-template the datacenter, Patroni
// SessionTTLMin (in nanoseconds), Consul's own client the version and NodeName.
type selfConfig struct {
	Datacenter        string
	PrimaryDatacenter string
	NodeName          string
	NodeID            string
	Revision          string
	Server            bool
	Version           string
	BuildDate         string
	SessionTTLMin     int64
}

// coordShape is the coordinate of a host that measures none: the origin.
type coordShape struct {
	Vec        []float64
	Error      float64
	Adjustment float64
	Height     float64
}

// sessionTTLMin is Consul's default of session_ttl_min.
const sessionTTLMin = 10_000_000_000

func (a *agentSet) self(r *request) (any, error) {
	s := a.cfg.Agent.Self()
	if err := r.authorize(acl.Agent, s.NodeName, acl.Read); err != nil {
		return nil, err
	}
	if path := a.control(); path != "" {
		r.w.Header().Set(headerControl, path)
	}
	if s.PrimaryDatacenter == "" {
		s.PrimaryDatacenter = s.Datacenter
	}
	if s.Meta == nil {
		s.Meta = map[string]string{}
	}
	if s.Stats == nil {
		s.Stats = map[string]map[string]string{}
	}
	if s.Debug == nil {
		s.Debug = map[string]any{}
	}
	return selfShape{
		Config: selfConfig{
			Datacenter: s.Datacenter, PrimaryDatacenter: s.PrimaryDatacenter, NodeName: s.NodeName,
			NodeID: s.NodeID, Revision: a.cfg.Revision, Server: s.Server, Version: a.cfg.fullVersion(),
			BuildDate: a.cfg.BuildDate, SessionTTLMin: sessionTTLMin,
		},
		DebugConfig: s.Debug,
		Coord:       coordShape{Vec: make([]float64, 8), Error: 1.5, Height: 1e-5},
		Member:      s.Member, Stats: s.Stats, Meta: s.Meta,
	}, nil
}

type versionShape struct {
	SHA          string
	BuildDate    string
	HumanVersion string
	FIPS         string
}

func (a *agentSet) version(*request) (any, error) {
	return versionShape{SHA: a.cfg.Revision, BuildDate: a.cfg.BuildDate, HumanVersion: a.cfg.fullVersion()}, nil
}

func (a *agentSet) services(r *request) (any, error) {
	f, err := parseFilter(r)
	if err != nil {
		return nil, err
	}
	var list []agentServiceShape
	for _, s := range sortedValues(a.cfg.Agent.Services()) {
		if r.may(acl.Service, s.Service) {
			list = append(list, shapeAgentService(s, a.cfg.Datacenter))
		}
	}
	list, err = apply(f, list)
	byID := make(map[string]agentServiceShape, len(list))
	for _, s := range list {
		byID[s.ID] = s
	}
	return byID, err
}

func (a *agentSet) checks(r *request) (any, error) {
	f, err := parseFilter(r)
	if err != nil {
		return nil, err
	}
	var list []checkShape
	for _, c := range sortedValues(a.cfg.Agent.Checks()) {
		if a.mayReadCheck(r, c) {
			list = append(list, a.shapeCheck(c))
		}
	}
	list, err = apply(f, list)
	byID := make(map[string]checkShape, len(list))
	for _, c := range list {
		byID[c.CheckID] = c
	}
	return byID, err
}

func (a *agentSet) mayReadCheck(r *request, c *catalog.Check) bool {
	if c.ServiceName != "" {
		return r.may(acl.Service, c.ServiceName)
	}
	return r.may(acl.Node, a.cfg.Node)
}

func (a *agentSet) shapeCheck(c *catalog.Check) checkShape {
	s := checkShape(*c)
	if s.Node == "" {
		s.Node = a.cfg.Node
	}
	return s
}

func (a *agentSet) reload(r *request) (any, error) {
	if err := r.authorize(acl.Agent, a.cfg.Node, acl.Write); err != nil {
		return nil, err
	}
	remark, err := a.cfg.Agent.Reload(r.Context())
	r.remark(remark)
	return nil, err
}

// registerService adds a service to this host.
func (a *agentSet) registerService(r *request) (any, error) {
	var b agentServiceBody
	if err := decodeBody(r, &b); err != nil {
		return nil, err
	}
	def, err := b.definition()
	if err != nil {
		return nil, err
	}
	if err := a.mayRegister(r, def); err != nil {
		return nil, err
	}
	if def.Token == "" {
		def.Token = tokenOf(r.Request)
	}
	replace, err := r.flag("replace-existing-checks")
	if err != nil {
		return nil, err
	}
	return nil, a.cfg.Agent.RegisterService(r.Context(), def, replace)
}

// mayRegister: the token must write the service, and the one of another name whose ID it
// takes over.
func (a *agentSet) mayRegister(r *request, def definition.Service) error {
	if err := r.authorize(acl.Service, def.Name, acl.Write); err != nil {
		return err
	}
	if old, ok := a.cfg.Agent.Services()[def.ID]; ok && old.Service != def.Name {
		return r.authorize(acl.Service, old.Service, acl.Write)
	}
	return nil
}

// ownService finds a service of this host that the request wants to change.
func (a *agentSet) ownService(r *request, id string) error {
	s, ok := a.cfg.Agent.Services()[id]
	if !ok {
		return errorf(http.StatusNotFound, "Unknown service ID %q. Ensure that the service ID is passed, not the service name.", clip(id))
	}
	return r.authorize(acl.Service, s.Service, acl.Write)
}

func (a *agentSet) deregisterService(r *request) (any, error) {
	if r.arg == "" {
		return nil, badRequest("Missing service ID")
	}
	if err := a.ownService(r, r.arg); err != nil {
		return nil, err
	}
	return nil, a.cfg.Agent.DeregisterService(r.Context(), r.arg)
}

func (a *agentSet) serviceMaintenance(r *request) (any, error) {
	if r.arg == "" {
		return nil, badRequest("Missing service ID")
	}
	enable, err := parseEnable(r)
	if err != nil {
		return nil, err
	}
	if err := a.ownService(r, r.arg); err != nil {
		return nil, err
	}
	return nil, a.cfg.Agent.ServiceMaintenance(r.Context(), r.arg, enable, r.query.Get("reason"))
}

func (a *agentSet) nodeMaintenance(r *request) (any, error) {
	enable, err := parseEnable(r)
	if err != nil {
		return nil, err
	}
	if err := r.authorize(acl.Node, a.cfg.Node, acl.Write); err != nil {
		return nil, err
	}
	return nil, a.cfg.Agent.NodeMaintenance(r.Context(), enable, r.query.Get("reason"))
}

// parseEnable reads ?enable, which must be there: nobody enters maintenance by omission.
func parseEnable(r *request) (bool, error) {
	if !r.has("enable") {
		return false, badRequest("Missing value for enable")
	}
	enable, err := strconv.ParseBool(r.query.Get("enable"))
	if err != nil {
		return false, badRequest("Invalid value for enable: %q", clip(r.query.Get("enable")))
	}
	return enable, nil
}

func (a *agentSet) registerCheck(r *request) (any, error) {
	var b agentCheckBody
	if err := decodeBody(r, &b); err != nil {
		return nil, err
	}
	if err := refuseTenancy(b.Namespace, b.Partition); err != nil {
		return nil, err
	}
	if b.Name == "" {
		return nil, badRequest("Missing check name")
	}
	if !validStatus(b.Status, true) {
		return nil, badRequest("Bad check status")
	}
	def := b.definition()
	if def.ID == "" {
		def.ID = def.Name
	}
	if def.Token == "" {
		def.Token = tokenOf(r.Request)
	}
	if err := a.mayRegisterCheck(r, def); err != nil {
		return nil, err
	}
	return nil, a.cfg.Agent.RegisterCheck(r.Context(), def)
}

func (a *agentSet) mayRegisterCheck(r *request, def definition.Check) error {
	if old, ok := a.cfg.Agent.Checks()[def.ID]; ok {
		if err := a.mayWriteCheck(r, old); err != nil {
			return err
		}
	}
	if def.ServiceID == "" {
		return r.authorize(acl.Node, a.cfg.Node, acl.Write)
	}
	s, ok := a.cfg.Agent.Services()[def.ServiceID]
	if !ok {
		return errorf(http.StatusNotFound, "ServiceID %q does not exist", clip(def.ServiceID))
	}
	return r.authorize(acl.Service, s.Service, acl.Write)
}

func (a *agentSet) mayWriteCheck(r *request, c *catalog.Check) error {
	if c.ServiceName != "" {
		return r.authorize(acl.Service, c.ServiceName, acl.Write)
	}
	return r.authorize(acl.Node, a.cfg.Node, acl.Write)
}

// ownCheck finds a check of this host that the request wants to change.
func (a *agentSet) ownCheck(r *request, id string) error {
	c, ok := a.cfg.Agent.Checks()[id]
	if !ok {
		return errorf(http.StatusNotFound, "Unknown check ID %q. Ensure that the check ID is passed, not the check name.", clip(id))
	}
	return a.mayWriteCheck(r, c)
}

func (a *agentSet) deregisterCheck(r *request) (any, error) {
	if r.arg == "" {
		return nil, badRequest("Missing check ID")
	}
	if err := a.ownCheck(r, r.arg); err != nil {
		return nil, err
	}
	return nil, a.cfg.Agent.DeregisterCheck(r.Context(), r.arg)
}

// ttl reports a fixed status for a TTL check, with ?note as its output.
func (a *agentSet) ttl(status string) handler {
	return func(r *request) (any, error) {
		if err := a.ownCheck(r, r.arg); err != nil {
			return nil, err
		}
		return nil, a.cfg.Agent.UpdateTTL(r.Context(), r.arg, status, r.query.Get("note"))
	}
}

func (a *agentSet) updateCheck(r *request) (any, error) {
	var b checkUpdateBody
	if err := decodeBody(r, &b); err != nil {
		return nil, err
	}
	if !validStatus(b.Status, false) {
		return nil, badRequest("Invalid check status: '%s'", clip(b.Status))
	}
	if err := a.ownCheck(r, r.arg); err != nil {
		return nil, err
	}
	return nil, a.cfg.Agent.UpdateTTL(r.Context(), r.arg, b.Status, b.Output)
}

// servicesNamed returns this host's services of one name, by ID.
func (a *agentSet) servicesNamed(name string) []*catalog.Service {
	all := maps.Clone(a.cfg.Agent.Services())
	maps.DeleteFunc(all, func(_ string, s *catalog.Service) bool { return !strings.EqualFold(s.Service, name) })
	return sortedValues(all)
}
