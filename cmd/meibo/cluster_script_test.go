package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"meibo/cluster/catalog"
	"meibo/cluster/httpapi"
)

// TestClusterScripts runs the commands of clusters against the real API over a cluster that is made up, so that each of
// its states can be shown.
func TestClusterScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/clusterscript",
		Setup: func(env *testscript.Env) error {
			c := &madeUpCluster{keys: map[string]int{oldKey: 3}, primary: oldKey, autopilot: catalog.Autopilot{
				CleanupDeadServers: true, LastContactThreshold: 200 * time.Millisecond, MaxTrailingLogs: 250, ServerStabilizationTime: 10 * time.Second,
			}}
			socket := env.Getenv("WORK") + "/control.sock"
			api, err := httpapi.New(httpapi.Config{Agent: madeUpAgent{c: c}, Backend: madeUpBackend{c: c}, Operator: c, Node: "s1", Control: func() string { return socket }})
			if err != nil {
				return err
			}
			server := httptest.NewServer(api)
			env.Defer(server.Close)
			control, err := httpapi.NewServer(httpapi.ServerConfig{Handler: api, Addrs: []string{"unix://" + socket}, Control: true})
			if err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- control.Run(ctx) }()
			env.Defer(func() { cancel(); <-ended })
			consul := httptest.NewServer(http.HandlerFunc(consulAgent))
			env.Defer(consul.Close)
			env.Setenv("CONSUL", strings.TrimPrefix(consul.URL, "http://"))
			env.Setenv("CONSUL_HTTP_ADDR", strings.TrimPrefix(server.URL, "http://"))
			env.Setenv("OLD", oldKey)
			env.Setenv("NEW", newKey)
			free, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			env.Setenv("NOBODY", free.Addr().String())
			return free.Close()
		},
	})
}

// consulAgent answers as a Consul agent does that must not be touched.
func consulAgent(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		panic("a Consul agent was told to " + r.Method + " " + r.URL.Path)
	}
	switch r.URL.Path {
	case "/v1/agent/self":
	case "/v1/catalog/services":
		fmt.Fprint(w, `{"web":["a"]}`)
		return
	default:
		http.Error(w, "Invalid URL path: not a recognized HTTP API endpoint", http.StatusNotFound)
		return
	}
	fmt.Fprint(w, `{"Config":{"Datacenter":"dc1","NodeName":"c1","Version":"1.21.0"},"Member":{"Name":"c1"}}`)
}

const (
	oldKey = "b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2w="
	newKey = "bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmU="
)

// madeUpCluster is three servers and an agent; what is asked of it is noted in a node's metadata, so to speak.
type madeUpCluster struct {
	mu      sync.Mutex // guards following
	keys    map[string]int
	primary string
	away    bool // s3 does not answer

	autopilot catalog.Autopilot
}

type madeUpAgent struct {
	httpapi.Agent // what no command of clusters asks for
	c             *madeUpCluster
}

func (a madeUpAgent) Members() []httpapi.Member {
	member := func(name, role string, last byte, status httpapi.MemberStatus) httpapi.Member {
		now := time.Now()
		return httpapi.Member{
			Name: name, Addr: fmt.Sprintf("10.0.0.%d", last), Port: 8301, Status: status,
			Tags:   map[string]string{"role": role, "dc": "dc1", "build": "1.21.0:abc", "vsn": "2", "meibo": "v0.7.0"},
			Detail: httpapi.MemberDetail{ID: name + "-id", State: status.String(), Since: now.Add(-time.Hour), Told: "alive", ToldBy: "s2", ToldAt: now.Add(-2 * time.Second), RTT: 1234 * time.Microsecond},
		}
	}
	list := []httpapi.Member{
		member("a1", "node", 21, httpapi.MemberFailed), member("s2", "consul", 12, httpapi.MemberAlive),
		member("s1", "consul", 11, httpapi.MemberAlive), member("a2", "node", 22, httpapi.MemberAlive),
	}
	d := &list[0].Detail
	d.HeldUntil, d.Flaps, d.Conflict = time.Now().Add(time.Hour), 3, "same ID as a9"
	return list
}

func (madeUpAgent) Standing() httpapi.Standing {
	return httpapi.Standing{History: "0102-h", Index: 4711, Confirmed: time.Now(), Server: "10.0.0.12:8300", ServerSince: time.Now().Add(-time.Minute), Merging: true}
}

func (madeUpAgent) Join(_ context.Context, addr string) error {
	if strings.HasPrefix(addr, "192.0.2.") {
		return errors.New("nobody answers there")
	}
	return nil
}

func (madeUpAgent) Self() httpapi.Self { return httpapi.Self{NodeName: "s1", Datacenter: "dc1"} }

func (madeUpAgent) KnowsNode(_ context.Context, name string) bool { return name != "nobody" }

func (madeUpAgent) Unconfirmed() []httpapi.UnconfirmedNode {
	return []httpapi.UnconfirmedNode{
		{Node: "a3", ID: "aaaaaaaa-0000-0000-0000-0000000000a3", Address: "10.0.0.23", Services: []string{"db", "web"}, Confirmed: time.Now().Add(-2 * time.Hour)},
		{Node: "printer", Address: "192.0.2.9", All: true, Services: []string{"print"}},
	}
}

func (madeUpAgent) Reload(context.Context) (string, error) {
	return "changed, and wait for a restart: ports.dns", nil
}

func (madeUpAgent) Leave(context.Context) error { return nil }

func (madeUpAgent) ForceLeave(_ context.Context, node string, prune bool) (string, error) {
	switch node {
	case "a1":
		return "", nil
	case "a2":
		return "a2 is alive and contradicts", nil
	}
	return "", httpapi.ErrUnknownMember
}

type madeUpBackend struct {
	httpapi.Backend
	c *madeUpCluster
}

func (b madeUpBackend) Apply(_ context.Context, body catalog.Body) (uint64, error) {
	switch body := body.(type) {
	case *catalog.Forget:
		if body.Node == "ext1" {
			return 0, nil
		}
	case *catalog.SetAutopilot:
		b.c.mu.Lock()
		defer b.c.mu.Unlock()
		b.c.autopilot = body.Config
		return 0, nil
	}
	return 0, catalog.ErrNoLeader
}

func (madeUpBackend) AwaitView(context.Context, uint64) {}

func (c *madeUpCluster) Keyring(_ context.Context, op httpapi.KeyringOp, key string, o httpapi.KeyringOptions) ([]httpapi.KeyringResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := httpapi.KeyringResponse{Datacenter: "dc1", NumNodes: 3}
	switch op {
	case httpapi.KeyringInstall:
		c.keys[key] = 3
	case httpapi.KeyringUse:
		if c.keys[key] == 0 {
			r.Messages = map[string]string{"s1": "requested key is not in the keyring", "s2": "requested key is not in the keyring", "s3": "requested key is not in the keyring"}
			r.Error = "3/3 nodes reported failure"
		} else {
			c.primary = key
		}
	case httpapi.KeyringRemove:
		if key == c.primary {
			return nil, errors.New("removing the primary key is not allowed")
		}
		delete(c.keys, key)
		c.away = true
	case httpapi.KeyringList:
		r.Keys, r.PrimaryKeys = c.keys, map[string]int{c.primary: 3}
		if o.LocalOnly {
			r.NumNodes = 1
		}
		if c.away {
			r.Messages, r.Error = map[string]string{"s3": "no answer within 5s"}, "1/3 nodes reported failure"
		}
	}
	return []httpapi.KeyringResponse{r}, nil
}

func (c *madeUpCluster) RaftConfiguration(context.Context) (httpapi.RaftConfiguration, error) {
	return httpapi.RaftConfiguration{Index: 3, Servers: []httpapi.RaftServer{
		{ID: "s1-id", Node: "s1", Address: "10.0.0.11:8300", Voter: true, ProtocolVersion: "3", LastIndex: 99},
		{ID: "s2-id", Node: "s2", Address: "10.0.0.12:8300", Leader: true, Voter: true, ProtocolVersion: "3", LastIndex: 100},
		{ID: "s3-id", Node: "s3", Address: "10.0.0.13:8300", ProtocolVersion: "3"},
	}}, nil
}

func (c *madeUpCluster) RemovePeer(_ context.Context, id, address string) error {
	if id == "s1-id" || id == "s3-id" || address == "10.0.0.13:8300" {
		return nil
	}
	return httpapi.ErrUnknownServer
}

func (c *madeUpCluster) TransferLeader(_ context.Context, id string) error {
	if slices.Contains([]string{"", "s1-id"}, id) {
		return nil
	}
	return httpapi.ErrUnknownServer
}

func (c *madeUpCluster) AutopilotConfig(context.Context) (*catalog.Autopilot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conf := c.autopilot
	return &conf, nil
}

func (c *madeUpCluster) AutopilotHealth(context.Context) (httpapi.AutopilotHealth, error) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return httpapi.AutopilotHealth{Servers: []httpapi.AutopilotServer{
		{ID: "s2-id", Name: "s2", Address: "10.0.0.12:8300", SerfStatus: "alive", Version: "1.21.0", Leader: true, LastTerm: 2, LastIndex: 100, Healthy: true, Voter: true, StableSince: since},
		{ID: "s3-id", Name: "s3", Address: "10.0.0.13:8300", SerfStatus: "failed", LastContact: -1, StableSince: since},
	}}, nil
}
