//lint:file-ignore ST1005 clients compare these texts with Consul's, capitals included

package check

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The statuses of a check, in Consul's spelling.
const (
	Passing  = "passing"
	Warning  = "warning"
	Critical = "critical"
)

const (
	// MinInterval is the shortest time between two runs; shorter ones are
	// raised to it, so that a slip of the unit cannot turn into a load test.
	MinInterval = time.Second
	// DefaultTimeout bounds one run of any network check.
	DefaultTimeout = 10 * time.Second
	// DefaultScriptTimeout bounds one run of a script.
	DefaultScriptTimeout = 30 * time.Second
	// DefaultOutputSize is how many bytes of output are kept.
	DefaultOutputSize = 4096
)

// Definition says what a check does and how its results count. Exactly one
// kind is expected; where several are named, [Definition.Kind] says which runs.
// The field names are those of Consul's CheckType.
type Definition struct {
	// ScriptArgs is the argv of a script; no shell is involved.
	ScriptArgs []string `json:",omitempty"`

	// HTTP is the URL of an HTTP check.
	HTTP             string              `json:",omitempty"`
	Method           string              `json:",omitempty"` // default GET
	Header           map[string][]string `json:",omitempty"`
	Body             string              `json:",omitempty"`
	DisableRedirects bool                `json:",omitempty"`

	// TCP is the "host:port" of a TCP check.
	TCP       string `json:",omitempty"`
	TCPUseTLS bool   `json:",omitempty"`

	// UDP is the "host:port" of a UDP check.
	UDP string `json:",omitempty"`

	// GRPC is the "host:port" or "host:port/service" of a gRPC health check.
	GRPC       string `json:",omitempty"`
	GRPCUseTLS bool   `json:",omitempty"`

	// H2PING is the "host:port" of an HTTP/2 ping check.
	H2PING string `json:",omitempty"`
	// H2PingUseTLS is true when nil, as in Consul.
	H2PingUseTLS *bool `json:",omitempty"`

	// OSService is the name of a unit of the service manager.
	OSService string `json:",omitempty"`

	// DockerContainerID and Shell belong to docker checks, which do not run here:
	// New returns ErrUnrunnable for one.
	DockerContainerID string `json:",omitempty"`
	Shell             string `json:",omitempty"`

	// AliasNode and AliasService name what an alias check follows.
	AliasNode    string `json:",omitempty"`
	AliasService string `json:",omitempty"`

	// TTL is how long a reported status holds.
	TTL time.Duration `json:",omitempty"`

	TLSServerName string `json:",omitempty"`
	TLSSkipVerify bool   `json:",omitempty"`

	// Interval is the time between the starts of two runs, at least MinInterval.
	Interval time.Duration `json:",omitempty"`
	// Timeout bounds one run; 0 means the default of the kind.
	Timeout time.Duration `json:",omitempty"`

	// SuccessBeforePassing is how many results in a row that are passing or
	// warning it takes to leave critical; 0 and 1 are the same.
	SuccessBeforePassing int `json:",omitempty"`
	// FailuresBeforeWarning is how many critical results in a row show as
	// warning; 0 means the same as FailuresBeforeCritical.
	FailuresBeforeWarning int `json:",omitempty"`
	// FailuresBeforeCritical is how many critical results in a row it takes to
	// become critical; 0 and 1 are the same.
	FailuresBeforeCritical int `json:",omitempty"`

	// OutputMaxSize is how many bytes of output are kept; 0 means DefaultOutputSize.
	OutputMaxSize int `json:",omitempty"`
}

// Kind is the way a check finds its status.
type Kind string

// The kinds, spelled as the Type field of Consul's HealthCheck.
const (
	KindNone      Kind = ""
	KindScript    Kind = "script"
	KindHTTP      Kind = "http"
	KindTCP       Kind = "tcp"
	KindUDP       Kind = "udp"
	KindGRPC      Kind = "grpc"
	KindH2Ping    Kind = "h2ping"
	KindOSService Kind = "os_service"
	KindDocker    Kind = "docker"
	KindAlias     Kind = "alias"
	KindTTL       Kind = "ttl"
)

// Kind reports which kind of check d is. Where d names several the first of
// this order counts, which is the order Consul tries them in.
func (d *Definition) Kind() Kind {
	switch {
	case d.TTL > 0:
		return KindTTL
	case d.HTTP != "":
		return KindHTTP
	case d.TCP != "":
		return KindTCP
	case d.UDP != "":
		return KindUDP
	case d.GRPC != "":
		return KindGRPC
	case d.OSService != "":
		return KindOSService
	case d.DockerContainerID != "":
		return KindDocker
	case d.H2PING != "":
		return KindH2Ping
	case len(d.ScriptArgs) > 0:
		return KindScript
	case d.AliasNode != "" || d.AliasService != "":
		return KindAlias
	}
	return KindNone
}

// Others names the further kinds that d asks for and that will not run,
// for a warning.
func (d *Definition) Others() []Kind {
	var named []Kind
	add := func(k Kind, is bool) {
		if is && k != d.Kind() {
			named = append(named, k)
		}
	}
	add(KindHTTP, d.HTTP != "")
	add(KindTCP, d.TCP != "")
	add(KindUDP, d.UDP != "")
	add(KindGRPC, d.GRPC != "")
	add(KindOSService, d.OSService != "")
	add(KindH2Ping, d.H2PING != "")
	add(KindScript, len(d.ScriptArgs) > 0 && d.DockerContainerID == "")
	return named
}

// Errors of Validate, in Consul's words where it has any.
var (
	errBoth       = errors.New("Interval and TTL cannot both be specified")
	errNoInterval = errors.New("Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP, gRPC or OSService checks")
	errAliasRuns  = errors.New("Interval cannot be set for Alias checks")
	errAliasTTL   = errors.New("TTL must not be set for Alias checks")
	errNoTTL      = errors.New("TTL must be > 0 for TTL checks")
	errOutputSize = errors.New("OutputMaxSize must be positive")
)

// Validate says what is wrong with d, in Consul's words.
func (d *Definition) Validate() error {
	alias := d.AliasNode != "" || d.AliasService != ""
	runs := d.runsByInterval()
	switch {
	case d.Interval > 0 && d.TTL > 0:
		return errBoth
	case runs && alias:
		return errAliasRuns
	case runs && d.Interval <= 0:
		return errNoInterval
	case alias && d.TTL > 0:
		return errAliasTTL
	case !runs && !alias && d.TTL <= 0:
		return errNoTTL
	case d.OutputMaxSize < 0:
		return errOutputSize
	case d.Timeout < 0 || d.Interval < 0:
		return errors.New("Interval and Timeout must not be negative")
	case d.SuccessBeforePassing < 0 || d.FailuresBeforeWarning < 0 || d.FailuresBeforeCritical < 0:
		return errors.New("SuccessBeforePassing, FailuresBeforeWarning and FailuresBeforeCritical must not be negative")
	case d.FailuresBeforeWarning > max(d.FailuresBeforeCritical, 1) && d.FailuresBeforeCritical > 0:
		return errors.New("FailuresBeforeWarning can't be higher than FailuresBeforeCritical")
	}
	return d.validateTarget()
}

// Hopeless says why a check that is taken can only ever be critical; nil: it may pass.
func (d *Definition) Hopeless() error {
	switch d.Kind() {
	case KindDocker:
		return ErrUnrunnable
	case KindHTTP:
		if _, err := d.httpRequest(); errors.Is(err, errScheme) {
			return err
		}
	}
	return nil
}

func (d *Definition) runsByInterval() bool {
	return len(d.ScriptArgs) > 0 || d.HTTP != "" || d.TCP != "" || d.UDP != "" ||
		d.GRPC != "" || d.H2PING != "" || d.OSService != "" || d.DockerContainerID != ""
}

// validateTarget looks at what only the chosen kind needs.
func (d *Definition) validateTarget() error {
	switch d.Kind() {
	case KindHTTP:
		if _, err := d.httpRequest(); !errors.Is(err, errScheme) {
			return err
		}
	case KindTCP:
		return validHostPort("TCP", d.TCP)
	case KindUDP:
		return validHostPort("UDP", d.UDP)
	case KindH2Ping:
		return validHostPort("H2PING", d.H2PING)
	case KindGRPC:
		host, _, _ := strings.Cut(d.GRPC, "/")
		return validHostPort("gRPC", host)
	case KindScript:
		if d.ScriptArgs[0] == "" {
			return errors.New("Args must begin with the program to run")
		}
	case KindOSService:
		if strings.HasPrefix(d.OSService, "-") {
			return fmt.Errorf("OSService %q is not the name of a unit", d.OSService)
		}
	}
	return nil
}

// timeout is the bound of one run.
func (d *Definition) timeout() time.Duration {
	if d.Timeout > 0 {
		return d.Timeout
	}
	if d.Kind() == KindScript {
		return DefaultScriptTimeout
	}
	return DefaultTimeout
}

// outputSize is how many bytes of output are kept.
func (d *Definition) outputSize() int {
	if d.OutputMaxSize > 0 {
		return d.OutputMaxSize
	}
	return DefaultOutputSize
}
