// Package local answers what this host knows by itself: names and addresses of
// hosts files and of the configuration (Hosts), and the special names that must
// not leave the host or have one fixed meaning (Special).
//
// Hosts answers by whole name, before every zone and route. It holds all names
// in one immutable set that is replaced when a file changes. A name it has is
// its own with all types, unless TypeTransparent leaves those it lacks to zones and
// routes: such a type is NODATA, never NXDOMAIN, because some stub resolvers (musl)
// fail the whole lookup when AAAA is denied while A exists. A static CNAME leads on to wherever its target is known. Below it, whole
// domains can be given fixed addresses, or none but the names it has (Fixed).
//
// Every answer depends on a counter that moves when the set is replaced, so no
// cached answer is served late. Names that come or go are told to a callback,
// since answers for them may be cached from elsewhere.
//
// The package must not know the catalog, upstreams or sockets.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"meibo/cache"
	"meibo/resolver"
	"meibo/resolver/filewatch"
	"meibo/resolver/wire"
)

const (
	// DefaultHostsFile is the file that is read when none is named.
	DefaultHostsFile = "/etc/hosts"
	// DefaultHostsTTL is short because the file may change at any time, and
	// not 0 because then every client would ask for every connection.
	DefaultHostsTTL = 10 * time.Second
	// maxHostsFile bounds the memory that one file can take.
	maxHostsFile = 256 << 20
	maxTTL       = time.Duration(1<<31-1) * time.Second // RFC 2181 section 8
)

// HostsConfig says what Hosts reads. The zero value reads /etc/hosts.
type HostsConfig struct {
	// Files are read in order, a directory as the files in it; of an address in
	// several the first name is its PTR. Nil means /etc/hosts, an empty list none.
	Files []string
	// Domain is appended to names of files that have no dot; these are known by both
	// then. Empty: they stay as they are.
	Domain wire.Name
	// Fixed are domains that are never asked of anybody.
	Fixed []Fixed
	// Records are static records, "NAME [TTL] TYPE DATA" each. They stand
	// beside the addresses of the files.
	Records []string
	// TypeTransparent leaves types that a name has none of to zones and routes.
	TypeTransparent bool
	// TTL of every answer in whole seconds; 0 means DefaultHostsTTL.
	TTL time.Duration
	// Changed is called after each change with the names that came, went or
	// have other addresses, PTR names included, in lower case. It may be nil.
	Changed func([]wire.Name)
	// Logger may be nil.
	Logger *slog.Logger
}

// Hosts is the zone of hosts files and static records. It is safe for
// concurrent use.
type Hosts struct {
	changed func([]wire.Name)
	logger  *slog.Logger

	set     atomic.Pointer[hostSet]
	counter atomic.Uint64 // moves after set

	mu     sync.Mutex        // guards following, and one reload at a time
	source hostsSource       // swapped whole
	read   []string          // the files, those of directories one by one, as last read
	stamps []stamp           // of these
	faults map[string]string // complaint last logged of each file

	reloads  atomic.Uint64
	badLines atomic.Int64
}

// hostsSource is where a set comes from.
type hostsSource struct {
	files   []string
	records map[string][]wire.RR // by lower-cased name in wire form
	ttl     uint32
	domain  string // of names without a dot, with the dot between them
	fixed   []Fixed
	// typeTransparent is HostsConfig's
	typeTransparent bool
}

// source checks the configuration and fills in its defaults.
func (c HostsConfig) source() (hostsSource, error) {
	if c.Files == nil {
		c.Files = []string{DefaultHostsFile}
	}
	if c.TTL == 0 {
		c.TTL = DefaultHostsTTL
	}
	if c.TTL < 0 || c.TTL > maxTTL {
		return hostsSource{}, fmt.Errorf("hosts: ttl is %v: a TTL is 0 to %v", c.TTL, maxTTL)
	}
	s := hostsSource{files: c.Files, ttl: uint32(c.TTL / time.Second), typeTransparent: c.TypeTransparent}
	if c.Domain != "" && c.Domain != wire.Root {
		s.domain = "." + c.Domain.String()
	}
	var err error
	if s.fixed, err = checkFixed(c.Fixed); err != nil {
		return s, err
	}
	s.records, err = parseRecords(c.Records, s.ttl)
	return s, err
}

// NewHosts checks the configuration and reads the files. A file that is not
// there or cannot be read is logged and counts as empty.
func NewHosts(c HostsConfig) (*Hosts, error) {
	h := &Hosts{changed: c.Changed, logger: c.Logger, faults: make(map[string]string)}
	if h.logger == nil {
		h.logger = slog.New(slog.DiscardHandler)
	}
	h.set.Store(newHostSet(0))
	if err := h.SetConfig(c); err != nil {
		return nil, err
	}
	return h, nil
}

// SetConfig takes c for all answers from now on, cached ones included; Changed and
// Logger stay as they were, and Mounts may be others. A file that is not
// there or cannot be read is logged and counts as empty. A Run under way follows
// the files it began with: start it anew. On an error nothing is changed.
func (h *Hosts) SetConfig(c HostsConfig) error {
	source, err := c.source()
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.source = source
	texts, _ := h.readLocked() // said in the log; what could be read counts
	h.rebuildLocked(texts)
	return nil
}

// Reload reads all files anew and takes over what they say. A file that isn't
// there counts as empty; when one cannot be read for another reason nothing
// changes, and the error names it.
func (h *Hosts) Reload() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reloadLocked()
}

func (h *Hosts) reloadLocked() error {
	texts, err := h.readLocked()
	if err == nil {
		h.rebuildLocked(texts)
	}
	return err
}

// readLocked reads the files. The text of one that cannot be read is empty; one
// that isn't there is no error.
func (h *Hosts) readLocked() (texts []string, err error) {
	h.read = withoutDirs(h.source.files)
	h.stamps = stampAll(h.read)
	texts = make([]string, len(h.read))
	var errs []error
	for i, file := range h.read {
		if texts[i], err = readHosts(file); err != nil {
			h.complain(file, err.Error())
			if !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return texts, errors.Join(errs...)
}

// rebuildLocked makes a set of the files' texts and the records, and publishes it.
func (h *Hosts) rebuildLocked(texts []string) {
	size := 0
	for _, text := range texts {
		size += len(text)
	}
	set := newHostSet(size)
	set.records, set.ttl, set.domain, set.fixed = h.source.records, h.source.ttl, h.source.domain, h.source.fixed
	set.typeTransparent = h.source.typeTransparent
	bad := 0
	for i, text := range texts {
		bad += h.parseFile(set, h.read[i], text)
	}
	set.findParents()
	h.badLines.Store(int64(bad))
	h.publish(set)
}

// parseFile adds a file's lines to the set and says once what is wrong with which of them.
func (h *Hosts) parseFile(set *hostSet, file, text string) (bad int) {
	faults, bad := set.parse(text)
	if bad == 0 {
		if text != "" {
			delete(h.faults, file)
		}
		return 0
	}
	var said []string
	for _, f := range faults {
		said = append(said, fmt.Sprintf("%s:%d: %s", file, f.line, f.reason))
	}
	if more := bad - len(faults); more > 0 {
		said = append(said, fmt.Sprintf("%s: %d more bad lines", file, more))
	}
	h.complain(file, said...)
	return bad
}

// complain logs faults of a file unless they are those logged last.
func (h *Hosts) complain(file string, faults ...string) {
	all := strings.Join(faults, "\n")
	if h.faults[file] == all {
		return
	}
	h.faults[file] = all
	for _, fault := range faults {
		h.logger.Warn("hosts file has a fault", "file", file, "err", fault)
	}
}

// publish replaces the set, moves the counter and tells which names changed.
func (h *Hosts) publish(set *hostSet) {
	old := h.set.Swap(set)
	h.counter.Add(1)
	h.reloads.Add(1)
	if h.changed == nil {
		return
	}
	if names := old.diff(set); len(names) > 0 {
		h.changed(names)
	}
}

// readHosts reads a file as one string.
func readHosts(file string) (string, error) {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return "", fmt.Errorf("read hosts file: %w", err)
	case !info.Mode().IsRegular(): // to open a pipe is to wait for its writer
		return "", fmt.Errorf("read hosts file %s: it is not a regular file", file)
	case info.Size() > maxHostsFile:
		return "", fmt.Errorf("read hosts file %s: it has %d octets, at most %d are read", file, info.Size(), maxHostsFile)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("read hosts file: %w", err)
	}
	defer f.Close()
	var b strings.Builder
	b.Grow(int(info.Size()) + 1)
	if _, err := io.Copy(&b, io.LimitReader(f, maxHostsFile)); err != nil {
		return "", fmt.Errorf("read hosts file: %w", err)
	}
	return b.String(), nil
}

// Run reads the files anew whenever they change, until ctx ends.
func (h *Hosts) Run(ctx context.Context) error {
	h.mu.Lock()
	files := h.source.files
	h.mu.Unlock()
	filewatch.Run(ctx, filewatch.Config{What: "hosts files", Files: files, Logger: h.logger, Changed: func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if equalStamps(h.stamps, stampAll(withoutDirs(h.source.files))) {
			return
		}
		if err := h.reloadLocked(); err != nil {
			h.logger.Warn("hosts files kept as they were", "err", err)
		}
	}})
	return nil
}

// Len returns how many names there are.
func (h *Hosts) Len() int { return len(h.set.Load().names) }

// Answer implements resolver.Zone.
func (h *Hosts) Answer(q *wire.Query) (resolver.Result, resolver.Outcome) {
	return h.answer(q, func(set *hostSet) said { return set.reply(q) })
}

// said is what a set has for a question.
type said struct {
	reply  *wire.Reply // nil: nothing
	alias  wire.Name   // where the reply leads to
	exists bool        // without a reply: the name is there
	// watched: without a reply, what others answer counts until the set is replaced.
	// Names that come, go or change are told to a callback in any case.
	watched bool
}

// answer builds an answer from one set. Where an alias leads on, it is Later's.
func (h *Hosts) answer(q *wire.Query, ask func(*hostSet) said) (resolver.Result, resolver.Outcome) {
	for {
		set := h.set.Load()
		dep := cache.Dep{Counter: &h.counter, Value: h.counter.Load()}
		if h.set.Load() != set {
			continue
		}
		s := ask(set)
		if s.reply == nil {
			passed := resolver.Result{Exists: s.exists}
			if s.watched {
				passed.Deps[0] = dep
			}
			return passed, resolver.NotMine
		}
		answer, err := wire.Pack(q, s.reply)
		if err != nil {
			h.logger.Error("answer cannot be packed", "qname", wire.Name(q.Name()).String(), "err", err)
			return resolver.Result{}, resolver.NotMine
		}
		outcome := resolver.Answered
		if s.alias != "" {
			outcome = resolver.Later
		}
		return resolver.Result{Answer: answer, Alias: s.alias, Deps: [2]cache.Dep{dep}, Source: "hosts"}, outcome
	}
}

// Resolve implements resolver.Zone. What is late is an alias, which the resolver
// follows.
func (h *Hosts) Resolve(_ context.Context, q *wire.Query) (resolver.Result, error) {
	result, outcome := h.Answer(q)
	if outcome == resolver.NotMine {
		return result, resolver.ErrNotMine
	}
	return result, nil
}

// reply says what the set has for a question.
func (s *hostSet) reply(q *wire.Query) said {
	name := wire.Name(q.Name())
	rrs := s.records[string(q.Name())]
	at, isHost := s.names[string(q.Name())]
	if len(rrs) > 0 || isHost {
		return s.ofName(q, at, rrs)
	}
	addr, ok := wire.ReverseAddr(name)
	if !ok {
		return said{}
	}
	target, ok := s.ptrs[addr]
	if !ok {
		return said{}
	}
	if q.Type != wire.TypePTR && q.Type != wire.TypeANY {
		return s.lacks(name)
	}
	return said{reply: &wire.Reply{AA: true, RRs: []wire.RR{{Owner: name, Type: wire.TypePTR, TTL: s.ttl, Data: wire.NameData(target)}}}}
}

// ofName answers for a name that has addresses in files (at is not 0), static
// records, or both. An alias counts where nothing else is there.
func (s *hostSet) ofName(q *wire.Query, at uint32, rrs []wire.RR) said {
	name := wire.Name(q.Name())
	reply := &wire.Reply{AA: true}
	for _, rr := range rrs {
		if q.Type == rr.Type || q.Type == wire.TypeANY {
			reply.RRs = append(reply.RRs, rr)
		}
	}
	for addr := range s.addrs(at) {
		typ := wire.AddrType(addr)
		if q.Type == typ || q.Type == wire.TypeANY {
			reply.RRs = append(reply.RRs, wire.RR{Owner: name, Type: typ, TTL: s.ttl, Data: wire.A(addr)})
		}
	}
	switch {
	case len(reply.RRs) > 0:
		return said{reply: reply}
	case at == 0 && rrs[0].Type == wire.TypeCNAME: // alone, as parseRecords has seen to
		reply.RRs = rrs
		return said{reply: reply, alias: wire.Name(rrs[0].Data).Lower()}
	}
	return s.lacks(name)
}

// lacks says that a name of ours hasn't the type, or leaves that to others. The name
// is a zone of its own, so the SOA is its (RFC 2308 section 3).
func (s *hostSet) lacks(name wire.Name) said {
	if s.typeTransparent {
		return said{exists: true}
	}
	return said{reply: &wire.Reply{AA: true, RRs: []wire.RR{soa(wire.Authority, name, s.ttl)}}}
}

// soa is the SOA record of a zone made up here, in the form of RFC 6303
// section 3.
func soa(section wire.Section, zone wire.Name, ttl uint32) wire.RR {
	const nobody = wire.Name("\x06nobody\x07invalid\x00")
	return wire.RR{
		Section: section, Owner: zone, Type: wire.TypeSOA, TTL: ttl,
		Data: wire.SOA(zone, nobody, 1, 3600, 1200, 604800, ttl),
	}
}

// addrOf is a netip.Addr for the set's compact form.
func addrOf(a [16]byte, is4 bool) netip.Addr {
	addr := netip.AddrFrom16(a)
	if is4 {
		return addr.Unmap()
	}
	return addr
}
