package resolvconf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// journal is what is changed on a host and how it is taken back. It is on disk,
// complete, before the first change.
type journal struct {
	Phase    phase
	Owner    Owner
	Why, Via string `json:",omitempty"`
	Only     string `json:",omitempty"`
	Name     string `json:",omitempty"` // that is checked
	Server   netip.Addr
	Began    time.Time
	Steps    []step
	// Reasserted are the times of the last hour at which the change was made
	// anew, as somebody had overwritten it.
	Reasserted []time.Time `json:",omitempty"`
	Notes      []string    `json:",omitempty"`
}

type phase string

const (
	installing phase = "installing"
	installed  phase = "installed"
	restoring  phase = "restoring"
)

// step is one change: of a file, or by a program.
type step struct {
	Path          string   `json:",omitempty"`
	Before, After *content `json:",omitempty"`
	Folders       []string `json:",omitempty"` // made for the file, the outermost first
	Block         bool     `json:",omitempty"` // After is Before and a block of ours

	Do, Undo []string `json:",omitempty"` // program and arguments
	Input    string   `json:",omitempty"` // of Do
	Optional bool     `json:",omitempty"` // the program may fail: it may not run now
}

// fileStep plans that a path hold after.
func (t tree) fileStep(path string, after content) (step, error) {
	before, err := t.read(path)
	if err != nil {
		return step{}, err
	}
	if label, ok := before.Extended["security.selinux"]; ok {
		after.Extended = map[string][]byte{"security.selinux": label}
	}
	return step{Path: path, Before: &before, After: &after, Folders: t.missing(path)}, nil
}

const (
	blockBegin = "# begin meibo: `meibo resolv restore` takes this out\n"
	blockEnd   = "# end meibo\n"
)

// blockStep plans that a text file have lines of ours at its head, or else at its
// end.
func (t tree) blockStep(path, lines string, head bool) (step, error) {
	s, err := t.fileStep(path, text(""))
	if err != nil {
		return step{}, err
	}
	if s.Before.Kind == link {
		return step{}, fmt.Errorf("%s is a link: put the file itself there, then try again", path)
	}
	if s.Before.Kind == regular {
		after := *s.Before
		after.Modified = time.Time{}
		s.After = &after
	}
	s.After.Data = withBlock(s.Before.Data, []byte(blockBegin+lines+blockEnd), head)
	s.Block = true
	return s, nil
}

// withBlock returns a text with a block of ours at its head, or else at its end.
func withBlock(data, block []byte, head bool) []byte {
	old := withoutBlock(data)
	if head {
		return slices.Concat(block, old)
	}
	if len(old) > 0 && !bytes.HasSuffix(old, []byte("\n")) {
		old = append(old, '\n')
	}
	return slices.Concat(old, block)
}

// withoutBlock returns a text without our block.
func withoutBlock(data []byte) []byte {
	before, rest, ok := bytes.Cut(data, []byte(blockBegin))
	if !ok {
		return slices.Clone(data)
	}
	_, after, _ := bytes.Cut(rest, []byte(blockEnd))
	return append(slices.Clone(before), after...)
}

// load reads a journal; nil: there is none.
func (h *Host) load(name string) (*journal, error) {
	path := filepath.Join(h.stateDir(), name)
	data, err := os.ReadFile(h.tree().at(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("read %s: %w: run this as root", path, fs.ErrPermission)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var j journal
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, fmt.Errorf("read %s: %w; it says what to put back, by hand now: Before of each path, in base64", path, err)
	}
	return &j, nil
}

// save writes a journal, for root alone.
func (h *Host) save(name string, j *journal) error {
	data, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return err
	}
	c := text(string(append(data, '\n')))
	c.Mode = 0o600
	return h.tree().put(filepath.Join(h.stateDir(), name), c)
}

// begin writes the journal and makes its changes. On an error it takes back what
// was done.
func (h *Host) begin(ctx context.Context, name string, j *journal, check func() error) error {
	j.Phase, j.Began = installing, time.Now().UTC().Truncate(time.Second)
	t := h.tree()
	var err error
	for _, dir := range t.missing(filepath.Join(h.stateDir(), name)) {
		err = errors.Join(err, t.makeDir(dir))
	}
	if err == nil {
		err = h.save(name, j)
	}
	if err != nil {
		return errors.Join(err, h.removeStateDir()) // nothing was changed
	}
	err = h.do(ctx, j)
	if err == nil {
		err = check()
	}
	if err == nil {
		j.Phase = installed
		err = h.save(name, j)
	}
	if err == nil {
		return nil
	}
	// What ended the change, such as an interrupt, must not end its undoing.
	if _, back := h.end(context.WithoutCancel(ctx), name, j, true); back != nil {
		return fmt.Errorf("%w\nand it could not be taken back whole: %w\nmend that, then run `meibo resolv restore`", err, back)
	}
	return fmt.Errorf("%w\neverything is as it was", err)
}

func (h *Host) do(ctx context.Context, j *journal) error {
	t := h.tree()
	for i := range j.Steps {
		s := &j.Steps[i]
		if s.Path == "" {
			if len(s.Do) == 0 {
				continue
			}
			err := h.run(ctx, s.Input, s.Do)
			if err != nil && s.Optional {
				j.Notes = append(j.Notes, err.Error())
			} else if err != nil {
				return err
			}
			continue
		}
		if err := t.do(*s); err != nil {
			return err
		}
	}
	return nil
}

// do makes the change of a file, unless it is made.
func (t tree) do(s step) error {
	for _, dir := range s.Folders {
		if err := t.makeDir(dir); err != nil {
			return err
		}
	}
	now, err := t.read(s.Path)
	if err != nil || t.now(s) == asWritten {
		return err
	}
	after := *s.After
	if now.equal(*s.Before) {
		err = t.keep(s.Path)
	} else if s.Block && now.Kind == regular { // edited since
		after.Data = withBlock(now.Data, blockOf(s.After.Data), bytes.HasPrefix(s.After.Data, []byte(blockBegin)))
	}
	if err != nil {
		return err
	}
	return t.put(s.Path, after)
}

// end takes the changes of a journal back, and removes it. What others wrote since
// in the place of resolv.conf stays, unless force says otherwise; notes tell.
// It can be called again after it failed or was killed.
func (h *Host) end(ctx context.Context, name string, j *journal, force bool) (notes []string, err error) {
	t := h.tree()
	j.Phase = restoring
	_ = h.save(name, j) // without room for it the changes are taken back all the same
	var errs []error
	for _, s := range slices.Backward(j.Steps) {
		if s.Path == "" {
			continue
		}
		note, err := h.undo(s, j, force)
		errs = append(errs, err)
		if note != "" {
			notes = append(notes, note)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return notes, err
	}
	for _, s := range j.Steps {
		if len(s.Undo) == 0 {
			continue
		}
		err := h.run(ctx, "", s.Undo)
		if err != nil && (s.Optional || isGone(err)) {
			notes = append(notes, err.Error())
		} else if err != nil {
			return notes, err
		}
	}
	if j.Owner == Dhclient {
		if err := os.RemoveAll(t.at(filepath.Dir(hookFolder))); err != nil {
			notes = append(notes, err.Error())
		}
	}
	if err := t.remove(filepath.Join(h.stateDir(), name)); err != nil {
		return notes, err
	}
	return notes, h.removeStateDir()
}

func (h *Host) removeStateDir() error {
	t := h.tree()
	if entries, err := os.ReadDir(t.at(h.stateDir())); err != nil || len(entries) > 0 {
		return nil // not made, or another change's
	}
	return t.removeDir(h.stateDir())
}

// undo puts back what was at the path of a step.
func (h *Host) undo(s step, j *journal, force bool) (note string, err error) {
	t := h.tree()
	if err := os.RemoveAll(t.at(fresh(s.Path))); err != nil { // of one that was killed
		return "", err
	}
	now, err := t.read(s.Path)
	if err != nil {
		return "", err
	}
	back := *s.Before
	switch {
	case now.equal(back), now.same(back), now.same(*s.After), force:
	case s.Block && now.Kind == regular:
		stripped := withoutBlock(now.Data)
		if bytes.Equal(stripped, back.Data) {
			break
		}
		note = s.Path + " was changed by others since: what they wrote stays"
		back, back.Data, back.Modified = now, stripped, time.Time{}
		if bytes.Equal(stripped, now.Data) {
			back = now
		}
	case s.Path == dockerFile && now.Kind == regular:
		note = s.Path + " was changed by others since: what they wrote stays"
		back = now
		if data, ok := withoutDNS(now.Data, s.Before.Data, j.Server.String()); ok {
			back.Data, back.Modified = data, time.Time{}
		}
	case s.Path == DefaultPath && h.isOfOthers(s, j):
		note = s.Path + " was written by others since and stays as they wrote it; -force puts back what was there before meibo"
		back = now
	}
	if !now.equal(back) {
		if err := t.putBack(s.Path, back); err != nil {
			return note, err
		}
	}
	if err := t.remove(kept(s.Path)); err != nil {
		return note, err
	}
	return note, h.undoFolders(s)
}

func (h *Host) undoFolders(s step) error {
	for _, dir := range slices.Backward(s.Folders) {
		if dir == h.stateDir() {
			continue // the journal is in it
		}
		if err := h.tree().removeDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// isOfOthers reports whether somebody else wrote resolv.conf and programs can
// resolve names by it: it has servers, and we are none of them.
func (h *Host) isOfOthers(s step, j *journal) bool {
	t := h.tree()
	text, err := t.follow(DefaultPath)
	if err != nil {
		return false
	}
	// One that was killed while it wrote a file in its place leaves the end of the other.
	if t.mounted(DefaultPath) && (strings.HasPrefix(text, string(s.Before.Data)) || strings.HasPrefix(text, string(s.After.Data))) {
		return false
	}
	servers := Parse(text).Servers
	return len(servers) > 0 && !slices.Contains(servers, j.Server)
}

// errNoProgram says that a program or unit is not there (any more).
var errNoProgram = errors.New("it is not there")

// run runs a program of the host; in a tree it runs none.
func (h *Host) run(ctx context.Context, input string, args []string) error {
	if err := h.tree().about("run", strings.Join(args, " ")); err != nil {
		return err
	}
	if h.Run != nil {
		return h.Run(ctx, input, args)
	}
	if h.Root != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	err := execute(ctx, input, args)
	if err != nil && !isGone(err) && len(args) == 3 && args[0] == "systemctl" && args[1] == "restart" {
		// One that was restarted often within seconds is refused by systemd.
		if execute(ctx, "", []string{"systemctl", "reset-failed", args[2]}) == nil {
			err = execute(ctx, input, args)
		}
	}
	return err
}

func execute(ctx context.Context, input string, args []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	const noSuchUnit = 5 // systemctl's, as LSB has it
	exit := (*exec.ExitError)(nil)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound), errors.As(err, &exit) && exit.ExitCode() == noSuchUnit && args[0] == "systemctl":
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), errNoProgram, bytes.TrimSpace(out))
	}
	return fmt.Errorf("%s: %w: %.400s", strings.Join(args, " "), err, bytes.TrimSpace(out))
}

func isGone(err error) bool { return errors.Is(err, errNoProgram) }

// lock keeps others of this host, in this process or another, from changing it at
// the same time. It waits for them until ctx ends.
func (h *Host) lock(ctx context.Context) (unlock func(), err error) {
	var f *os.File
	if h.Root != "" {
		f, err = os.Open(h.Root)
	} else {
		f, err = os.OpenFile("/run/meibo-resolv.lock", os.O_RDWR|os.O_CREATE, 0o600)
	}
	if err != nil {
		return nil, explainChange(err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("another `meibo resolv` is at it: %w", context.Cause(ctx))
		case <-time.After(lockLook):
		}
	}
}
