// Package definition is a service or a check as a file or the API defines it, before
// an agent makes records of the catalog of it.
package definition

import (
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/check"
)

// Service is a service as a file or the API defines it.
type Service struct {
	Kind              string
	ID                string // default: Name
	Name              string
	Tags              []string
	Address           string // a literal address or a name; empty: the node's
	Port              int    // 0..65535
	SocketPath        string
	TaggedAddresses   map[string]catalog.ServiceAddress
	Meta              map[string]string
	Weights           *catalog.Weights // nil: 1 and 1
	EnableTagOverride bool
	Locality          *catalog.Locality // nil: not said
	Token             string            // kept, never logged
	Checks            []Check
}

// Record is the service as the catalog shows it, on a node.
func (s *Service) Record(node string) *catalog.Service {
	r := &catalog.Service{
		Node: node, Kind: s.Kind, ID: s.ID, Service: s.Name, Tags: s.Tags,
		Address: s.Address, Port: s.Port, SocketPath: s.SocketPath,
		TaggedAddresses: s.TaggedAddresses, Meta: s.Meta,
		EnableTagOverride: s.EnableTagOverride, Locality: s.Locality,
	}
	if s.Weights != nil {
		r.Weights = *s.Weights
	}
	return r
}

// FromRecord is the service whose record is r, without token and checks.
func FromRecord(r *catalog.Service) Service {
	s := Service{
		Kind: r.Kind, ID: r.ID, Name: r.Service, Tags: r.Tags,
		Address: r.Address, Port: r.Port, SocketPath: r.SocketPath,
		TaggedAddresses: r.TaggedAddresses, Meta: r.Meta,
		EnableTagOverride: r.EnableTagOverride, Locality: r.Locality,
	}
	if r.Weights != (catalog.Weights{}) {
		s.Weights = &r.Weights
	}
	return s
}

// Check is a check as a file or the API defines it. Its embedded
// part says what runs.
type Check struct {
	// ID defaults to Name for checks of the node, and to "service:<service id>",
	// with ":<n>" added where there are several, for those of a service.
	ID    string
	Name  string // default for a check of a service: "Service '<name>' check"
	Notes string
	// Status is shown until the first result; default critical.
	Status string
	// ServiceID ties a check that is registered by itself to a service that
	// exists. Inside a Service it is ignored.
	ServiceID string
	Token     string // kept, never logged
	// DeregisterCriticalServiceAfter removes the service once the check has
	// been critical for so long; 0 = never, else at least a minute.
	DeregisterCriticalServiceAfter time.Duration

	check.Definition
}

// CheckType names the kind of the check, as Consul's HealthCheck.Type does.
func (d *Check) CheckType() string { return string(d.Kind()) }
