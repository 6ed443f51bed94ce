//lint:file-ignore ST1005 clients compare these texts with Consul's, capitals included

package catalog

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Errors of validation that Consul's clients compare by text.
var (
	ErrMissingNode        = errors.New("Must provide node")
	ErrMissingAddress     = errors.New("Must provide address if SkipNodeUpdate is not set")
	ErrMissingServiceName = errors.New("Must provide service name with ID")
	ErrServiceAddress     = errors.New("Invalid service address")
	ErrMissingCheckID     = errors.New("Must provide a check ID or name")
)

// ErrChanged refuses a command that was to be carried out only if nothing had
// changed meanwhile.
var ErrChanged = &Error{Text: "The index to compare with is not the present one"}

// Limits of what one record may hold. Metadata as Consul's.
const (
	MaxMetaPairs  = 64
	MaxMetaKey    = 128
	MaxMetaValue  = 512
	MaxNameLength = 255
	// metaOfAgents is how many pairs an agent adds to those of its node.
	metaOfAgents = 2
	metaReserved = "consul-"
)

// Normalize fills in what Consul's endpoints fill in: a service ID from its
// name, a check ID from its name, node names, weights of {1, 1}, an unknown
// or empty check status as critical; and writes the node ID in lower case.
// It changes the command in place; call it before Validate.
func (r *Register) Normalize() {
	r.Node.ID = strings.ToLower(r.Node.ID)
	if s := r.Service; s != nil {
		s.Node = r.Node.Node
		if s.ID == "" {
			s.ID = s.Service
		}
		if s.Weights == (Weights{}) {
			s.Weights = Weights{Passing: 1, Warning: 1}
		}
	}
	for _, c := range r.Checks {
		if c == nil {
			continue
		}
		if c.Node == "" {
			c.Node = r.Node.Node
		}
		if c.CheckID == "" {
			c.CheckID = c.Name
		}
		if c.Status == "" {
			c.Status = Critical
		}
	}
}

// Validate implements [Body].
func (r *Register) Validate() error {
	if r.Node.Node == "" {
		return ErrMissingNode
	}
	if err := validateName("node name", r.Node.Node); err != nil {
		return err
	}
	if r.Node.Address == "" && !r.SkipNodeUpdate {
		return ErrMissingAddress
	}
	if r.Node.ID != "" && !IsUUID(r.Node.ID) {
		return fmt.Errorf("Bad node ID: %q is not a UUID", r.Node.ID)
	}
	if err := ValidateNodeMeta(r.Node.Meta); err != nil {
		return err
	}
	if err := r.Node.Locality.validate(); err != nil {
		return err
	}
	if r.Service != nil {
		if err := r.Service.Validate(); err != nil {
			return err
		}
	}
	for _, c := range r.Checks {
		if err := r.validateCheck(c); err != nil {
			return err
		}
	}
	return nil
}

func (r *Register) validateCheck(c *Check) error {
	if c == nil || c.CheckID == "" {
		return ErrMissingCheckID
	}
	if err := validateName("check ID", c.CheckID); err != nil {
		return err
	}
	if !strings.EqualFold(c.Node, r.Node.Node) && c.Node != "" {
		return fmt.Errorf("check node %q does not match node %q", c.Node, r.Node.Node)
	}
	switch c.Status {
	case Passing, Warning, Critical:
		return nil
	}
	return fmt.Errorf("Invalid check status: %q", c.Status)
}

// validateName refuses what tables and logs can't hold as a name. What DNS
// can't hold is allowed, as in Consul.
func validateName(what, name string) error {
	if len(name) > MaxNameLength {
		return fmt.Errorf("Invalid %s: %.32q... is longer than %d", what, name, MaxNameLength)
	}
	if HasControl(name) {
		return fmt.Errorf("Invalid %s: %q contains a control character", what, name)
	}
	return nil
}

// Validate reports what is wrong with a service, in Consul's words.
func (s *Service) Validate() error {
	if s.Service == "" {
		return ErrMissingServiceName
	}
	if err := validateName("service name", s.Service); err != nil {
		return err
	}
	if err := validateName("service ID", s.ID); err != nil {
		return err
	}
	if isAny(s.Address) {
		return ErrServiceAddress
	}
	if s.Port < 0 || s.Port > 65535 {
		return fmt.Errorf("Invalid service port %d: must be 0 to 65535", s.Port)
	}
	if err := validateWeights(s.Weights); err != nil {
		return err
	}
	if err := validateServiceAddresses(s.TaggedAddresses); err != nil {
		return err
	}
	if err := s.Locality.validate(); err != nil {
		return err
	}
	return ValidateServiceMeta(s.Meta)
}

func (l *Locality) validate() error {
	if l != nil && l.Region == "" && l.Zone != "" {
		return errors.New("zone cannot be set without region")
	}
	return nil
}

func validateWeights(w Weights) error {
	if w == (Weights{}) {
		return nil
	}
	return w.Validate()
}

// Validate says what is wrong with weights that somebody has given.
func (w Weights) Validate() error {
	switch {
	case w.Passing < 1:
		return errors.New("Passing must be greater than 0")
	case w.Warning < 0:
		return errors.New("Warning must be greater or equal than 0")
	case w.Passing > 65535 || w.Warning > 65535:
		return errors.New("DNS Weight must be between 0 and 65535")
	}
	return nil
}

func validateServiceAddresses(tagged map[string]ServiceAddress) error {
	for _, tag := range slices.Sorted(maps.Keys(tagged)) {
		a := tagged[tag]
		if isAny(a.Address) {
			return fmt.Errorf("Invalid tagged address %q: %s", tag, a.Address)
		}
		if a.Port < 0 || a.Port > 65535 {
			return fmt.Errorf("Invalid port %d of tagged address %q: must be 0 to 65535", a.Port, tag)
		}
		ip, err := netip.ParseAddr(a.Address)
		switch {
		case strings.HasSuffix(tag, "_ipv4") && (err != nil || !ip.Is4()):
			return fmt.Errorf("Service tagged address %q must be a valid ipv4 address", tag)
		case strings.HasSuffix(tag, "_ipv6") && (err != nil || !ip.Is6()):
			return fmt.Errorf("Service tagged address %q must be a valid ipv6 address", tag)
		}
	}
	return nil
}

// isAny reports whether the address is that of "all interfaces".
func isAny(address string) bool {
	ip, err := netip.ParseAddr(strings.Trim(address, "[]"))
	return err == nil && ip.Unmap().IsUnspecified()
}

// ValidateNodeMeta reports what is wrong with a node's metadata, in Consul's
// words. The prefix "consul-" is allowed here: agents write such keys, beside as
// many as a user may have.
func ValidateNodeMeta(meta map[string]string) error {
	return validateMeta("Node", meta, MaxMetaPairs+metaOfAgents, true)
}

// ValidateServiceMeta reports what is wrong with a service's metadata.
func ValidateServiceMeta(meta map[string]string) error {
	return validateMeta("Service", meta, MaxMetaPairs, true)
}

// Limits of what people register; larger ones cost every host that reads them.
const (
	maxTags  = 64 << 10 // bytes of all tags of a service
	MaxNotes = 4096     // bytes of the notes of a check
)

// ValidateUser reports what people may not register though a record could hold
// it: [Service.Validate] judges commands that are in logs, too.
func (s *Service) ValidateUser() error {
	for _, f := range []struct{ what, text string }{{"name", s.Service}, {"ID", s.ID}, {"address", s.Address}, {"socket path", s.SocketPath}} {
		if HasControl(f.text) {
			return fmt.Errorf("Invalid service %s %q: control characters are not allowed", f.what, f.text)
		}
	}
	if slices.Contains(meshKinds, s.Kind) {
		return fmt.Errorf("Service %q: kind %q %w", s.ID, s.Kind, ErrConnect)
	}
	if s.SocketPath != "" && (s.Address != "" || s.Port != 0) {
		return fmt.Errorf("Service %q: Address and Port can't be given together with SocketPath", s.ID)
	}
	size := 0
	for _, tag := range s.Tags {
		if HasControl(tag) {
			return fmt.Errorf("Service %q: tag %.64q holds control characters", s.ID, tag)
		}
		size += len(tag) + 1
	}
	if size > maxTags {
		return fmt.Errorf("Service %q has %d tags of %d bytes in all; at most %d bytes are allowed", s.ID, len(s.Tags), size, maxTags)
	}
	if err := validateMeta("Service", s.Meta, MaxMetaPairs, false); err != nil {
		return fmt.Errorf("Invalid Service Meta: %w", err)
	}
	return nil
}

// ValidateUser is the same for a check.
func (c *Check) ValidateUser() error {
	switch {
	case HasControl(c.CheckID) || HasControl(c.Name) || len(c.CheckID) > MaxNameLength*2 || len(c.Name) > MaxNameLength*2:
		return fmt.Errorf("Invalid check ID or name %.64q: too long, or control characters in it", c.CheckID)
	case len(c.Notes) > MaxNotes:
		return fmt.Errorf("Notes of check %q are longer than %d bytes", c.CheckID, MaxNotes)
	}
	return nil
}

// HasControl reports whether there is a control character in the text.
func HasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// ErrConnect ends the refusals of what would be taken for a working proxy or a
// service in the mesh, and could be neither.
var ErrConnect = errors.New("is of Connect, which is not built here")

var meshKinds = []string{"connect-proxy", "mesh-gateway", "terminating-gateway", "ingress-gateway", "api-gateway"}

// RefuseConnect reports what the Proxy and Connect of a registration, decoded
// from JSON or HCL, ask of the mesh. What only says no, as the objects that the
// API shows, asks nothing.
func RefuseConnect(service string, proxy, connect any) error {
	for _, f := range []struct {
		name  string
		value any
	}{{"Proxy", proxy}, {"Connect", connect}} {
		if path, asks := asksFor(f.name, f.value); asks {
			return fmt.Errorf("Service %q: %s %w", service, path, ErrConnect)
		}
	}
	return nil
}

func asksFor(path string, v any) (string, bool) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if isSidecar := strings.EqualFold(strings.ReplaceAll(k, "_", ""), "SidecarService"); isSidecar && v[k] != nil {
				return path + "." + k, true // an empty one is one with defaults
			}
			if at, asks := asksFor(path+"."+k, v[k]); asks {
				return at, true
			}
		}
	case []any:
		for _, e := range v {
			if at, asks := asksFor(path, e); asks {
				return at, true
			}
		}
	case nil:
	default:
		text := fmt.Sprint(v)
		return path, text != "" && text != "0" && text != "false"
	}
	return "", false
}

// ValidateUserMeta is [ValidateNodeMeta] for what people configure: keys that
// begin with "consul-" are refused.
func ValidateUserMeta(meta map[string]string) error {
	return validateMeta("Node", meta, MaxMetaPairs, false)
}

func validateMeta(what string, meta map[string]string, most int, reserved bool) error {
	if len(meta) > most {
		return fmt.Errorf("%s metadata cannot contain more than %d key/value pairs", what, MaxMetaPairs)
	}
	for _, k := range slices.Sorted(maps.Keys(meta)) {
		if err := validateMetaPair(k, meta[k], reserved); err != nil {
			return fmt.Errorf("Couldn't load metadata pair ('%s', '%s'): %w", k, meta[k], err)
		}
	}
	return nil
}

func validateMetaPair(key, value string, reserved bool) error {
	switch {
	case key == "":
		return errors.New("Key cannot be blank")
	case strings.ContainsFunc(key, func(r rune) bool { return !isMetaRune(r) }):
		return errors.New("Key contains invalid characters")
	case len(key) > MaxMetaKey:
		return fmt.Errorf("Key is too long (limit: %d characters)", MaxMetaKey)
	case !reserved && strings.HasPrefix(key, metaReserved):
		return fmt.Errorf("Key prefix '%s' is reserved for internal use", metaReserved)
	case len(value) > MaxMetaValue:
		return fmt.Errorf("Value is too long (limit: %d characters)", MaxMetaValue)
	}
	return nil
}

func isMetaRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_'
}

// IsUUID reports whether s has the form of a UUID, in either letter case.
func IsUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
			continue
		}
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
			return false
		}
	}
	return true
}

// Validate implements [Body].
func (d *Deregister) Validate() error {
	if d.Node == "" {
		return ErrMissingNode
	}
	if d.NodeID != "" && !IsUUID(d.NodeID) {
		return fmt.Errorf("Bad node ID: %q is not a UUID", d.NodeID)
	}
	return errors.Join(validateName("node name", d.Node), validateName("service ID", d.ServiceID), validateName("check ID", d.CheckID))
}

// Validate implements [Body].
func (b *BeginHistory) Validate() error {
	if !IsUUID(b.ID) {
		return fmt.Errorf("begin history: ID %q is not a UUID", b.ID)
	}
	if b.Base > MaxIndex {
		return fmt.Errorf("begin history %s: base %d is above 2^53", b.ID, b.Base)
	}
	return nil
}

// Validate implements [Body].
func (m *MarkSynced) Validate() error {
	if !IsUUID(m.NodeID) || !IsUUID(m.History) {
		return fmt.Errorf("mark synced: node ID %q and history %q must be UUIDs", m.NodeID, m.History)
	}
	return nil
}

// Validate implements [Body].
func (f *Forget) Validate() error {
	if f.Node == "" {
		return ErrMissingNode
	}
	return validateName("node name", f.Node)
}

// Validate implements [Body].
func (s *SetAutopilot) Validate() error {
	c := &s.Config
	switch {
	case c.LastContactThreshold < 0 || c.ServerStabilizationTime < 0:
		return errors.New("Invalid autopilot configuration: a duration is negative")
	case c.MaxTrailingLogs < 0 || c.MinQuorum < 0:
		return errors.New("Invalid autopilot configuration: a number is negative")
	}
	return errors.Join(validateName("redundancy zone tag", c.RedundancyZoneTag), validateName("upgrade version tag", c.UpgradeVersionTag))
}
