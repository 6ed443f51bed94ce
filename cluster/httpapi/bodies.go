package httpapi

import (
	"cmp"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/check"
	"meibo/cluster/definition"
)

// The bodies of requests: every field that Consul's clients send has a place here, those
// of the service mesh and the paid edition as `ignored`.

type catalogRegisterBody struct {
	Datacenter      string
	ID              string
	Node            string
	Address         string
	TaggedAddresses map[string]string
	NodeMeta        map[string]string
	Service         *catalogServiceBody
	Check           *catalogCheckBody
	Checks          []*catalogCheckBody
	SkipNodeUpdate  bool
	Locality        *catalog.Locality
	PeerName        ignored
	Namespace       string
	Partition       string
}

type catalogServiceBody struct {
	Kind              string
	ID                string
	Service           string
	Tags              []string
	Address           string
	TaggedAddresses   map[string]catalog.ServiceAddress
	Meta              map[string]string
	Port              int
	SocketPath        string
	Weights           *catalog.Weights
	EnableTagOverride bool
	Ports             ignored
	Proxy             any // refused if it asks for anything
	Connect           any
	Locality          *catalog.Locality
	ContentHash       ignored
	Datacenter        ignored
	PeerName          ignored
	CreateIndex       ignored
	ModifyIndex       ignored
	Namespace         string
	Partition         string
}

type catalogCheckBody struct {
	Node        string
	CheckID     string
	Name        string
	Status      string
	Notes       string
	Output      string
	ServiceID   string
	ServiceName string
	ServiceTags []string
	Type        string
	Interval    string
	Timeout     string
	ExposedPort int
	Definition  checkDefinitionBody
	PeerName    ignored
	CreateIndex ignored
	ModifyIndex ignored
	Namespace   string
	Partition   string
}

type checkDefinitionBody struct {
	Interval                       time.Duration
	Timeout                        time.Duration
	DeregisterCriticalServiceAfter time.Duration
	HTTP                           string
	TLSServerName                  string
	TLSSkipVerify                  bool
	Header                         map[string][]string
	Method                         string
	Body                           string
	DisableRedirects               bool
	TCP                            string
	TCPUseTLS                      bool
	UDP                            string
	H2PING                         string
	H2PingUseTLS                   bool
	OSService                      string
	GRPC                           string
	GRPCUseTLS                     bool
	AliasNode                      string
	AliasService                   string
	TTL                            time.Duration
}

// passesOver implements lenient: nothing here runs by a definition, it is kept for whoever
// does, and clients put in what theirs know.
func (*checkDefinitionBody) passesOver() {}

type catalogDeregisterBody struct {
	Datacenter string
	Node       string
	ServiceID  string
	CheckID    string
	Address    ignored
	PeerName   ignored
	Namespace  string
	Partition  string
}

type agentServiceBody struct {
	Kind              string
	ID                string
	Name              string
	Tags              []string
	Address           string
	TaggedAddresses   map[string]catalog.ServiceAddress
	Meta              map[string]string
	Port              int
	SocketPath        string
	Weights           *catalog.Weights
	EnableTagOverride bool
	Token             string
	Check             *agentCheckBody
	Checks            []*agentCheckBody
	Ports             ignored
	Proxy             any // refused if it asks for anything
	Connect           any
	Locality          *catalog.Locality
	Namespace         string
	Partition         string
}

type agentCheckBody struct {
	ID                             string
	CheckID                        string
	Name                           string
	Notes                          string
	ServiceID                      string
	Token                          string
	Status                         string
	ScriptArgs                     []string `also:"args"`
	HTTP                           string
	Header                         map[string][]string
	Method                         string
	Body                           string
	DisableRedirects               bool
	TCP                            string
	TCPUseTLS                      bool
	UDP                            string
	GRPC                           string
	GRPCUseTLS                     bool
	H2PING                         string
	H2PingUseTLS                   *bool
	OSService                      string
	DockerContainerID              string
	Shell                          string
	TLSServerName                  string
	TLSSkipVerify                  bool
	AliasNode                      string
	AliasService                   string
	TTL                            time.Duration
	Interval                       time.Duration
	Timeout                        time.Duration
	SuccessBeforePassing           int
	FailuresBeforeWarning          int
	FailuresBeforeCritical         int
	OutputMaxSize                  int
	DeregisterCriticalServiceAfter time.Duration
	Namespace                      string
	Partition                      string
}

type checkUpdateBody struct {
	Status string
	Output string
}

// refuseTenancy is refuseEnterprise for fields of a body.
func refuseTenancy(namespace, partition string) error {
	switch {
	case namespace != "":
		return badRequest("Invalid request field: %q - Namespaces are a Consul Enterprise feature", "Namespace")
	case partition != "":
		return badRequest("Invalid request field: %q - Partitions are a Consul Enterprise feature", "Partition")
	}
	return nil
}

func (b *catalogServiceBody) service() *catalog.Service {
	s := &catalog.Service{
		Kind: b.Kind, ID: b.ID, Service: b.Service, Tags: b.Tags, Address: b.Address,
		TaggedAddresses: b.TaggedAddresses, Meta: b.Meta, Port: b.Port, SocketPath: b.SocketPath,
		EnableTagOverride: b.EnableTagOverride, Locality: b.Locality, Weights: catalog.Weights{Passing: 1, Warning: 1},
	}
	if b.Weights != nil && *b.Weights != (catalog.Weights{}) {
		s.Weights = *b.Weights
	}
	return s
}

func (b *catalogCheckBody) check() *catalog.Check {
	return &catalog.Check{
		Node: b.Node, CheckID: b.CheckID, Name: b.Name, Status: b.Status, Notes: b.Notes, Output: b.Output,
		ServiceID: b.ServiceID, ServiceName: b.ServiceName, ServiceTags: b.ServiceTags, Type: cmp.Or(b.Type, b.Definition.kind()),
		Interval: b.Interval, Timeout: b.Timeout, ExposedPort: b.ExposedPort, Definition: catalog.Define(b.Definition.definition()),
	}
}

// kind names how a check that has a definition is run, as Consul's CheckType does.
func (b *checkDefinitionBody) kind() string {
	switch {
	case b.TTL > 0:
		return "ttl"
	case b.HTTP != "":
		return "http"
	case b.GRPC != "":
		return "grpc"
	case b.TCP != "":
		return "tcp"
	case b.UDP != "":
		return "udp"
	case b.AliasNode != "" || b.AliasService != "":
		return "alias"
	case b.H2PING != "":
		return "h2ping"
	case b.OSService != "":
		return "os_service"
	}
	return ""
}

func (b *checkDefinitionBody) definition() catalog.CheckDefinition {
	text := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return d.String()
	}
	return catalog.CheckDefinition{
		Interval: text(b.Interval), Timeout: text(b.Timeout),
		DeregisterCriticalServiceAfter: text(b.DeregisterCriticalServiceAfter),
		HTTP:                           b.HTTP, TLSServerName: b.TLSServerName, TLSSkipVerify: b.TLSSkipVerify,
		Header: b.Header, Method: b.Method, Body: b.Body, DisableRedirects: b.DisableRedirects,
		TCP: b.TCP, TCPUseTLS: b.TCPUseTLS, UDP: b.UDP, H2PING: b.H2PING, H2PingUseTLS: b.H2PingUseTLS,
		OSService: b.OSService, GRPC: b.GRPC, GRPCUseTLS: b.GRPCUseTLS,
		AliasNode: b.AliasNode, AliasService: b.AliasService, TTL: text(b.TTL),
	}
}

// definition turns the body into what the agent takes, after the checks that Consul's
// endpoint does itself.
func (b *agentServiceBody) definition() (definition.Service, error) {
	var def definition.Service
	if b.Name == "" {
		return def, badRequest("Missing service name")
	}
	if b.Weights != nil {
		if err := b.Weights.Validate(); err != nil {
			return def, badRequest("Invalid Weights: %v", err)
		}
	}
	if isAnyAddress(b.Address) {
		return def, badRequest("Invalid service address")
	}
	if err := refuseTenancy(b.Namespace, b.Partition); err != nil {
		return def, err
	}
	body := catalogServiceBody{
		Kind: b.Kind, ID: b.ID, Service: b.Name, Tags: b.Tags, Address: b.Address,
		TaggedAddresses: b.TaggedAddresses, Meta: b.Meta, Port: b.Port, SocketPath: b.SocketPath,
		Weights: b.Weights, EnableTagOverride: b.EnableTagOverride, Locality: b.Locality,
	}
	s := body.service()
	s.ID = cmp.Or(s.ID, s.Service)
	if err := cmp.Or(catalog.RefuseConnect(s.ID, b.Proxy, b.Connect), s.Validate()); err != nil {
		return def, badRequest("%v", err)
	}
	def = definition.FromRecord(s)
	def.Token = b.Token
	checks := b.Checks
	if b.Check != nil && !reflect.ValueOf(*b.Check).IsZero() { // an empty one is none, as in Consul
		checks = append([]*agentCheckBody{b.Check}, checks...)
	}
	for _, c := range checks {
		if c == nil {
			continue
		}
		if !validStatus(c.Status, true) {
			return def, badRequest("Status for checks must 'passing', 'warning', 'critical'")
		}
		check := c.definition()
		check.ServiceID = def.ID
		def.Checks = append(def.Checks, check)
	}
	return def, nil
}

func (b *agentCheckBody) definition() definition.Check {
	id := b.ID
	if id == "" {
		id = b.CheckID
	}
	return definition.Check{
		ID: id, Name: b.Name, Notes: b.Notes, ServiceID: b.ServiceID, Token: b.Token, Status: b.Status,
		DeregisterCriticalServiceAfter: b.DeregisterCriticalServiceAfter,
		Definition: check.Definition{
			ScriptArgs: b.ScriptArgs, HTTP: b.HTTP, Header: b.Header, Method: b.Method, Body: b.Body,
			DisableRedirects: b.DisableRedirects, TCP: b.TCP, TCPUseTLS: b.TCPUseTLS, UDP: b.UDP,
			GRPC: b.GRPC, GRPCUseTLS: b.GRPCUseTLS, H2PING: b.H2PING, H2PingUseTLS: b.H2PingUseTLS,
			OSService: b.OSService, DockerContainerID: b.DockerContainerID, Shell: b.Shell,
			TLSServerName: b.TLSServerName, TLSSkipVerify: b.TLSSkipVerify,
			AliasNode: b.AliasNode, AliasService: b.AliasService,
			TTL: b.TTL, Interval: b.Interval, Timeout: b.Timeout,
			SuccessBeforePassing: b.SuccessBeforePassing, FailuresBeforeWarning: b.FailuresBeforeWarning,
			FailuresBeforeCritical: b.FailuresBeforeCritical, OutputMaxSize: b.OutputMaxSize,
		},
	}
}

func isAnyAddress(s string) bool {
	ip, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return err == nil && ip.Unmap().IsUnspecified()
}

func validStatus(s string, emptyToo bool) bool {
	switch s {
	case catalog.Passing, catalog.Warning, catalog.Critical:
		return true
	}
	return s == "" && emptyToo
}
