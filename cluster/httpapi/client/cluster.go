package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// StatusName names a [Member]'s status as Serf does.
func (m Member) StatusName() string {
	names := [...]string{"none", "alive", "leaving", "left", "failed"}
	if m.Status < 0 || m.Status >= len(names) {
		return names[0]
	}
	return names[m.Status]
}

// Standing is how the daemon stands in its cluster, and what it makes of each member.
// Times that are not known are nil.
type Standing struct {
	Node                    string
	Braking, Merging, Stale bool
	History                 string
	Index                   uint64
	Confirmed               *time.Time
	Server                  string
	ServerSince             *time.Time
	Members                 []MemberDetail
}

// MemberDetail is what the daemon makes of one member. States are "never seen", "alive",
// "suspect", "failed" and "left".
type MemberDetail struct {
	Name, ID, Addr string
	Port           uint16
	Tags           map[string]string
	State          string
	Since          *time.Time
	Told, ToldBy   string
	ToldAt         *time.Time
	HeldUntil      *time.Time
	Flaps          int
	RTT            string // in Go's notation; empty: unknown
	Conflict       string
	History        string
}

// Keyring is what the hosts of one pool said of gossip's keys.
type Keyring struct {
	WAN               bool
	Datacenter        string
	Messages          map[string]string // by host: what went wrong there
	Keys, PrimaryKeys map[string]int    // key to the number of hosts that hold it
	NumNodes          int               // hosts asked
	Failed            []string          // hosts that are failed, and were not
	Error             string
}

// RaftConfiguration is who the servers are.
type RaftConfiguration struct {
	Servers []RaftServer
	Index   uint64
}

// RaftServer is one of them.
type RaftServer struct {
	ID, Node, Address string
	RaftID            string `json:",omitempty"` // in peers.json, if it is another than ID
	Leader, Voter     bool
	ProtocolVersion   string
	LastIndex         uint64
}

// AutopilotConfiguration is how the leader tends the servers.
type AutopilotConfiguration struct {
	CleanupDeadServers      bool
	LastContactThreshold    string
	MaxTrailingLogs         int
	MinQuorum               int
	ServerStabilizationTime string
	RedundancyZoneTag       string
	DisableUpgradeMigration bool
	UpgradeVersionTag       string
	ModifyIndex             uint64
}

// AutopilotHealth is how the servers are.
type AutopilotHealth struct {
	Healthy          bool
	FailureTolerance int
	Servers          []ServerHealth
}

// ServerHealth is how one server is.
type ServerHealth struct {
	ID, Name, Address, SerfStatus, Version string
	Leader                                 bool
	LastContact                            string
	LastTerm, LastIndex                    uint64
	Healthy, Voter                         bool
	StableSince                            time.Time
}

// AutopilotState is the same with each server by its ID, and what it is.
type AutopilotState struct {
	Healthy                                      bool
	FailureTolerance, OptimisticFailureTolerance int
	Servers                                      map[string]ServerState
	Leader                                       string
	Voters                                       []string
}

// ServerState is one server in it.
type ServerState struct {
	ID, Name, Address, NodeStatus, Version string
	LastContact                            string
	LastTerm, LastIndex                    uint64
	Healthy                                bool
	StableSince                            time.Time
	Status, NodeType                       string
	Meta                                   map[string]string
}

// FilteredMembers is Members with a filter.
func (c *Client) FilteredMembers(ctx context.Context, filter string) (out []Member, err error) {
	_, err = c.Get(ctx, "/v1/agent/members", &Query{Filter: filter}, &out)
	return out, err
}

// Standing tells what Members has no room for.
func (c *Client) Standing(ctx context.Context, filter string) (*Standing, error) {
	out := new(Standing)
	_, err := c.Get(ctx, "/v1/meibo/members", &Query{Filter: filter}, out)
	return out, err
}

// Unconfirmed is what the daemon's host knows of a node from before the catalog began
// anew, and no server confirms.
type Unconfirmed struct {
	Node, ID, Address string
	All               bool // the node itself and all on it; else only Services
	Services          []string
	Confirmed         *time.Time // when a server last did; nil: nobody knows
}

// Unconfirmed lists them, by node.
func (c *Client) Unconfirmed(ctx context.Context) (out []Unconfirmed, err error) {
	_, err = c.Get(ctx, "/v1/meibo/unconfirmed", &Query{}, &out)
	return out, err
}

// Join has the daemon meet the host at addr, and with it the cluster that this one is in.
func (c *Client) Join(ctx context.Context, addr string) error {
	return c.put(ctx, "/v1/agent/join/"+url.PathEscape(addr), nil, nil)
}

// Leave has the daemon leave its cluster and end.
func (c *Client) Leave(ctx context.Context) error { return c.put(ctx, "/v1/agent/leave", nil, nil) }

// ForceLeave declares a failed member to have left; with prune it is forgotten as well.
// The remark says what the daemon did not do, "" if nothing.
func (c *Client) ForceLeave(ctx context.Context, node string, prune bool) (remark string, err error) {
	query := url.Values{}
	if prune {
		query.Set("prune", "1")
	}
	meta, err := c.Put(ctx, "/v1/agent/force-leave/"+url.PathEscape(node), query, nil, nil)
	return meta.Warning, err
}

// Forget removes a node that no agent answers for from every host's view.
func (c *Client) Forget(ctx context.Context, node string) error {
	return c.put(ctx, "/v1/meibo/forget/"+url.PathEscape(node), nil, nil)
}

// Keyring lists gossip's keys and how many hosts hold each; localOnly: those of the daemon.
func (c *Client) Keyring(ctx context.Context, localOnly bool) (out []Keyring, err error) {
	query := url.Values{}
	if localOnly {
		query.Set("local-only", "true")
	}
	_, err = c.call(ctx, http.MethodGet, "/v1/operator/keyring", query, nil, &out)
	return out, err
}

// KeyringInstall gives every host a further key, in base64.
func (c *Client) KeyringInstall(ctx context.Context, key string) ([]Keyring, error) {
	return c.keyring(ctx, http.MethodPost, key)
}

// KeyringUse has every host encrypt with a key that is installed.
func (c *Client) KeyringUse(ctx context.Context, key string) ([]Keyring, error) {
	return c.keyring(ctx, http.MethodPut, key)
}

// KeyringRemove takes a key that is not used from every host.
func (c *Client) KeyringRemove(ctx context.Context, key string) ([]Keyring, error) {
	return c.keyring(ctx, http.MethodDelete, key)
}

// keyring changes the keyrings. Consul's agents answer with nothing.
func (c *Client) keyring(ctx context.Context, method, key string) (out []Keyring, err error) {
	_, err = c.call(ctx, method, "/v1/operator/keyring", nil, map[string]string{"Key": key}, &out)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	return out, err
}

// RaftConfiguration says who the servers are; stale asks any of them, not the leader.
func (c *Client) RaftConfiguration(ctx context.Context, stale bool) (*RaftConfiguration, error) {
	out := new(RaftConfiguration)
	_, err := c.Get(ctx, "/v1/operator/raft/configuration", &Query{Stale: stale}, out)
	return out, err
}

// RaftRemovePeer takes a server out of the Raft configuration, by its ID or its address.
func (c *Client) RaftRemovePeer(ctx context.Context, id, address string) error {
	query := url.Values{}
	if id != "" {
		query.Set("id", id)
	}
	if address != "" {
		query.Set("address", address)
	}
	_, err := c.call(ctx, http.MethodDelete, "/v1/operator/raft/peer", query, nil, nil)
	return err
}

// TransferLeader hands leadership to the server with this ID, or to any.
func (c *Client) TransferLeader(ctx context.Context, id string) error {
	query := url.Values{}
	if id != "" {
		query.Set("id", id)
	}
	_, err := c.call(ctx, http.MethodPost, "/v1/operator/raft/transfer-leader", query, nil, nil)
	return err
}

// AutopilotConfiguration says how the leader tends the servers.
func (c *Client) AutopilotConfiguration(ctx context.Context) (*AutopilotConfiguration, error) {
	out := new(AutopilotConfiguration)
	_, err := c.Get(ctx, "/v1/operator/autopilot/configuration", nil, out)
	return out, err
}

// SetAutopilotConfiguration replaces it, if conf's ModifyIndex is still that of the present
// one, and reports whether it was.
func (c *Client) SetAutopilotConfiguration(ctx context.Context, conf *AutopilotConfiguration) (done bool, err error) {
	query := url.Values{"cas": {strconv.FormatUint(conf.ModifyIndex, 10)}}
	_, err = c.call(ctx, http.MethodPut, "/v1/operator/autopilot/configuration", query, conf, &done)
	return done, err
}

// AutopilotHealth says how the servers are. Servers that are not well are no error.
func (c *Client) AutopilotHealth(ctx context.Context) (*AutopilotHealth, error) {
	const path = "/v1/operator/autopilot/health"
	resp, err := c.Do(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusTooManyRequests {
		return nil, errorOf(http.MethodGet, path, resp)
	}
	out := new(AutopilotHealth)
	return out, json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out)
}

// AutopilotState says what each server is and how it is.
func (c *Client) AutopilotState(ctx context.Context) (*AutopilotState, error) {
	out := new(AutopilotState)
	_, err := c.Get(ctx, "/v1/operator/autopilot/state", nil, out)
	return out, err
}
