package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"meibo/cluster/agent"
	"meibo/cluster/catalog"
	"meibo/cluster/check"
)

// at reads a value of a block, its default where it is not set or bad.
func at[T any](b *block, tab, path string) T {
	if s := b.set[path]; s != nil && !s.bad {
		return s.value.(T)
	}
	return tables[tab].byPath[path].defaultValue().(T)
}

// agent gathers the definitions. Where two services or checks have one ID, the
// later counts, as it would if they were registered in this order.
func (b *builder) agent(token Secret) Agent {
	a := Agent{
		EnableScriptChecks: b.is("enable_script_checks"), EnableLocalScriptChecks: b.is("enable_local_script_checks"),
		CheckUpdateInterval: b.duration("check_update_interval"), CheckOutputMaxSize: b.int("check_output_max_size"),
		DiscardCheckOutput: b.is("discard_check_output"), SyncInterval: b.duration("ae_interval"),
		ReapInterval: b.duration("check_reap_interval"), DeregisterMin: b.duration("check_deregister_interval_min"),
		TLSForChecks: b.is("enable_agent_tls_for_checks"),
	}
	d := definer{builder: b, token: token, min: a.DeregisterMin, places: map[string]position{}}
	d.scripts = a.EnableScriptChecks || a.EnableLocalScriptChecks
	for _, bl := range b.blocks("services") {
		if s, ok := d.service(bl); ok {
			a.Services = append(a.Services, s)
		}
	}
	for _, bl := range b.blocks("checks") {
		if c, ok := d.check(bl, "check", false); ok {
			a.Checks = append(a.Checks, c)
		}
	}
	a.Services = lasts(a.Services, func(s agent.ServiceDefinition) string { return s.ID })
	a.Checks = lasts(a.Checks, func(c agent.CheckDefinition) string { return c.ID })
	return a
}

// lasts keeps the last element of each ID, in order.
func lasts[T any](list []T, id func(T) string) []T {
	last := make(map[string]int, len(list))
	for i, v := range list {
		last[id(v)] = i
	}
	var out []T
	for i, v := range list {
		if last[id(v)] == i {
			out = append(out, v)
		}
	}
	return out
}

// definer makes definitions of blocks.
type definer struct {
	*builder
	token   Secret
	min     time.Duration
	scripts bool
	places  map[string]position // of IDs seen
}

// unique warns of an ID that was there before.
func (d *definer) unique(kind, id string, at position) {
	key := kind + " " + id
	if old, ok := d.places[key]; ok {
		d.warn(Warning{File: at.file, Line: at.line, Key: kind, Text: fmt.Sprintf("%s %q takes the place of the one at %s", kind, id, strings.TrimSuffix(place(old.file, old.line), ": "))})
	}
	d.places[key] = at
}

var dnsName = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

func (d *definer) service(bl *block) (agent.ServiceDefinition, bool) {
	s := agent.ServiceDefinition{
		Kind: at[string](bl, "service", "kind"), ID: at[string](bl, "service", "id"), Name: at[string](bl, "service", "name"),
		Tags: texts(at[[]entry](bl, "service", "tags")), Address: at[string](bl, "service", "address"), Port: int(at[int64](bl, "service", "port")),
		SocketPath: at[string](bl, "service", "socket_path"), Meta: at[map[string]string](bl, "service", "meta"),
		EnableTagOverride: at[bool](bl, "service", "enable_tag_override"), Token: at[string](bl, "service", "token"),
	}
	if bl.set["weights.passing"] != nil || bl.set["weights.warning"] != nil {
		s.Weights = &catalog.Weights{Passing: int(at[int64](bl, "service", "weights.passing")), Warning: int(at[int64](bl, "service", "weights.warning"))}
	}
	if s.Token == "" {
		s.Token = d.token.Reveal()
	}
	d.taggedAddresses(bl, &s)
	for _, inner := range at[[]*block](bl, "service", "checks") {
		if len(inner.set) == 0 && !inner.bad {
			d.warn(Warning{File: inner.at.file, Line: inner.at.line, Key: "service.check", Text: "says nothing, and is passed over"})
			continue
		}
		if c, ok := d.check(inner, "service.check", true); ok {
			s.Checks = append(s.Checks, c)
		}
	}
	if s.Name == "" {
		if !bl.bad {
			d.fault(&Fault{File: bl.at.file, Line: bl.at.line, Key: "service.name", Text: "not set: a service needs a name"})
		}
		return s, false
	}
	if s.ID == "" {
		s.ID = s.Name
	}
	d.serviceNames(&s, bl.at)
	d.unique("service", s.ID, bl.at)
	if bl.bad {
		return s, false
	}
	return s, d.taken(bl.at, "service", []agent.ServiceDefinition{s}, nil)
}

// serviceNames warns of names that DNS cannot carry, or not everywhere.
func (d *definer) serviceNames(s *agent.ServiceDefinition, at position) {
	warn := func(key, text string) {
		d.warn(Warning{File: at.file, Line: at.line, Key: key, Text: text})
	}
	if len(s.Name) > 63 {
		warn("service.name", fmt.Sprintf("%q is longer than the 63 characters of a DNS label: it cannot be looked up", shorten(s.Name)))
	} else if !dnsName.MatchString(s.Name) {
		warn("service.name", fmt.Sprintf("%q has characters besides letters, digits and -; it resolves, but some resolvers refuse such names", s.Name))
	}
	for _, tag := range s.Tags {
		if len(tag) > 63 && !strings.Contains(tag, ".") {
			warn("service.tags", fmt.Sprintf("%q is longer than the 63 characters of a DNS label: it cannot be looked up", shorten(tag)))
		}
	}
}

// taggedAddresses reads { lan { address = "…" port = 80 } }.
func (d *definer) taggedAddresses(bl *block, s *agent.ServiceDefinition) {
	for _, t := range at[[]*tree](bl, "service", "tagged_addresses") {
		objects, ok := t.objects()
		if !ok {
			d.fault(&Fault{File: t.at.file, Line: t.at.line, Key: "service.tagged_addresses", Expected: "a block of blocks with address and port", Got: t.describe(false)})
		}
		for _, o := range objects {
			for _, f := range o.fields {
				if a, ok := d.tagged(f); ok {
					if s.TaggedAddresses == nil {
						s.TaggedAddresses = map[string]catalog.ServiceAddress{}
					}
					s.TaggedAddresses[f.key] = a
				}
			}
		}
	}
}

var taggedTable = func() *table {
	t := newTable()
	t.add(&Key{Path: "address", check: checkServiceAddress})
	t.add(&Key{Path: "port", Type: Int, Range: "0..65535"})
	return t
}()

func (d *definer) tagged(f field) (catalog.ServiceAddress, bool) {
	shown := "service.tagged_addresses." + f.key
	objects, ok := f.tree.objects()
	if !ok {
		d.fault(&Fault{File: f.at.file, Line: f.at.line, Key: shown, Expected: "a block with address and port", Got: f.tree.describe(false)})
		return catalog.ServiceAddress{}, false
	}
	set := settings{}
	for _, o := range objects {
		decoder{d.report}.block(taggedTable, shown+".", "", o, set)
	}
	var a catalog.ServiceAddress
	if s := set["address"]; s != nil && !s.bad {
		a.Address = s.value.(string)
	}
	if s := set["port"]; s != nil && !s.bad {
		a.Port = int(s.value.(int64))
	}
	family := ""
	if _, suffix, ok := strings.Cut(f.key, "_"); ok && (suffix == "ipv4" || suffix == "ipv6") {
		family = suffix
	}
	if ip, err := netip.ParseAddr(a.Address); family != "" && (err != nil || ip.Is4() != (family == "ipv4")) {
		d.fault(&Fault{File: f.at.file, Line: f.at.line, Key: shown + ".address", Expected: "an IPv" + family[3:] + " address", Got: fmt.Sprintf("%q", shorten(a.Address))})
		return a, false
	}
	return a, true
}

// check makes one check. Inside a service it needs neither name nor service_id.
func (d *definer) check(bl *block, shown string, inside bool) (agent.CheckDefinition, bool) {
	get := func(path string) string { return at[string](bl, "check", path) }
	yes := func(path string) bool { return at[bool](bl, "check", path) }
	number := func(path string) int { return int(at[int64](bl, "check", path)) }
	span := func(path string) time.Duration { return at[time.Duration](bl, "check", path) }
	c := agent.CheckDefinition{
		ID: get("id"), Name: get("name"), Notes: get("notes"), Status: get("status"), ServiceID: get("service_id"), Token: get("token"),
		DeregisterCriticalServiceAfter: span("deregister_critical_service_after"),
		Definition: check.Definition{
			ScriptArgs: texts(at[[]entry](bl, "check", "args")), HTTP: get("http"), Method: get("method"),
			Header: at[map[string][]string](bl, "check", "header"), Body: get("body"), DisableRedirects: yes("disable_redirects"),
			TCP: get("tcp"), TCPUseTLS: yes("tcp_use_tls"), UDP: get("udp"), GRPC: get("grpc"), GRPCUseTLS: yes("grpc_use_tls"),
			H2PING: get("h2ping"), OSService: get("os_service"), DockerContainerID: get("docker_container_id"), Shell: get("shell"),
			AliasNode: get("alias_node"), AliasService: get("alias_service"), TTL: span("ttl"),
			TLSServerName: get("tls_server_name"), TLSSkipVerify: yes("tls_skip_verify"),
			Interval: span("interval"), Timeout: span("timeout"), OutputMaxSize: number("output_max_size"),
			SuccessBeforePassing: number("success_before_passing"), FailuresBeforeWarning: number("failures_before_warning"),
			FailuresBeforeCritical: number("failures_before_critical"),
		},
	}
	if bl.set["h2ping_use_tls"] != nil {
		use := yes("h2ping_use_tls")
		c.H2PingUseTLS = &use
	}
	if c.Token == "" {
		c.Token = d.token.Reveal()
	}
	if bl.bad { // said already; what is left may well not fit together
		return c, false
	}
	return c, d.sound(&c, bl.at, shown, inside)
}

// sound checks what belongs together, and raises what is too small.
func (d *definer) sound(c *agent.CheckDefinition, at position, shown string, inside bool) bool {
	fault := func(text string) {
		d.fault(&Fault{File: at.file, Line: at.line, Key: shown, Text: text})
	}
	warn := func(key, text string) {
		d.warn(Warning{File: at.file, Line: at.line, Key: shown + key, Text: text})
	}
	if !inside && c.Name == "" && c.ID == "" {
		fault("a check outside a service needs a name")
		return false
	}
	if c.Kind() == check.KindDocker {
		d.warn(Warning{Serious: true, File: at.file, Line: at.line, Key: shown + ".docker_container_id",
			Text: "this check will stand as critical: " + check.ErrUnrunnable.Error()})
	}
	if key, text := unfit(c); text != "" {
		d.fault(&Fault{File: at.file, Line: at.line, Key: shown + key, Text: text})
		return false
	}
	for _, other := range c.Others() {
		warn("", fmt.Sprintf("says %s and %s; only %s runs", c.Kind(), other, c.Kind()))
	}
	if c.Interval > 0 && c.Interval < check.MinInterval {
		warn(".interval", fmt.Sprintf("%s is raised to %s", c.Interval, check.MinInterval))
		c.Interval = check.MinInterval
	}
	if c.DeregisterCriticalServiceAfter > 0 && c.DeregisterCriticalServiceAfter < d.min {
		warn(".deregister_critical_service_after", fmt.Sprintf("%s is raised to %s", c.DeregisterCriticalServiceAfter, d.min))
		c.DeregisterCriticalServiceAfter = d.min
	}
	if c.Kind() == check.KindScript && !d.scripts {
		const text = "scripts are disabled on this host: set enable_local_script_checks = true"
		if !d.src.Partial {
			d.fault(&Fault{File: at.file, Line: at.line, Key: shown + ".args", Text: text})
			return false
		}
		warn(".args", text) // another file may well enable them
	}
	if inside {
		return true
	}
	c.ID, c.Name = cmp.Or(c.ID, c.Name), cmp.Or(c.Name, c.ID)
	d.unique("check", c.ID, at)
	alone := *c
	alone.ServiceID = "" // which may come from the API
	return d.taken(at, shown, nil, []agent.CheckDefinition{alone})
}

// taken asks the agent whether it will take a definition, so that what is valid
// here starts, and the refusal has a file and a line.
func (d *definer) taken(at position, shown string, services []agent.ServiceDefinition, checks []agent.CheckDefinition) bool {
	_, err := agent.New(agent.Config{Node: catalog.Node{Node: "x"}, Services: services, Checks: checks, EnableLocalScriptChecks: true})
	if err != nil {
		d.fault(&Fault{File: at.file, Line: at.line, Key: shown, Text: err.Error()})
	}
	return err == nil
}

// unfit says which key of a check does not fit the others, and why.
func unfit(c *agent.CheckDefinition) (key, text string) {
	kind := c.Kind()
	switch {
	case kind == check.KindNone:
		return "", "nothing to check: set one of args, http, tcp, udp, grpc, h2ping, os_service, ttl, alias_service, alias_node"
	case c.Interval > 0 && c.TTL > 0:
		return ".ttl", "cannot be set together with interval"
	case kind == check.KindAlias && c.Interval > 0:
		return ".interval", "cannot be set for an alias check, which follows the other's state"
	case kind != check.KindTTL && kind != check.KindAlias && c.Interval <= 0:
		return ".interval", fmt.Sprintf(`not set: the %s check needs one, as in interval = "10s"`, kind)
	}
	if err := c.Validate(); err != nil {
		return "", err.Error()
	}
	return "", ""
}
