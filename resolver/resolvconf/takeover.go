package resolvconf

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// DefaultStateDir has the journal, which is root's alone: who could write it
	// could have root write any file.
	DefaultStateDir = "/var/lib/meibo-resolv"
	journalName     = "resolv.json"
	// upstreamFile is in the form of a resolv.conf; the daemon's user reads it.
	upstreamFile = DefaultStateDir + "/upstream.conf"
	// hookFolder has a file for each interface that a DHCP client has servers for.
	hookFolder = "/run/meibo-resolv/interface"

	// keepUnit has Keep called whenever resolv.conf changes.
	keepUnit = "meibo-resolv.path"

	programTimeout = 30 * time.Second
	lockLook       = 100 * time.Millisecond
	// settle is how long resolution may take to come back after a change.
	settle     = 10 * time.Second
	settleLook = 200 * time.Millisecond

	// What others overwrite is written anew so often in such a time, and then told.
	maxReasserted    = 3
	reassertedWithin = time.Hour
)

// DefaultServer is where meibo answers a host's programs.
var DefaultServer = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Host is a host whose name resolution meibo takes over and gives back. Its
// methods may be called by several processes at once: those that change something
// take turns.
type Host struct {
	// Root is a directory that stands for "/". No program is run then, and nothing
	// is checked; Status lists what was left out. "": this host.
	Root string
	// Server is where meibo answers, on port 53; zero: DefaultServer.
	Server netip.Addr
	// Check asks a server for a name that must resolve, as [Resolves] does. It is called
	// before a change, after it, and before it is made anew; nil: nothing is checked.
	Check func(ctx context.Context, server netip.AddrPort, name string) error
	// Run runs a program of the host; nil: it is run.
	Run func(ctx context.Context, input string, args []string) error

	before func(op, path string) error // of tests: see tree
}

// Options of a takeover.
type Options struct {
	// Only is a domain: names in it alone are asked of meibo, which systemd-resolved
	// can do. "": all names.
	Only string
	// Name is what is checked, then and by Keep; "": the name servers of the root.
	Name string
}

// State is how far a host is taken over.
type State string

// The states of a host.
const (
	Off         State = "off"         // nothing is changed
	Installed   State = "installed"   // everything is as it was written
	Overwritten State = "overwritten" // somebody changed it since
	Unfinished  State = "unfinished"  // a change was killed: Restore takes it back
)

// Status is what is known of a host's name resolution.
type Status struct {
	State State
	// Owner is who wrote resolv.conf before it was taken over; Why is how that is
	// known, Via who made its configuration.
	Owner Owner
	Why   string
	Via   string `json:",omitempty"`
	// File is what /etc/resolv.conf is now.
	File string
	// Servers and Search are those it names now.
	Servers []netip.Addr
	Search  []string
	// Server is where meibo answers; Only the domain that alone is asked of it.
	Server netip.Addr
	Only   string `json:",omitempty"`
	// Upstreams are the true servers, and UpstreamsFrom the file that names them.
	Upstreams     []netip.AddrPort
	UpstreamsFrom string     `json:",omitempty"`
	Since         *time.Time `json:",omitempty"` // of the takeover
	Changes       []Change
	// Programs that belong to the change; with Root they were not run.
	Programs   []string
	Reasserted []time.Time // within the last hour
	// Notes are what an administrator should know, and Next what to do, if anything.
	Notes []string
	Next  string `json:",omitempty"`
}

// Change is one path that was changed.
type Change struct {
	Path string
	What string // "made", "replaced", "lines added"
	Now  string // "as written", "changed by others", "gone"
}

func (h *Host) tree() tree { return tree{root: h.Root, before: h.before} }

func (h *Host) stateDir() string { return DefaultStateDir }

func (h *Host) server() netip.Addr {
	if h.Server.IsValid() {
		return h.Server
	}
	return DefaultServer
}

// Resolves asks a server for the addresses of a name; "": for the name servers of the
// root, which every network knows that is part of the Internet.
func Resolves(ctx context.Context, server netip.AddrPort, name string) error {
	var d net.Dialer
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return d.DialContext(ctx, network, server.String())
	}}
	ctx, cancel := context.WithTimeout(ctx, settle/2)
	defer cancel()
	if name == "" {
		if _, err := r.LookupNS(ctx, "."); err != nil {
			return fmt.Errorf("%s does not know the name servers of the root: %w; a name that resolves in this network is told by -check NAME", server, err)
		}
		return nil
	}
	if _, err := r.LookupHost(ctx, strings.TrimSuffix(name, ".")+"."); err != nil {
		return fmt.Errorf("%s does not resolve %s: %w", server, name, err)
	}
	return nil
}

// Install has the host ask meibo. It finds who owns resolv.conf and the true
// upstream servers, writes both down, tells the owner, changes the file, and looks
// whether names resolve; if not, or on any error, everything is put back. Where it is
// installed already it makes good what others changed since.
func (h *Host) Install(ctx context.Context, o Options) (Status, error) {
	unlock, err := h.lock(ctx)
	if err != nil {
		return Status{}, err
	}
	defer unlock()
	j, err := h.load(journalName)
	if err != nil {
		return Status{}, err
	}
	if err := h.check(ctx, o.Name); err != nil {
		return Status{}, fmt.Errorf("nothing was changed, as meibo does not resolve names for this host yet: %w", err)
	}
	switch {
	case j == nil:
	case j.Phase == installed && j.Only == o.Only && j.Server == h.server():
		if h.state(j) == Installed {
			return h.status(j), nil
		}
		j.Name = o.Name
		return h.reassert(ctx, j, false)
	default: // killed in the middle, or to be another way
		if _, err := h.end(ctx, journalName, j, j.Phase == installing); err != nil {
			return h.status(j), err
		}
	}
	j, err = h.plan(o)
	if err != nil {
		return Status{}, err
	}
	if err := h.begin(ctx, journalName, j, func() error { return h.checkChanged(ctx, j) }); err != nil {
		return Status{}, err
	}
	return h.status(j), nil
}

// Restore puts back what was there before Install, byte for byte, whatever became of
// that; where nothing was installed it does nothing. A resolv.conf that others wrote
// since, with servers of theirs, stays, unless force is set.
func (h *Host) Restore(ctx context.Context, force bool) (Status, error) {
	unlock, err := h.lock(ctx)
	if err != nil {
		return Status{}, err
	}
	defer unlock()
	j, err := h.load(journalName)
	if err != nil {
		return Status{}, err
	}
	if j == nil {
		return h.status(nil), nil
	}
	notes, err := h.end(ctx, journalName, j, force || j.Phase == installing)
	if err != nil {
		return h.status(j), fmt.Errorf("%w\nnot everything is put back: mend that, then run `meibo resolv restore` again", err)
	}
	s := h.status(nil)
	s.Notes = append(s.Notes, notes...)
	return s, nil
}

// Keep makes good what others changed since Install, three times an hour at most,
// and returns an error beyond that; a change that was killed it takes back. It does
// nothing where meibo does not answer or nothing is installed.
func (h *Host) Keep(ctx context.Context) (Status, error) {
	unlock, err := h.lock(ctx)
	if err != nil {
		return Status{}, err
	}
	defer unlock()
	j, err := h.load(journalName)
	if err != nil || j == nil {
		return h.status(nil), err
	}
	taken := *h
	taken.Server = j.Server
	h = &taken
	if j.Phase != installed {
		_, err := h.end(ctx, journalName, j, j.Phase == installing)
		return h.status(nil), err
	}
	if h.state(j) == Installed {
		return h.status(j), nil
	}
	if j.Owner == DebianConf && !h.tree().exists("/run/resolvconf/interface/lo.meibo") {
		// It forgets at each boot, when the network may not be there yet to look for names.
		err := h.do(ctx, j)
		return h.status(j), err
	}
	if err := h.check(ctx, j.Name); err != nil {
		return h.status(j), fmt.Errorf("resolv.conf was overwritten and is left so, as meibo does not resolve names: %w", err)
	}
	return h.reassert(ctx, j, true)
}

// Status tells how the host resolves names. It changes nothing.
func (h *Host) Status() (Status, error) {
	j, err := h.load(journalName)
	if j != nil {
		taken := *h
		taken.Server = j.Server
		h = &taken
	}
	return h.status(j), err
}

// reassert makes the changes of a journal anew.
func (h *Host) reassert(ctx context.Context, j *journal, bounded bool) (Status, error) {
	now := time.Now().UTC().Truncate(time.Second)
	j.Reasserted = slices.DeleteFunc(j.Reasserted, func(at time.Time) bool { return now.Sub(at) >= reassertedWithin || at.After(now) })
	if bounded && len(j.Reasserted) >= maxReasserted {
		s := h.status(j)
		return s, fmt.Errorf("resolv.conf was overwritten %d times within an hour and is left as it is: %s", len(j.Reasserted)+1, s.Next)
	}
	if !bounded {
		j.Reasserted = nil
	} else {
		j.Reasserted = append(j.Reasserted, now)
	}
	// Whoever wrote it may have newer servers.
	if up, err := Find(Config{Root: h.Root, Elsewhere: []string{}, Self: h.self()}); err == nil && j.Only == "" {
		for i, s := range j.Steps {
			if c := upstreamText(up); s.Path == upstreamFile && !onlyHere(addrs(up.Servers)) {
				j.Steps[i].After.Data = []byte(c)
			}
		}
	}
	if err := h.save(journalName, j); err != nil {
		return h.status(j), err
	}
	err := h.do(ctx, j)
	if err == nil {
		err = h.checkChanged(ctx, j)
	}
	return h.status(j), err
}

func (h *Host) self() []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(h.server(), dnsPort)}
}

// check looks whether meibo resolves names.
func (h *Host) check(ctx context.Context, name string) error {
	if h.Check == nil {
		return nil
	}
	return h.Check(ctx, netip.AddrPortFrom(h.server(), dnsPort), name)
}

// checkChanged looks whether programs ask meibo now, and names resolve.
func (h *Host) checkChanged(ctx context.Context, j *journal) error {
	if h.Check == nil {
		return nil
	}
	deadline := time.Now().Add(settle)
	for {
		text, err := h.tree().follow(DefaultPath)
		if err == nil {
			servers := Parse(text).Servers
			switch {
			case len(servers) == 0:
				err = fmt.Errorf("%s names no server after the change", DefaultPath)
			case j.Only == "" && servers[0] != j.Server:
				err = fmt.Errorf("%s names %s first after the change, not %s", DefaultPath, servers[0], j.Server)
			default:
				err = h.Check(ctx, netip.AddrPortFrom(servers[0], dnsPort), j.Name)
			}
		}
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("names did not resolve after the change: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; before that: %w", context.Cause(ctx), err)
		case <-time.After(settleLook):
		}
	}
}

// plan says what is to be changed on this host.
func (h *Host) plan(o Options) (*journal, error) {
	t := h.tree()
	s, err := t.look()
	if err != nil {
		return nil, err
	}
	j := &journal{Owner: s.owner, Why: s.why, Via: s.via, Only: o.Only, Name: o.Name, Server: h.server()}
	if s.immutable {
		return nil, fmt.Errorf("%s is immutable: somebody wants it left alone. `chattr -i %[1]s`, then try again; nothing was changed", DefaultPath)
	}
	if o.Only != "" && s.owner != Resolved {
		return nil, fmt.Errorf("only systemd-resolved can ask meibo for %s alone, and %s is of %s (%s): leave -only out, and meibo forwards all other names", o.Only, DefaultPath, s.owner, s.why)
	}
	up, err := Find(Config{Root: h.Root, Self: h.self()})
	if err == nil && o.Only != "" && onlyHere(addrs(up.Servers)) {
		err = fmt.Errorf("%s names only servers on this host: %w", up.From, ErrNone)
	}
	switch {
	case err == nil:
	case h.Check == nil && h.Root == "":
		return nil, fmt.Errorf("nothing was changed: %w", err)
	case o.Only != "":
		return nil, fmt.Errorf("nothing was changed: names beyond %s would go round between systemd-resolved and meibo: %w", o.Only, err)
	default: // meibo resolves names, so it has upstreams of its own
		j.Notes = append(j.Notes, "no upstream server was found on this host, so meibo must name its own: recursors")
	}
	if up.Search == nil {
		up.Search, up.Options = s.file.Search, s.file.Options
	}
	p := planner{tree: t, j: j}
	p.file(upstreamFile, upstreamText(up))
	p.owner(s, o, j.Server)
	if o.Only == "" && s.owner != DebianConf && s.owner != OpenResolv {
		p.file(DefaultPath, fmt.Sprintf("# Written by meibo, which this host's programs ask. `meibo resolv restore` puts back what was here.\n%s",
			render([]netip.Addr{j.Server}, s.file.Search, s.file.Options)))
	}
	// It watches while there is something to keep.
	if t.exists("/usr/lib/systemd/system/" + keepUnit) {
		p.add(step{Do: []string{"systemctl", "start", keepUnit}, Undo: []string{"systemctl", "stop", keepUnit}, Optional: true}, nil)
	}
	return j, p.err
}

// planner gathers steps until the first error.
type planner struct {
	tree
	j   *journal
	err error
}

func (p *planner) add(s step, err error) {
	if p.err == nil {
		p.err = err
	}
	p.j.Steps = append(p.j.Steps, s)
}

func (p *planner) file(path, content string)  { p.add(p.fileStep(path, text(content))) }
func (p *planner) block(path, lines string)   { p.add(p.blockStep(path, lines, false)) }
func (p *planner) head(path, lines string)    { p.add(p.blockStep(path, lines, true)) }
func (p *planner) run(do ...string)           { p.add(step{Do: do, Undo: do}, nil) }
func (p *planner) note(text string, a ...any) { p.j.Notes = append(p.j.Notes, fmt.Sprintf(text, a...)) }

// owner tells the owner of resolv.conf that another writes it.
func (p *planner) owner(s sight, o Options, server netip.Addr) {
	if s.owner == Resolved || s.asksResolved {
		p.resolved(o, server)
	}
	switch s.owner {
	case NetworkManager:
		p.file("/etc/NetworkManager/conf.d/zz-meibo.conf", "# meibo writes /etc/resolv.conf: see `meibo resolv status`.\n[main]\ndns=none\nrc-manager=unmanaged\n")
		p.run("systemctl", "reload", "NetworkManager.service")
	case DebianConf:
		p.add(step{Do: []string{"resolvconf", "-a", "lo.meibo"}, Undo: []string{"resolvconf", "-d", "lo.meibo"}, Input: "nameserver " + server.String() + "\n"}, nil)
		if settings, _ := p.follow("/etc/default/resolvconf"); strings.Contains(settings, "\nTRUNCATE_NAMESERVER_LIST_AFTER_LOOPBACK_ADDRESS=no") {
			p.note("/etc/default/resolvconf has other servers follow meibo's (TRUNCATE_NAMESERVER_LIST_AFTER_LOOPBACK_ADDRESS=no): names of services fail whenever one of those is asked")
		}
	case OpenResolv:
		p.block(openResolvFile, "name_servers="+server.String()+"\n")
		p.run("resolvconf", "-u")
	case Dhclient:
		p.dhclient(server)
	case Dhcpcd:
		p.head(dhcpcdFile, "nohook resolv.conf\n") // what follows an interface is of that one alone
		p.add(step{Do: []string{"dhcpcd", "-n"}, Undo: []string{"dhcpcd", "-n"}, Optional: true}, nil)
		p.note("dhcpcd tells meibo of no new servers: after a change of network run `meibo resolv restore` and `meibo resolv install`, or name recursors")
	case CloudInit:
		if p.exists(cloudFolder) {
			p.file(cloudFolder+"/zz-meibo.cfg", "# meibo writes /etc/resolv.conf: see `meibo resolv status`.\nmanage_resolv_conf: false\n")
		}
	case Netconfig:
		p.block(netconfigFile, "NETCONFIG_DNS_POLICY=\"\"\n")
	case Container:
		p.note("the runtime writes %s anew when the container starts again: have it name %s (--dns)", DefaultPath, server)
	}
}

func (p *planner) resolved(o Options, server netip.Addr) {
	domains, stub := "~.", "DNSStubListener=no\n"
	if o.Only != "" {
		domains, stub = "~"+strings.Trim(o.Only, "."), ""
	}
	// The empty line takes back servers that other files name: names of services would be asked of those too.
	p.file("/etc/systemd/resolved.conf.d/zz-meibo.conf", fmt.Sprintf("# Of meibo: see `meibo resolv status`.\n[Resolve]\nDNS=\nDNS=%s\nDomains=%s\n%s", server, domains, stub))
	p.run("systemctl", "restart", "systemd-resolved.service")
	if p.namesServers("/etc/systemd/resolved.conf") {
		p.note("the servers of DNS= in resolved.conf are meibo's upstreams only while no link of this host has its own: name them in recursors")
	}
}

// namesServers reports whether a configuration of resolved, or a file of its
// folder, has servers for all links.
func (p *planner) namesServers(path string) bool {
	paths := []string{path}
	entries, _ := os.ReadDir(p.at(path + ".d"))
	for _, e := range entries {
		paths = append(paths, filepath.Join(path+".d", e.Name()))
	}
	return slices.ContainsFunc(paths, func(path string) bool {
		text, _ := p.follow(path)
		for line := range strings.Lines(text) {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), "DNS="); ok && value != "" {
				return true
			}
		}
		return false
	})
}

func (p *planner) dhclient(server netip.Addr) {
	if p.exists(dhclientHooks) {
		// Read by dhclient-script(8), which calls this function to write resolv.conf.
		p.file(dhclientHooks+"/meibo", `# Of meibo, which writes /etc/resolv.conf (see `+"`meibo resolv status`"+`): servers go to it in place of that file.
make_resolv_conf() {
	mkdir -p `+hookFolder+`
	for server in $new_domain_name_servers $new_dhcp6_name_servers; do
		echo "nameserver $server"
	done >`+hookFolder+`/."$interface${new_dhcp6_name_servers:+.6}" &&
		mv -f `+hookFolder+`/."$interface${new_dhcp6_name_servers:+.6}" `+hookFolder+`/"$interface${new_dhcp6_name_servers:+.6}"
}
`)
		return
	}
	path := "/etc/dhcp/dhclient.conf"
	if !p.exists(path) && p.exists("/etc/dhclient.conf") {
		path = "/etc/dhclient.conf"
	}
	p.block(path, "supersede domain-name-servers "+server.String()+";\n")
	p.note("dhclient tells meibo of no new servers: after a change of network run `meibo resolv restore` and `meibo resolv install`, or name recursors")
}

func addrs(servers []netip.AddrPort) (out []netip.Addr) {
	for _, s := range servers {
		out = append(out, s.Addr())
	}
	return out
}

// upstreamText is the file that names the true servers.
func upstreamText(up Upstreams) string {
	return "# The true name servers of this host, as meibo found them in " + up.From + ".\n" + render(addrs(up.Servers), up.Search, up.Options)
}

// render is the text of a resolv.conf.
func render(servers []netip.Addr, search, options []string) string {
	var b strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.String()
}

// state compares a host with what was written there.
func (h *Host) state(j *journal) State {
	switch {
	case j == nil:
		return Off
	case j.Phase != installed:
		return Unfinished
	}
	t := h.tree()
	for _, s := range j.Steps {
		if now := t.now(s); now != "" && now != asWritten {
			return Overwritten
		}
	}
	text, _ := t.follow(DefaultPath)
	servers := Parse(text).Servers
	programs := h.Root == "" || h.Run != nil
	if (len(servers) == 0 || servers[0] != j.Server) && j.Only == "" && (programs || j.Owner != DebianConf && j.Owner != OpenResolv) {
		return Overwritten
	}
	return Installed
}

const asWritten = "as written"

// now says what became of a step's file, "" of what needs no look.
func (t tree) now(s step) string {
	if s.Path == "" {
		return ""
	}
	c, err := t.read(s.Path)
	switch {
	case err != nil:
		return err.Error()
	case c.same(*s.After):
		return asWritten
	case s.Block && strings.Contains(string(c.Data), string(blockOf(s.After.Data))):
		return asWritten // and others changed something else in it
	case c.Kind == absent:
		return "gone"
	}
	return "changed by others"
}

// blockOf is our block in a text.
func blockOf(data []byte) []byte {
	begin, end := strings.Index(string(data), blockBegin), strings.Index(string(data), blockEnd)
	if begin < 0 || end < begin {
		return data
	}
	return data[begin : end+len(blockEnd)]
}

func (h *Host) status(j *journal) Status {
	t := h.tree()
	seen, err := t.look()
	s := Status{
		State: h.state(j), Owner: seen.owner, Why: seen.why, Via: seen.via, File: seen.describe(), Server: h.server(),
		Servers: seen.file.Servers, Search: seen.file.Search, Changes: []Change{}, Programs: []string{}, Reasserted: []time.Time{}, Notes: []string{},
	}
	if err != nil {
		s.Notes = append(s.Notes, err.Error())
	}
	up, err := Find(Config{Root: h.Root, Self: h.self()})
	if s.Upstreams, s.UpstreamsFrom = up.Servers, up.From; err != nil {
		s.Notes = append(s.Notes, err.Error())
	}
	if s.Servers == nil {
		s.Servers = []netip.Addr{}
	}
	if s.Search == nil {
		s.Search = []string{}
	}
	if s.Upstreams == nil {
		s.Upstreams = []netip.AddrPort{}
	}
	if j != nil {
		s.taken(t, j, seen)
	}
	if at := slices.Index(s.Servers, s.Server); s.Only == "" && at >= 0 && len(s.Servers) > 1 {
		s.Notes = append(s.Notes, fmt.Sprintf("%s names other servers beside %s: programs that ask all at once (musl), and any while meibo is slow, get those answers, and names of services fail", DefaultPath, s.Server))
	}
	if s.State == Off && seen.immutable {
		s.Notes = append(s.Notes, "it is immutable (chattr +i): `meibo resolv install` will leave it alone")
	}
	return s
}

// taken adds what a journal tells.
func (s *Status) taken(t tree, j *journal, seen sight) {
	s.Owner, s.Why, s.Via, s.Only, s.Server, s.Since = j.Owner, j.Why, j.Via, j.Only, j.Server, &j.Began
	for _, step := range j.Steps {
		if step.Path == "" {
			s.Programs = append(s.Programs, strings.Join(step.Do, " "))
			continue
		}
		c := Change{Path: step.Path, What: "made", Now: t.now(step)}
		if step.Block {
			c.What = "lines added"
		} else if step.Before.Kind != absent {
			c.What = "replaced"
		}
		s.Changes = append(s.Changes, c)
	}
	s.Reasserted = append(s.Reasserted, j.Reasserted...)
	s.Notes = append(s.Notes, j.Notes...)
	switch s.State {
	case Overwritten:
		s.Next = "find out who writes it"
		if seen.owner != j.Owner && seen.owner != Nobody {
			s.Next = fmt.Sprintf("%s is of %s now (%s)", DefaultPath, seen.owner, seen.why)
		}
		s.Next += "; `meibo resolv install` takes it over anew, `meibo resolv restore` ends it"
	case Unfinished:
		s.Next = "`meibo resolv restore` takes back what was begun"
	}
}

// describe says what /etc/resolv.conf is.
func (s *sight) describe() string {
	what := map[string]string{absent: "missing", regular: "a file", link: "a link to " + s.content.Target}[s.content.Kind]
	if s.mounted {
		what = "a mounted file"
	}
	if s.immutable {
		what += ", immutable"
	}
	return what
}

// Publish writes the true servers as a resolv.conf to path, for programs such as
// kubelet that must not be told of meibo's own address; servers that only this host
// reaches, and ports that the form has no room for, are left out. Without any server
// the file stays as it was.
func Publish(path string, up Upstreams) error {
	servers := slices.DeleteFunc(slices.Clone(up.Servers), func(s netip.AddrPort) bool {
		return s.Port() != dnsPort || s.Addr().IsLoopback() || s.Addr().IsUnspecified()
	})
	if len(servers) == 0 {
		return nil
	}
	t, want := tree{}, text("# The name servers that meibo forwards to.\n"+render(addrs(servers), up.Search, up.Options))
	if now, err := t.read(path); err == nil && now.same(want) {
		return nil
	}
	return t.put(path, want)
}
