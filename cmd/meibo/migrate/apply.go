package migrate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"meibo/cmd/meibo/config"
)

const (
	meiboService = "meibo.service"
	meiboSocket  = "meibo.socket"
	// recordFile is what a host was like before; it may hold secrets, so only root reads it.
	recordFile = "/var/backups/meibo-migrate.json"
	// drain is how long dnsmasq has for the answers that it waits for itself, once it hears no more questions.
	drain = 500 * time.Millisecond
	// unitTime bounds how long systemd may take for a unit that is started or stopped.
	unitTime = 30 * time.Second
	// checkTime bounds how long names may take to be answered by meibo as they were before.
	checkTime = 5 * time.Second
)

// ErrDone says that there is nothing to undo.
var ErrDone = errors.New("nothing to take back: " + recordFile + " is not there")

// Result is what Apply did.
type Result struct {
	Names   []string // that are answered as before
	Silent  []string // that weren't answered before, and don't count
	Held    int      // queries that came meanwhile, and
	Relayed int      // were answered then
}

// record is what a host was like.
type record struct {
	Files []recordedFile
	Units []recordedUnit
	// Switched: what starts at boot was changed, or is being changed; half of that doesn't show in what systemctl says.
	Switched bool
}

type recordedFile struct {
	Path     string
	There    bool
	Data     []byte
	Mode     fs.FileMode
	UID, GID int
}

type recordedUnit struct {
	Name    string
	Enabled string // as systemctl is-enabled says it
	Active  bool
}

// Apply carries the plan out on this host, or leaves the host as it was; say hears each step. When ctx is done, it goes back too.
func (p *Plan) Apply(ctx context.Context, say func(format string, args ...any)) (*Result, error) {
	before, res, err := p.ready(ctx)
	if err != nil {
		return nil, err
	}
	rec, err := p.record(ctx)
	if err != nil {
		return nil, err
	}
	m := &move{plan: p, say: say, rec: rec}
	err = m.there(ctx, before)
	if err != nil {
		say("going back: %v", err)
		back := m.back(context.WithoutCancel(ctx))
		m.finish(res)
		if back != nil {
			return nil, fmt.Errorf("%w\nand not everything could be put back: %w\n%s has what there was; `meibo migrate -undo` tries again", err, back, recordFile)
		}
		return nil, fmt.Errorf("%w\neverything is as it was before", err)
	}
	m.finish(res)
	if p.isAsked && !p.asked() { // dnsmasq's unit takes itself out of resolvconf's list as it stops
		say("note: /etc/resolv.conf does not name meibo's address any more, which was dnsmasq's: `meibo resolv install` has this host's programs ask it")
	}
	return res, nil
}

// ready checks what can be known before anything is touched, and asks the names.
func (p *Plan) ready(ctx context.Context) ([]known, *Result, error) {
	switch {
	case len(p.Refused) > 0:
		return nil, nil, errors.New(strings.Join(p.Refused, "\n"))
	case p.root != "":
		return nil, nil, errors.New("a host whose files are elsewhere (-root) can be looked at, and not changed")
	case os.Geteuid() != 0:
		return nil, nil, errors.New("only root can do this: run it with sudo")
	case unit("", meiboService) == "" || unit("", meiboSocket) == "":
		return nil, nil, errors.New("the units meibo.service and meibo.socket are not there: install meibo's package first")
	case exists("", recordFile):
		return nil, nil, fmt.Errorf("%s is there: a migration was carried out, or begun; take it back first with `meibo migrate -undo`, or remove the file to keep what is", recordFile)
	}
	if state := systemctlSays(ctx, "is-active", "dnsmasq.service"); state != "active" {
		return nil, nil, fmt.Errorf("dnsmasq.service is %s: there is nothing running to take over, and nothing to compare names with; start it first", state)
	}
	if err := p.validate(); err != nil {
		return nil, nil, err
	}
	res := &Result{}
	var before []known
	for _, q := range p.names {
		a, err := ask(ctx, server(p.listen[0]), q)
		switch {
		case err == nil && a.hasData():
			before = append(before, known{q, a})
			res.Names = append(res.Names, q.String())
		case q.asked:
			return nil, nil, fmt.Errorf("dnsmasq does not answer %s (%s, %w), which -name says must be answered", q, a, errors.Join(err))
		default:
			res.Silent = append(res.Silent, q.String())
		}
	}
	if len(before) == 0 {
		return nil, nil, errors.New("dnsmasq answers none of the names that its configuration shows, so that nothing could be compared: name one that it answers with -name")
	}
	return before, res, nil
}

// validate has the daemon's files, those that are there and those that come, looked at as they would be together.
func (p *Plan) validate() error {
	dir, err := os.MkdirTemp("", "meibo-migrate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	entries, err := os.ReadDir(folder)
	if err != nil && !notThere(err) {
		return err
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || !info.Mode().IsRegular() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, e.Name()), data, 0o600); err != nil {
			return err
		}
	}
	for _, f := range p.Files {
		if filepath.Dir(f.Path) == folder {
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.Path)), f.New, 0o600); err != nil {
				return err
			}
		}
	}
	if _, _, err := config.Load(config.Sources{Paths: []string{dir}, Registered: anyService}); err != nil {
		return fmt.Errorf("%s would not be valid with what was made; nothing was changed:\n%s", folder, strings.ReplaceAll(err.Error(), dir, folder))
	}
	return nil
}

// record writes down what the host is like.
func (p *Plan) record(ctx context.Context) (*record, error) {
	rec := &record{}
	for _, f := range p.Files {
		r := recordedFile{Path: f.Path}
		info, err := os.Lstat(f.Path)
		switch {
		case notThere(err):
		case err != nil:
			return nil, err
		case !info.Mode().IsRegular():
			return nil, fmt.Errorf("%s is no regular file, and could not be put back as it is: move it away first", f.Path)
		default:
			if r.Data, err = os.ReadFile(f.Path); err != nil {
				return nil, err
			}
			r.There, r.Mode = true, info.Mode().Perm()
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				r.UID, r.GID = int(st.Uid), int(st.Gid)
			}
		}
		rec.Files = append(rec.Files, r)
	}
	for _, name := range append([]string{meiboSocket, meiboService}, p.Stop...) {
		rec.Units = append(rec.Units, recordedUnit{
			Name: name, Enabled: systemctlSays(ctx, "is-enabled", name), Active: systemctlSays(ctx, "is-active", name) == "active",
		})
	}
	if err := os.MkdirAll(filepath.Dir(recordFile), 0o755); err != nil {
		return nil, err
	}
	return rec, rec.save()
}

func (rec *record) save() error {
	text, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	return write(recordFile, append(text, '\n'), 0o600, 0, 0)
}

// write replaces a file at once.
func write(path string, data []byte, mode fs.FileMode, uid, gid int) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Chown(uid, gid), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// move is a host on its way.
type move struct {
	plan *Plan
	say  func(format string, args ...any)
	rec  *record
	hold *hold

	releasing     sync.WaitGroup
	mu            sync.Mutex // guards following
	held, relayed int
}

// there takes the host to meibo.
func (m *move) there(ctx context.Context, before []known) error {
	p := m.plan
	if err := systemctl(ctx, "stop", meiboService, meiboSocket); err != nil { // it may be beside dnsmasq, or waiting for its port
		return err
	}
	_ = systemctl(ctx, "reset-failed", meiboService, meiboSocket) // there may be nothing to reset
	for _, f := range p.Files {
		if err := p.put(f); err != nil {
			return err
		}
		m.say("wrote %s", f.Path)
	}
	if err := systemctl(ctx, "daemon-reload"); err != nil {
		return err
	}
	m.take(ctx)
	for _, name := range p.Stop {
		if err := systemctl(ctx, "stop", name); err != nil {
			return err
		}
		m.say("stopped %s", name)
	}
	if err := systemctl(ctx, "start", meiboSocket); err != nil {
		return err
	}
	m.hold.again(ctx, p.listen) // what waits in the unit's sockets is lost if meibo doesn't start
	if err := systemctl(ctx, "start", meiboService); err != nil {
		return fmt.Errorf("%w\n%s", err, lastWords(ctx))
	}
	m.say("started meibo")
	m.letGo()
	if err := p.check(ctx, before); err != nil {
		return err
	}
	m.rec.Switched = true
	if err := m.rec.save(); err != nil {
		return err
	}
	for _, name := range p.Stop {
		if err := systemctl(ctx, "disable", name); err != nil {
			return err
		}
	}
	if err := systemctl(ctx, "enable", meiboSocket, meiboService); err != nil {
		return err
	}
	return ctx.Err()
}

// put writes a file of the plan. The daemon's user reads those with secrets.
func (p *Plan) put(f File) error {
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	gid := 0
	if f.secret != nil {
		g, err := user.LookupGroup("meibo")
		if err != nil {
			return fmt.Errorf("%s holds secrets, and there is no group meibo for the daemon to read it by: %w", f.Path, err)
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return err
		}
	}
	return write(f.Path, f.New, f.Mode, 0, gid)
}

// check asks the names again, until all are answered as before, or time is up.
func (p *Plan) check(ctx context.Context, before []known) error {
	at := server(p.listen[0])
	deadline := time.Now().Add(checkTime)
	for {
		var wrong []string
		for _, k := range before {
			if text := k.differs(ask(ctx, at, k.question)); text != "" {
				wrong = append(wrong, text)
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case len(wrong) == 0:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("names are not answered as they were:\n  %s", strings.Join(wrong, "\n  "))
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// take has queries wait, once the server that is there now has answered what it heard.
func (m *move) take(ctx context.Context) {
	m.releasing.Wait()
	m.hold = holdAll(ctx, m.plan.listen)
	select {
	case <-ctx.Done():
	case <-time.After(drain):
	}
}

// letGo gives those that waited to the server that is there now.
func (m *move) letGo() {
	if m.hold == nil {
		return
	}
	h := m.hold
	m.hold = nil
	m.releasing.Go(func() {
		relayed, held := h.release()
		m.mu.Lock()
		defer m.mu.Unlock()
		m.relayed += relayed
		m.held += held
	})
}

// finish waits for the last of those that waited.
func (m *move) finish(res *Result) {
	m.letGo()
	m.releasing.Wait()
	res.Held, res.Relayed = m.held, m.relayed
}

// back puts everything where it was; it goes on after what fails.
func (m *move) back(ctx context.Context) error {
	if m.hold == nil {
		m.take(ctx)
	}
	err := m.rec.restore(ctx)
	m.letGo()
	if err == nil {
		err = os.Remove(recordFile)
	}
	return err
}

// restore makes files and units as they were.
func (rec *record) restore(ctx context.Context) error {
	errs := []error{systemctl(ctx, "stop", meiboService, meiboSocket)}
	_ = systemctl(ctx, "reset-failed", meiboService, meiboSocket) // there may be nothing to reset
	for _, f := range rec.Files {
		if f.There {
			errs = append(errs, write(f.Path, f.Data, f.Mode, f.UID, f.GID))
			continue
		}
		if err := os.Remove(f.Path); err != nil && !notThere(err) {
			errs = append(errs, err)
		}
		if f.Path == socketFile {
			_ = os.Remove(filepath.Dir(f.Path)) // unless there are others in it
		}
	}
	errs = append(errs, systemctl(ctx, "daemon-reload"))
	for _, u := range rec.Units {
		if !rec.Switched && systemctlSays(ctx, "is-enabled", u.Name) == u.Enabled {
			continue
		}
		switch u.Enabled {
		case "enabled":
			errs = append(errs, systemctl(ctx, "enable", u.Name))
		case "disabled":
			errs = append(errs, systemctl(ctx, "disable", u.Name))
		}
	}
	for _, u := range slices.Backward(rec.Units) { // dnsmasq first
		if u.Active {
			errs = append(errs, systemctl(ctx, "start", u.Name))
		}
	}
	return errors.Join(errs...)
}

// Undo takes back what Apply did, now or when it was killed on its way.
func Undo(ctx context.Context, say func(format string, args ...any)) error {
	if os.Geteuid() != 0 {
		return errors.New("only root can do this: run it with sudo")
	}
	text, err := os.ReadFile(recordFile)
	if notThere(err) {
		return ErrDone
	}
	if err != nil {
		return err
	}
	m := &move{plan: &Plan{}, say: say, rec: &record{}}
	if err := json.Unmarshal(text, m.rec); err != nil {
		return fmt.Errorf("%s: %w", recordFile, err)
	}
	if cfg, _, err := config.Load(config.Sources{Paths: []string{folder}, Partial: true, Registered: anyService}); err == nil {
		m.plan.listen = cfg.Listen
	}
	err = m.back(context.WithoutCancel(ctx))
	m.finish(&Result{})
	return err
}

// systemctl runs it; an error has what it said.
func systemctl(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, unitTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// systemctlSays is the word that it prints about a unit.
func systemctlSays(ctx context.Context, args ...string) string {
	out, _ := exec.CommandContext(ctx, "systemctl", args...).Output() // its code says the same again
	return strings.TrimSpace(string(out))
}

// lastWords is what meibo said last.
func lastWords(ctx context.Context) string {
	out, _ := exec.CommandContext(ctx, "journalctl", "-q", "-o", "cat", "-n", "5", "-u", meiboService).Output()
	return string(out)
}
