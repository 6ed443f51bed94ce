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
	"meibo/cluster/definition"
)

// at reads a value of a block, its default where it is not set or bad.
func at[T any](b *block, tab, path string) T {
	if s := b.set[path]; s != nil && !s.bad {
		return s.value.(T)
	}
	return tables[tab].byPath[path].defaultValue().(T)
}

// deregisterMin is the least deregister_critical_service_after, as in Consul.
const deregisterMin = time.Minute

// checkTLS is the part of the agent's TLS that checks show and trust: that of
// tls.internal_rpc, as in Consul.
func (b *builder) checkTLS() *check.TLS {
	if !b.is("enable_agent_tls_for_checks") {
		return nil
	}
	own := func(name string) string {
		if s := b.text("tls.internal_rpc." + name); s != "" {
			return s
		}
		return b.text("tls.defaults." + name)
	}
	t := &check.TLS{CAFile: own("ca_file"), CAPath: own("ca_path"), CertFile: own("cert_file"), KeyFile: own("key_file")}
	if *t == (check.TLS{}) {
		b.caution("enable_agent_tls_for_checks", "no effect: neither tls.internal_rpc nor tls.defaults names a file")
	} else if (t.CertFile == "") != (t.KeyFile == "") {
		b.wrong("enable_agent_tls_for_checks", "cert_file and key_file of tls.internal_rpc or tls.defaults belong together: one is set")
	}
	return t
}

// agent gathers the definitions, and leaves out those with a fault in them. Where two
// services or checks have one ID, the later counts, as it would if they were registered
// in this order.
func (b *builder) agent(c *Config) Agent {
	a := Agent{
		EnableScriptChecks: b.is("enable_script_checks"), EnableLocalScriptChecks: b.is("enable_local_script_checks"),
		CheckUpdateInterval: b.duration("check_update_interval"), CheckOutputMaxSize: b.int("check_output_max_size"),
		DiscardCheckOutput: b.is("discard_check_output"), CheckTLS: b.checkTLS(),
	}
	d := definer{builder: b, token: c.ACL.Tokens.ServiceRegistration, min: deregisterMin, places: map[string]position{}}
	d.scripts = a.EnableScriptChecks || a.EnableLocalScriptChecks
	var services, checks []*block // those of a.Services and a.Checks
	for _, bl := range b.blocks("services") {
		b.within(bl, func() {
			if s, ok := d.service(bl); ok {
				a.Services, services = append(a.Services, s), append(services, bl)
			}
		})
	}
	for _, bl := range b.blocks("checks") {
		b.within(bl, func() {
			if k, ok := d.check(bl, "check", false); ok {
				a.Checks, checks = append(a.Checks, k), append(checks, bl)
			}
		})
	}
	d.ask(&a, c.DataDir, services, checks)
	a.Services = fit(&d, "service", a.Services, services, func(s definition.Service) string { return s.ID })
	a.Checks = fit(&d, "check", a.Checks, checks, func(k definition.Check) string { return k.ID })
	d.moved(&a)
	a.LeftOut = b.leftOut()
	a.places = d.places
	return a
}

// ask has the agent look at the definitions, as it will when it starts: each that it
// would leave out gets a fault with its place.
func (d *definer) ask(a *Agent, dataDir string, services, checks []*block) {
	registered, unread := d.src.Registered, []string(nil)
	if registered == nil {
		kept, err := agent.Kept(dataDir)
		registered = func(id string) bool {
			if err != nil && !kept[id] {
				unread = append(unread, id)
				return true
			}
			return kept[id]
		}
		defer func() {
			if len(unread) > 0 {
				d.caution("data_dir", fmt.Sprintf("cannot be read (%s): whether it keeps a service %q, which a check is of, shows only when the daemon starts", reason(err), unread[0]))
			}
		}()
	}
	unfit, err := agent.FindUnfit(agent.Config{
		Node: catalog.Node{Node: "x"}, Services: a.Services, Checks: a.Checks,
		EnableScriptChecks: a.EnableScriptChecks, EnableLocalScriptChecks: a.EnableLocalScriptChecks,
	}, registered)
	if err != nil {
		d.fault(&Fault{Text: err.Error()})
	}
	gone := map[string]bool{}
	for _, l := range d.leftOut() {
		gone[l.ID] = !l.Check
	}
	for _, u := range unfit {
		bl, key, text := services, "service", u.Err.Error()
		if u.Check {
			bl, key = checks, "check"
			if gone[u.ServiceID] {
				text = fmt.Sprintf("service %q, which it is a check of, is left out", u.ServiceID)
			}
		}
		at := bl[u.Index]
		d.within(at, func() { d.fault(&Fault{File: at.at.file, Line: at.at.line, Key: key, Text: text}) })
	}
}

// fit returns the definitions without a fault in them, of each ID the last.
func fit[T any](d *definer, kind string, all []T, blocks []*block, id func(T) string) []T {
	last := make(map[string]int, len(all))
	for i, v := range all {
		if len(blocks[i].faults) == 0 {
			d.unique(kind, id(v), blocks[i].at)
			last[id(v)] = i
		}
	}
	var out []T
	for i, v := range all {
		if j, ok := last[id(v)]; ok && i == j {
			out = append(out, v)
		}
	}
	return out
}

// moved warns of a check that loses its place to a later one of its ID: the service that
// it was of would look healthier than was meant.
func (d *definer) moved(a *Agent) {
	of := map[string]string{} // by the check's ID
	take := func(id, what string, at position) {
		if old, ok := of[id]; ok {
			d.warn(Warning{File: at.file, Line: at.line, Key: "check", Text: fmt.Sprintf("check %q of %s takes the place of the one of %s: give each an id of its own", id, what, old)})
		}
		of[id] = what
	}
	for _, s := range a.Services {
		for i, c := range s.Checks {
			id := c.ID
			if id == "" {
				if id = "service:" + s.ID; len(s.Checks) > 1 {
					id += fmt.Sprintf(":%d", i+1)
				}
			}
			take(id, fmt.Sprintf("service %q", s.ID), d.places["service "+s.ID])
		}
	}
	for _, c := range a.Checks {
		what := "the node"
		if c.ServiceID != "" {
			what = fmt.Sprintf("service %q", c.ServiceID)
		}
		take(c.ID, what, d.places["check "+c.ID])
	}
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

func (d *definer) service(bl *block) (definition.Service, bool) {
	s := definition.Service{
		Kind: at[string](bl, "service", "kind"), ID: at[string](bl, "service", "id"), Name: at[string](bl, "service", "name"),
		Tags: texts(at[[]entry](bl, "service", "tags")), Address: at[string](bl, "service", "address"), Port: int(at[int64](bl, "service", "port")),
		SocketPath: at[string](bl, "service", "socket_path"), Meta: at[map[string]string](bl, "service", "meta"),
		EnableTagOverride: at[bool](bl, "service", "enable_tag_override"), Token: at[string](bl, "service", "token"),
	}
	if bl.set["weights.passing"] != nil || bl.set["weights.warning"] != nil {
		s.Weights = &catalog.Weights{Passing: int(at[int64](bl, "service", "weights.passing")), Warning: int(at[int64](bl, "service", "weights.warning"))}
	}
	if l := (catalog.Locality{Region: at[string](bl, "service", "locality.region"), Zone: at[string](bl, "service", "locality.zone")}); l != (catalog.Locality{}) {
		s.Locality = &l
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
		if len(bl.faults) == 0 {
			d.fault(&Fault{File: bl.at.file, Line: bl.at.line, Key: "service.name", Text: "not set: a service needs a name"})
		}
		return s, false
	}
	if s.ID == "" {
		s.ID = s.Name
	}
	d.serviceNames(&s, bl.at)
	d.refuseConnect(bl, s.ID)
	return s, len(bl.faults) == 0
}

// refuseConnect leaves out a proxy. A service that asks for a sidecar or speaks
// Connect itself stays without: others look up its name, and it answers there.
func (d *definer) refuseConnect(bl *block, id string) {
	for _, t := range at[[]*tree](bl, "service", "proxy") {
		if err := catalog.RefuseConnect(id, t.value(), nil); err != nil {
			d.fault(&Fault{File: t.at.file, Line: t.at.line, Key: "service.proxy", Text: err.Error()})
		}
	}
	for _, t := range at[[]*tree](bl, "service", "connect") {
		if catalog.RefuseConnect(id, nil, t.value()) != nil {
			d.warn(Warning{File: t.at.file, Line: t.at.line, Key: "service.connect",
				Text: fmt.Sprintf("Connect is not built: the service %q is registered as it is, without a sidecar", shorten(id))})
		}
	}
}

// serviceNames warns of names that DNS cannot carry, or not everywhere.
func (d *definer) serviceNames(s *definition.Service, at position) {
	warn := func(key, text string) {
		d.warn(Warning{File: at.file, Line: at.line, Key: key, Text: text})
	}
	if len(s.Name) > 63 {
		warn("service.name", fmt.Sprintf("%q is longer than the 63 characters of a DNS label: it cannot be looked up", shorten(s.Name)))
	} else if strings.Contains(s.Name, ".") {
		warn("service.name", fmt.Sprintf("%q has a dot: it cannot be looked up, what is before the dot is taken for a tag", shorten(s.Name)))
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
func (d *definer) taggedAddresses(bl *block, s *definition.Service) {
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
func (d *definer) check(bl *block, shown string, inside bool) (definition.Check, bool) {
	get := func(path string) string { return at[string](bl, "check", path) }
	yes := func(path string) bool { return at[bool](bl, "check", path) }
	number := func(path string) int { return int(at[int64](bl, "check", path)) }
	span := func(path string) time.Duration { return at[time.Duration](bl, "check", path) }
	c := definition.Check{
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
func (d *definer) sound(c *definition.Check, at position, shown string, inside bool) bool {
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
	if err := c.Hopeless(); err != nil {
		d.warn(Warning{Serious: true, File: at.file, Line: at.line, Key: shown + hopelessKey(c.Kind()),
			Text: "this check will stand as critical: " + err.Error()})
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
		d.fault(&Fault{File: at.file, Line: at.line, Key: shown + ".args", Text: "scripts are disabled on this host: set enable_local_script_checks = true"})
		return false
	}
	if !inside {
		c.ID, c.Name = cmp.Or(c.ID, c.Name), cmp.Or(c.Name, c.ID)
	}
	return true
}

// hopelessKey is the key to blame for a check of the kind that can only be critical.
func hopelessKey(k check.Kind) string {
	if k == check.KindDocker {
		return ".docker_container_id"
	}
	return "." + string(k)
}

// unfit says which key of a check does not fit the others, and why.
func unfit(c *definition.Check) (key, text string) {
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
