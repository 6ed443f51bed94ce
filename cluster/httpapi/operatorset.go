package httpapi

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"meibo/cluster/acl"
	"meibo/cluster/catalog"
)

// operatorSet are the endpoints under /v1/operator/ that speak for the servers. They are
// carried to the leader as those of the catalog are.
type operatorSet struct {
	*catalogSet
	operator Operator // nil: there are no servers to speak for
}

func (o *operatorSet) routes() []route {
	return []route{
		o.on("GET", "/v1/operator/raft/configuration", o.needs(acl.Read, o.raftConfiguration)),
		o.endpoints.on("DELETE", "/v1/operator/raft/peer", o.operates(o.carried(catalog.Acts, o.needs(acl.Write, o.removePeer)))),
		o.endpoints.on("POST,PUT", "/v1/operator/raft/transfer-leader", o.carried(catalog.Acts, o.needs(acl.Write, o.transferLeader))),
		o.on("GET,PUT", "/v1/operator/autopilot/configuration", o.autopilotConfiguration),
		o.on("GET", "/v1/operator/autopilot/health", o.needs(acl.Read, o.autopilotHealth)),
		o.on("GET", "/v1/operator/autopilot/state", o.needs(acl.Read, o.autopilotState)),
		o.on("GET", "/v1/operator/usage", o.needs(acl.Read, o.usage)),
	}
}

// needs holds what all of them ask for first.
func (o *operatorSet) needs(access acl.Access, h handler) handler {
	return func(r *request) (any, error) {
		if o.operator == nil {
			return nil, errorf(http.StatusNotImplemented, "this host has no part in a cluster")
		}
		if !strings.EqualFold(r.scope.Datacenter, o.datacenter) {
			return nil, errNoPath
		}
		if err := r.authorize(acl.Operator, "", access); err != nil {
			return nil, err
		}
		return h(r)
	}
}

func (o *operatorSet) raftConfiguration(r *request) (any, error) {
	c, err := o.operator.RaftConfiguration(r.Context())
	if err != nil {
		return nil, err
	}
	c.Servers = append([]RaftServer{}, c.Servers...)
	if health, err := o.operator.AutopilotHealth(r.Context()); err == nil { // the leader knows how far each is
		for i := range c.Servers {
			if h := slices.IndexFunc(health.Servers, func(s AutopilotServer) bool { return s.ID == c.Servers[i].ID }); h >= 0 && c.Servers[i].LastIndex == 0 {
				c.Servers[i].LastIndex = health.Servers[h].LastIndex
			}
		}
	}
	return c, nil
}

func (o *operatorSet) removePeer(r *request) (any, error) {
	id, address := r.query.Get("id"), r.query.Get("address")
	switch {
	case id == "" && address == "":
		return nil, badRequest("Must specify either ?id with the server's ID or ?address with IP:port of peer to remove")
	case id != "" && address != "":
		return nil, badRequest("Must specify only one of ?id or ?address")
	}
	return nil, unknownServer(o.operator.RemovePeer(r.Context(), id, address), id, address)
}

// unknownServer puts it in Consul's words that there is no such server.
func unknownServer(err error, id, address string) error {
	if !errors.Is(err, ErrUnknownServer) {
		return err
	}
	what, which := "id", id
	if id == "" {
		what, which = "address", address
	}
	return errorf(http.StatusInternalServerError, "%s %q was not found in the Raft configuration", what, clip(which))
}

func (o *operatorSet) transferLeader(r *request) (any, error) {
	id := r.query.Get("id")
	if err := o.operator.TransferLeader(r.Context(), id); err != nil {
		return nil, unknownServer(err, id, "")
	}
	return struct{ Success bool }{true}, nil
}

type autopilotConfigShape struct {
	CleanupDeadServers      bool
	LastContactThreshold    string
	MaxTrailingLogs         int
	MinQuorum               int
	ServerStabilizationTime string
	RedundancyZoneTag       string
	DisableUpgradeMigration bool
	UpgradeVersionTag       string
	CreateIndex             uint64
	ModifyIndex             uint64
}

func (o *operatorSet) autopilotConfiguration(r *request) (any, error) {
	if r.Method == http.MethodPut {
		return o.needs(acl.Write, o.setAutopilot)(r)
	}
	return o.needs(acl.Read, o.autopilotConfig)(r)
}

func (o *operatorSet) autopilotConfig(r *request) (any, error) {
	c, err := o.operator.AutopilotConfig(r.Context())
	if err == nil && c == nil {
		err = catalog.ErrNoLeader
	}
	if err != nil {
		return nil, err
	}
	return autopilotConfigShape{
		CleanupDeadServers: c.CleanupDeadServers, LastContactThreshold: c.LastContactThreshold.String(), MaxTrailingLogs: c.MaxTrailingLogs,
		MinQuorum: c.MinQuorum, ServerStabilizationTime: c.ServerStabilizationTime.String(), RedundancyZoneTag: c.RedundancyZoneTag,
		DisableUpgradeMigration: c.DisableUpgradeMigration, UpgradeVersionTag: c.UpgradeVersionTag,
		CreateIndex: c.CreateIndex, ModifyIndex: c.ModifyIndex,
	}, nil
}

type autopilotConfigBody struct {
	CleanupDeadServers       bool
	LastContactThreshold     *time.Duration
	MaxTrailingLogs          int
	MinQuorum                int
	ServerStabilizationTime  *time.Duration
	RedundancyZoneTag        string
	DisableUpgradeMigration  bool
	UpgradeVersionTag        string
	CreateIndex, ModifyIndex ignored
}

// setAutopilot replaces the configuration; with ?cas only if that is still the one of the
// index, and the answer says whether it was. What the body leaves out is what Consul's
// client begins with.
func (o *operatorSet) setAutopilot(r *request) (any, error) {
	b := autopilotConfigBody{CleanupDeadServers: true, MaxTrailingLogs: 250}
	if err := decodeBody(r, &b); err != nil {
		return nil, err
	}
	cmd := &catalog.SetAutopilot{Config: catalog.Autopilot{
		CleanupDeadServers: b.CleanupDeadServers, LastContactThreshold: 200 * time.Millisecond, MaxTrailingLogs: b.MaxTrailingLogs,
		MinQuorum: b.MinQuorum, ServerStabilizationTime: 10 * time.Second, RedundancyZoneTag: b.RedundancyZoneTag,
		DisableUpgradeMigration: b.DisableUpgradeMigration, UpgradeVersionTag: b.UpgradeVersionTag,
	}}
	if b.LastContactThreshold != nil {
		cmd.Config.LastContactThreshold = *b.LastContactThreshold
	}
	if b.ServerStabilizationTime != nil {
		cmd.Config.ServerStabilizationTime = *b.ServerStabilizationTime
	}
	if r.has("cas") {
		index, err := strconv.ParseUint(r.query.Get("cas"), 10, 64)
		if err != nil {
			return nil, badRequest("Error parsing cas value: %q is not an index", clip(r.query.Get("cas")))
		}
		cmd.CAS, cmd.ModifyIndex = true, index
	}
	if err := cmd.Validate(); err != nil {
		return nil, badRequest("%v", err)
	}
	_, err := o.backend.Apply(r.Context(), cmd)
	if errors.Is(err, catalog.ErrChanged) {
		return false, nil
	}
	return true, err
}

type serverHealthShape struct {
	ID          string
	Name        string
	Address     string
	SerfStatus  string
	Version     string
	Leader      bool
	LastContact string
	LastTerm    uint64
	LastIndex   uint64
	Healthy     bool
	Voter       bool
	StableSince time.Time
}

// autopilotHealth is 429 while something is wrong, so that a probe need not read it.
func (o *operatorSet) autopilotHealth(r *request) (any, error) {
	h, err := o.operator.AutopilotHealth(r.Context())
	if err != nil {
		return nil, err
	}
	out := struct {
		Healthy          bool
		FailureTolerance int
		Servers          []serverHealthShape
	}{h.Healthy, h.FailureTolerance, make([]serverHealthShape, 0, len(h.Servers))}
	for _, s := range h.Servers {
		out.Servers = append(out.Servers, serverHealthShape{
			ID: s.ID, Name: s.Name, Address: s.Address, SerfStatus: s.SerfStatus, Version: s.Version, Leader: s.Leader,
			LastContact: s.LastContact.String(), LastTerm: s.LastTerm, LastIndex: s.LastIndex, Healthy: s.Healthy, Voter: s.Voter, StableSince: s.StableSince,
		})
	}
	if h.Healthy {
		return out, nil
	}
	data, err := encode(r, out)
	return &body{status: http.StatusTooManyRequests, contentType: "application/json", data: data}, err
}

type serverStateShape struct {
	ID          string
	Name        string
	Address     string
	NodeStatus  string
	Version     string
	LastContact string
	LastTerm    uint64
	LastIndex   uint64
	Healthy     bool
	StableSince time.Time
	ReadReplica bool
	Status      string
	Meta        map[string]string
	NodeType    string
}

func (o *operatorSet) autopilotState(r *request) (any, error) {
	h, err := o.operator.AutopilotHealth(r.Context())
	if err != nil {
		return nil, err
	}
	out := struct {
		Healthy                    bool
		FailureTolerance           int
		OptimisticFailureTolerance int
		Servers                    map[string]serverStateShape
		Leader                     string
		Voters                     []string
	}{h.Healthy, h.FailureTolerance, h.FailureTolerance, make(map[string]serverStateShape, len(h.Servers)), "", []string{}}
	for _, s := range h.Servers {
		kind, status := "voter", "voter"
		if !s.Voter {
			kind, status = "non-voter", "non-voter"
		} else {
			out.Voters = append(out.Voters, s.ID)
		}
		if s.Leader {
			out.Leader, status = s.ID, "leader"
		}
		out.Servers[s.ID] = serverStateShape{
			ID: s.ID, Name: s.Name, Address: s.Address, NodeStatus: s.SerfStatus, Version: s.Version, LastContact: s.LastContact.String(),
			LastTerm: s.LastTerm, LastIndex: s.LastIndex, Healthy: s.Healthy, StableSince: s.StableSince, Status: status, Meta: s.Meta, NodeType: kind,
		}
	}
	slices.Sort(out.Voters)
	return out, nil
}

type usageShape struct {
	Nodes                    int
	Services                 int
	ServiceInstances         int
	ConnectServiceInstances  map[string]int
	BillableServiceInstances int
}

// meshKinds are the kinds of services that Consul counts apart, not as billable.
var meshKinds = []string{"api-gateway", "connect-native", "connect-proxy", "ingress-gateway", "mesh-gateway", "terminating-gateway"}

// usage counts what the catalog holds, as Consul does for its bills.
func (o *operatorSet) usage(r *request) (any, error) {
	return o.read(r, func(rd catalog.Reader, ws catalog.Watch) (uint64, any, error) {
		ofNodes, nodes := rd.Nodes(ws)
		index, names := rd.Services(ws)
		u := usageShape{Nodes: len(nodes), Services: len(names), ConnectServiceInstances: make(map[string]int, len(meshKinds))}
		for _, kind := range meshKinds {
			u.ConnectServiceInstances[kind] = 0
		}
		for name := range names {
			_, instances := rd.ServiceNodes(nil, name)
			u.ServiceInstances += len(instances)
			for _, i := range instances {
				switch {
				case slices.Contains(meshKinds, i.Service.Kind):
					u.ConnectServiceInstances[i.Service.Kind]++
				case i.Service.Service != catalog.ConsulService:
					u.BillableServiceInstances++
				}
			}
		}
		return max(index, ofNodes), struct{ Usage map[string]usageShape }{map[string]usageShape{o.datacenter: u}}, nil
	})
}

// keyringRoutes are those of gossip's keys: each host asks all others itself, servers or not.
func (o *operatorSet) keyringRoutes() []route {
	return []route{o.endpoints.on("GET,POST,PUT,DELETE", "/v1/operator/keyring", o.keyring)}
}

var keyringOps = map[string]KeyringOp{
	http.MethodGet: KeyringList, http.MethodHead: KeyringList, http.MethodPost: KeyringInstall, http.MethodPut: KeyringUse, http.MethodDelete: KeyringRemove,
}

type keyringBody struct{ Key string }

func (o *operatorSet) keyring(r *request) (any, error) {
	if o.operator == nil {
		return nil, errorf(http.StatusNotImplemented, "this host has no part in a cluster")
	}
	op, access, b := keyringOps[r.Method], acl.Write, keyringBody{}
	if op == KeyringList {
		access = acl.Read
	} else if err := decodeBody(r, &b); err != nil {
		return nil, err
	} else if b.Key == "" {
		return nil, badRequest("Missing Key: the gossip key in base64")
	}
	if err := r.authorize(acl.Keyring, "", access); err != nil {
		return nil, err
	}
	others := o.refuseOthers(r)
	if op != KeyringList && others != nil {
		return nil, others
	}
	local, err := r.flag("local-only")
	if err != nil {
		return nil, err
	}
	options := KeyringOptions{LocalOnly: local}
	if options.LocalOnly && op != KeyringList {
		return nil, badRequest("argument error: cannot use local-only for anything other than list operations")
	}
	list, err := o.operator.Keyring(r.Context(), op, b.Key, options)
	if err != nil {
		return nil, err
	}
	// Consul's list is an error once a single host doesn't answer; here it is one if nobody has.
	listed := op == KeyringList && slices.ContainsFunc(list, func(p KeyringResponse) bool { return len(p.Keys) > 0 })
	if err := keyringErrors(list); err != nil && !listed {
		return nil, err
	}
	for i := range list {
		p := &list[i]
		p.Messages, p.Keys, p.PrimaryKeys = notNilMap(p.Messages), notNilMap(p.Keys), notNilMap(p.PrimaryKeys)
		if others != nil {
			p.Keys, p.PrimaryKeys = fingerprints(p.Keys), fingerprints(p.PrimaryKeys)
		}
	}
	return append([]KeyringResponse{}, list...), nil
}

// fingerprints tells keys apart for those who may not see them: whoever has a key is a
// member of the cluster.
func fingerprints(keys map[string]int) map[string]int {
	out := make(map[string]int, len(keys))
	for key, n := range keys {
		raw, err := base64.StdEncoding.DecodeString(key)
		if err != nil {
			raw = []byte(key)
		}
		sum := sha256.Sum256(raw)
		out["sha256:"+hex.EncodeToString(sum[:4])] += n
	}
	return out
}

func notNilMap[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}

// keyringErrors joins what hosts refused, in Consul's form, each host by name.
func keyringErrors(list []KeyringResponse) error {
	var lines []string
	for _, p := range list {
		if p.Error == "" {
			continue
		}
		pool := p.Datacenter + " (LAN)"
		if p.WAN {
			pool = "WAN"
		}
		lines = append(lines, pool+" error: "+p.Error)
		for _, node := range slices.Sorted(maps.Keys(p.Messages)) {
			lines = append(lines, node+": "+p.Messages[node])
		}
	}
	if lines == nil {
		return nil
	}
	noun := "errors"
	if len(lines) == 1 {
		noun = "error"
	}
	return errorf(http.StatusInternalServerError, "%s", fmt.Sprintf("%d %s occurred:\n\t* %s\n\n", len(lines), noun, strings.Join(lines, "\n\t* ")))
}
