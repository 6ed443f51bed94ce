// Package doctor examines a host that resolves names by meibo, or is about to: what stands in
// the way, and what mends it. It changes nothing, asks nobody but the name servers, the daemon
// and the members of its cluster, ends within seconds, and tells no secret.
//
// Each check is a function from a host to findings. Files are looked at below a root; sockets,
// processes, servers, the clock and the daemon are those of this machine.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"meibo/cluster/httpapi/client"
	"meibo/cmd/meibo/config"
	"meibo/resolver/resolvconf"
)

// Status is how bad a finding is.
type Status string

// How bad: Unknown is what could not be looked at, and makes nothing worse.
const (
	OK       Status = "ok"
	Unknown  Status = "unknown"
	Warning  Status = "warning"
	Critical Status = "critical"
)

// Finding is what a check saw of one thing, and what to do about it.
type Finding struct {
	Check  string
	Status Status
	What   string
	Mend   string `json:",omitempty"`
}

// Agent is the daemon of this host, as its API answers.
type Agent interface {
	Self(ctx context.Context) (*client.Self, error)
	Standing(ctx context.Context, filter string) (*client.Standing, error)
}

// Host is what is examined. The zero value is this machine, as the package installs meibo.
type Host struct {
	// Root stands for "/", links included; "" is this machine.
	Root string
	// FilesOnly leaves out what runs: Root is another machine's.
	FilesOnly bool
	// Server is where programs ask meibo, on port 53; zero: 127.0.0.1.
	Server netip.Addr
	// Config are files and folders of the configuration, below Root; nil: those that the
	// daemon read, or else /etc/meibo.d if it is there.
	Config []string
	// Agent is asked about the daemon and its cluster; nil: neither is looked at.
	Agent Agent

	clock func() (clock, error) // nil: the kernel's
}

const (
	defaultConfig = "/etc/meibo.d"
	// within bounds an examination, patience one answer of anybody.
	within   = 15 * time.Second
	patience = 2 * time.Second
)

// checks, in the order in which they are told.
var checks = []struct {
	name  string
	live  bool // it looks at what runs
	check func(context.Context, *exam) []Finding
}{
	{"configuration", false, configuration},
	{"permissions", false, permissions},
	{"unit", false, units},
	{"agent", true, agent},
	{"port", true, ports},
	{"resolv.conf", false, resolvConf},
	{"nsswitch", false, nsswitch},
	{"upstreams", true, upstreams},
	{"docker", false, docker},
	{"kubelet", false, kubelet},
	{"clock", true, clockIsSet},
	{"disk", true, disk},
	{"cluster", true, cluster},
	{"reachable", true, reachable},
	{"versions", true, versions},
}

// exam is what several checks look at, looked at once.
type exam struct {
	*Host
	paths    []string // of the configuration
	config   *config.Config
	warnings []config.Warning
	faults   error // of the configuration
	resolv   resolvconf.Status
	file     resolvconf.File // resolv.conf
	fileErr  error           // why it can't be read
	self     *client.Self    // nil: the daemon does not answer
	selfErr  error
	standing *client.Standing // nil: it does not tell
}

// Examine looks at a host: findings in the order of the checks, at least one of each that was
// made.
func Examine(ctx context.Context, h *Host) []Finding {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	e := h.begin(ctx)
	found := make([][]Finding, len(checks))
	var all sync.WaitGroup
	for i, c := range checks {
		if c.live && h.FilesOnly {
			continue
		}
		all.Go(func() {
			found[i] = c.check(ctx, e)
			for j := range found[i] {
				found[i][j].Check = c.name
			}
		})
	}
	all.Wait()
	return slices.Concat(found...)
}

// Worst is the gravest status of findings: OK, Warning or Critical.
func Worst(findings []Finding) Status {
	for _, s := range []Status{Critical, Warning} {
		if slices.ContainsFunc(findings, func(f Finding) bool { return f.Status == s }) {
			return s
		}
	}
	return OK
}

// begin looks at what several checks need.
func (h *Host) begin(ctx context.Context) *exam {
	e := &exam{Host: h}
	if !h.Server.IsValid() {
		copied := *h
		copied.Server = resolvconf.DefaultServer
		e.Host = &copied
	}
	if h.Agent != nil && !h.FilesOnly {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if e.self, e.selfErr = h.Agent.Self(ctx); e.selfErr != nil {
			e.self = nil
		} else if e.self.IsMeibo() {
			e.standing, _ = h.Agent.Standing(ctx, "")
		}
	}
	e.load()
	host := resolvconf.Host{Root: h.Root, Server: e.Server}
	var err error
	if e.resolv, err = host.Status(); err != nil { // its journal is damaged, which it says
		e.resolv.Notes = append(e.resolv.Notes, err.Error())
	}
	text, err := e.read(resolvconf.DefaultPath)
	e.file, e.fileErr = resolvconf.Parse(text), err
	return e
}

// load reads the configuration.
func (e *exam) load() {
	e.paths = e.Config
	if e.paths == nil && e.self != nil && e.Root == "" {
		files, _ := e.self.DebugConfig["ConfigFiles"].([]any)
		for _, f := range files {
			if path, ok := f.(string); ok && filepath.IsAbs(path) {
				e.paths = append(e.paths, path)
			}
		}
	}
	if e.paths == nil && e.exists(defaultConfig) {
		e.paths = []string{defaultConfig}
	}
	if e.paths == nil {
		return
	}
	src := config.Sources{Partial: true, Look: e.Root == "" && !e.FilesOnly}
	for _, p := range e.paths {
		src.Paths = append(src.Paths, e.at(p))
	}
	if e.faults = mayRead(src.Paths); e.faults != nil {
		return
	}
	e.config, e.warnings, e.faults = config.Load(src)
	if e.faults != nil {
		e.config = nil
	}
}

// mayRead is the first file of a configuration that this user may not read: no fault of the configuration.
func mayRead(paths []string) error {
	const read = 4
	for _, path := range paths {
		files := []string{path}
		for _, kind := range []string{"*.hcl", "*.json"} {
			found, _ := filepath.Glob(filepath.Join(path, kind))
			files = append(files, found...)
		}
		for _, f := range files {
			if err := syscall.Access(f, read); errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("read %s: %w", f, err)
			}
		}
	}
	return nil
}

// at is where a path of the host is on this machine.
func (e *exam) at(path string) string {
	if e.Root == "" {
		return path
	}
	for range 40 { // a link leads nowhere outside of the root
		at := filepath.Join(e.Root, path)
		to, err := os.Readlink(at)
		if err != nil {
			return at
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = filepath.Clean("/" + to)
	}
	return filepath.Join(e.Root, path)
}

func (e *exam) exists(path string) bool {
	_, err := os.Stat(e.at(path))
	return err == nil
}

// anyOf reports whether one of the paths is there.
func (e *exam) anyOf(paths ...string) bool { return slices.ContainsFunc(paths, e.exists) }

// read returns the text of a file, of which no more than maxFile octets count.
func (e *exam) read(path string) (string, error) {
	const maxFile = 1 << 20
	at := e.at(path)
	info, err := os.Stat(at)
	switch {
	case err != nil:
		return "", fmt.Errorf("read %s: %w", path, errors.Unwrap(err))
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return "", fmt.Errorf("read %s: it is not a file of at most %d octets", path, maxFile)
	}
	text, err := os.ReadFile(at)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, errors.Unwrap(err))
	}
	return string(text), nil
}

// daemon names what runs meibo here, to start it.
func (e *exam) daemon() string {
	if e.installed(serviceUnit) {
		return "`systemctl start meibo`; `journalctl -u meibo` says why it ended"
	}
	return "`meibo agent -config-dir " + defaultConfig + "`"
}

func ok(format string, args ...any) Finding {
	return Finding{Status: OK, What: fmt.Sprintf(format, args...)}
}

func unknown(what, mend string) Finding { return Finding{Status: Unknown, What: what, Mend: mend} }

func warning(what, mend string) Finding { return Finding{Status: Warning, What: what, Mend: mend} }

func critical(what, mend string) Finding { return Finding{Status: Critical, What: what, Mend: mend} }

// orOK are the findings, or where there are none that all is well.
func orOK(findings []Finding, format string, args ...any) []Finding {
	if len(findings) == 0 {
		return []Finding{ok(format, args...)}
	}
	return findings
}

// notAllowed is what only root could look at, if that is why it failed.
func notAllowed(what string, err error) (Finding, bool) {
	if !errors.Is(err, fs.ErrPermission) {
		return Finding{}, false
	}
	return unknown(what+" can't be looked at by this user", "run `meibo doctor` as root"), true
}

// joined lists what has a text.
func joined[T fmt.Stringer](list []T) string {
	words := make([]string, len(list))
	for i, x := range list {
		words[i] = x.String()
	}
	return strings.Join(words, ", ")
}
