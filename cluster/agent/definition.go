package agent

import (
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/check"
)

// Source says who brought a definition. What a file defines only a file takes
// away again; what the API registered is kept under DataDir.
type Source uint8

// The sources.
const (
	SourceAPI Source = iota
	SourceFile
)

// String returns the name that persisted files use, which is Consul's.
func (s Source) String() string {
	if s == SourceFile {
		return "local"
	}
	return "remote"
}

// ServiceDefinition is a service as a file or the API defines it.
type ServiceDefinition struct {
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
	Checks            []CheckDefinition
}

// CheckDefinition is a check as a file or the API defines it. Its embedded
// part says what runs.
type CheckDefinition struct {
	// ID defaults to Name for checks of the node, and to "service:<service id>",
	// with ":<n>" added where there are several, for those of a service.
	ID    string
	Name  string // default for a check of a service: "Service '<name>' check"
	Notes string
	// Status is shown until the first result; default critical.
	Status string
	// ServiceID ties a check that is registered by itself to a service that
	// exists. Inside a ServiceDefinition it is ignored.
	ServiceID string
	Token     string // kept, never logged
	// DeregisterCriticalServiceAfter removes the service once the check has
	// been critical for so long; 0 = never, else at least a minute.
	DeregisterCriticalServiceAfter time.Duration

	check.Definition
}

// CheckType names the kind of the check, as Consul's HealthCheck.Type does.
func (d *CheckDefinition) CheckType() string { return string(d.Kind()) }
