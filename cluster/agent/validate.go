//lint:file-ignore ST1005 clients compare these texts with Consul's, capitals included

package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/check"
	"meibo/cluster/definition"
)

// The kinds of refusal. The errors of this package wrap one of them; their text
// is Consul's where clients may look at it.
var (
	ErrInvalid        = errors.New("invalid definition")
	ErrUnknownService = errors.New("unknown service")
	ErrUnknownCheck   = errors.New("unknown check")
	ErrNotTTL         = errors.New("not a TTL check")
)

// refusal is an error with a text of its own that is of a kind.
type refusal struct {
	text string
	kind error
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }

func invalid(format string, args ...any) error {
	return &refusal{fmt.Sprintf(format, args...), ErrInvalid}
}

func unknownService(id string) error {
	return &refusal{fmt.Sprintf("Unknown service ID %q. Ensure that the service ID is passed, not the service name.", id), ErrUnknownService}
}

func unknownCheck(id string) error {
	return &refusal{fmt.Sprintf("Unknown check ID %q. Ensure that the check ID is passed, not the check name.", id), ErrUnknownCheck}
}

// maxChecks is the most that one service may have.
const maxChecks = 64

// minDeregister keeps a short outage from taking a service away for good.
const minDeregister = time.Minute

// normalize fills in what def leaves out and returns def, or what is wrong with
// it. Nothing of def is shared with the caller's that is later changed here.
func (a *Agent) normalizeService(def definition.Service) (definition.Service, error) {
	if def.Name == "" {
		return def, invalid("Missing service name")
	}
	if def.ID == "" {
		def.ID = def.Name
	}
	if def.ID == catalog.ConsulService {
		return def, invalid("Service ID %q is kept for the servers themselves: choose another", def.ID)
	}
	if len(def.Checks) > maxChecks {
		return def, invalid("Service %q has %d checks; at most %d are allowed", def.ID, len(def.Checks), maxChecks)
	}
	if def.Weights == nil {
		def.Weights = &catalog.Weights{Passing: 1, Warning: 1}
	} else if err := def.Weights.Validate(); err != nil {
		return def, invalid("Invalid Weights: %v", err)
	}
	if err := def.Record("").ValidateUser(); err != nil {
		return def, invalid("%v", err)
	}
	def.TaggedAddresses = withLiterals(def)
	if err := def.Record("").Validate(); err != nil {
		if errors.Is(err, catalog.ErrServiceAddress) {
			return def, invalid("Invalid service address")
		}
		return def, invalid("%v", err)
	}
	return a.normalizeServiceChecks(def)
}

// warnService says what of a service that the API registers is not as it looks,
// when it is registered first: many are again and again. What files define is the
// configuration's to warn of.
func (a *Agent) warnService(def definition.Service, source Source) {
	if source != SourceAPI || a.hasService(cmp.Or(def.ID, def.Name)) {
		return
	}
	a.warnName(def.Name)
	for _, c := range def.Checks {
		a.warnRaised(c)
	}
}

func (a *Agent) hasService(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.services[id] != nil
}

func (a *Agent) warnCheck(def definition.Check, source Source) {
	a.mu.Lock()
	known := a.checks[cmp.Or(def.ID, def.Name)] != nil
	a.mu.Unlock()
	if source == SourceAPI && !known {
		a.warnRaised(def)
	}
}

func (a *Agent) warnRaised(c definition.Check) {
	if after := c.DeregisterCriticalServiceAfter; after > 0 && after < minDeregister {
		a.logger.Warn("deregister_critical_service_after raised to the minimum", "check", cmp.Or(c.ID, c.Name), "service", c.ServiceID, "dur", after, "min", minDeregister)
	}
}

// warnName says why DNS will not find a name. The service is taken: those who use
// the API alone need no DNS, and underscores are answered anyway.
func (a *Agent) warnName(name string) {
	switch {
	case len(name) > 63:
		a.logger.Warn("service name is longer than the 63 bytes of a DNS label: DNS cannot ask for it", "service", name)
	case strings.ContainsAny(name, ". "):
		a.logger.Warn("service name has a dot or a blank in it: DNS cannot ask for it", "service", name)
	}
}

// withLiterals adds the tagged addresses that a literal address stands for.
func withLiterals(def definition.Service) map[string]catalog.ServiceAddress {
	ip, err := netip.ParseAddr(def.Address)
	if err != nil {
		return def.TaggedAddresses
	}
	family := "ipv6"
	if ip.Is4() {
		family = "ipv4"
	}
	tagged := maps.Clone(def.TaggedAddresses)
	if tagged == nil {
		tagged = map[string]catalog.ServiceAddress{}
	}
	for _, net := range []string{"lan_", "wan_"} {
		if _, ok := tagged[net+family]; !ok {
			tagged[net+family] = catalog.ServiceAddress{Address: def.Address, Port: def.Port}
		}
	}
	return tagged
}

// normalizeServiceChecks names the checks of a service and looks at each.
func (a *Agent) normalizeServiceChecks(def definition.Service) (definition.Service, error) {
	def.Checks = slices.Clone(def.Checks)
	seen := map[string]bool{}
	for i := range def.Checks {
		c := &def.Checks[i]
		if c.ID == "" {
			c.ID = "service:" + def.ID
			if len(def.Checks) > 1 {
				c.ID += fmt.Sprintf(":%d", i+1)
			}
		}
		if c.Name == "" {
			c.Name = fmt.Sprintf("Service '%s' check", def.Name)
		}
		c.ServiceID = def.ID
		if c.Token == "" {
			c.Token = def.Token
		}
		if seen[c.ID] {
			return def, invalid("Service %q has two checks of the ID %q", def.ID, c.ID)
		}
		seen[c.ID] = true
		if err := a.validateCheck(c); err != nil {
			return def, err
		}
	}
	return def, nil
}

// normalizeCheck does the same for a check that is registered by itself.
func (a *Agent) normalizeCheck(def definition.Check) (definition.Check, error) {
	if def.Name == "" {
		return def, invalid("Missing check name")
	}
	if def.ID == "" {
		def.ID = def.Name
	}
	return def, a.validateCheck(&def)
}

func (a *Agent) validateCheck(c *definition.Check) error {
	switch {
	case c.ID == catalog.SerfHealth || strings.HasPrefix(c.ID, catalog.ServiceMaintPrefix) || c.ID == catalog.NodeMaint:
		return invalid("Check ID %q is kept for meibo itself: choose another", c.ID)
	case c.Status != "" && !validStatus(c.Status):
		return invalid("Status for checks must 'passing', 'warning', 'critical', not %q", c.Status)
	}
	if err := (&catalog.Check{CheckID: c.ID, Name: c.Name, Notes: c.Notes}).ValidateUser(); err != nil {
		return invalid("%v", err)
	}
	if c.Status == "" {
		c.Status = catalog.Critical
	}
	if err := c.Definition.Validate(); err != nil {
		return invalid("Invalid check %q: %v", c.ID, err)
	}
	if c.DeregisterCriticalServiceAfter > 0 {
		c.DeregisterCriticalServiceAfter = max(c.DeregisterCriticalServiceAfter, minDeregister)
	}
	return nil
}

// scriptsAllowed is the permission to run programs that a source has.
func (a *Agent) scriptsAllowed(source Source) bool {
	return a.cfg.EnableScriptChecks || source == SourceFile && a.cfg.EnableLocalScriptChecks
}

// permit refuses a script that its source may not run.
func (a *Agent) permit(def *definition.Check, source Source) error {
	if def.Kind() == check.KindScript && !a.scriptsAllowed(source) {
		return invalid("%v", check.ErrScriptsDisabled)
	}
	return nil
}

func validStatus(s string) bool {
	return s == catalog.Passing || s == catalog.Warning || s == catalog.Critical
}
