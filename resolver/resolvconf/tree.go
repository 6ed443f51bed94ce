package resolvconf

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tree is the files of a host, below a directory that stands for "/".
type tree struct {
	root string
	// before is called ahead of each change; its error is the change's. Tests
	// end or fail a change with it.
	before func(op, path string) error
}

func (t tree) at(path string) string { return filepath.Join(t.root, path) }

func (t tree) about(op, path string) error {
	if t.before == nil {
		return nil
	}
	return t.before(op, path)
}

// kinds of what is at a path.
const (
	absent  = "absent"
	regular = "file"
	link    = "link"
)

// content is what is at a path, as far as it is put back.
type content struct {
	Kind     string
	Data     []byte `json:",omitempty"` // of a file
	Target   string `json:",omitempty"` // of a link
	Mode     uint32
	UID, GID int
	Modified time.Time
	Extended map[string][]byte `json:",omitempty"` // attributes, such as SELinux's label
}

// text makes the content of a new file that everybody may read.
func text(s string) content {
	return content{Kind: regular, Data: []byte(s), Mode: 0o644, UID: os.Geteuid(), GID: os.Getegid()}
}

// same reports whether programs that read the path would see the same.
func (c content) same(other content) bool {
	return c.Kind == other.Kind && c.Target == other.Target && bytes.Equal(c.Data, other.Data)
}

// read returns what is at a path, links not followed.
func (t tree) read(path string) (content, error) {
	at := t.at(path)
	info, err := os.Lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR):
		return content{Kind: absent}, nil
	case err != nil:
		return content{}, fmt.Errorf("look at %s: %w", path, errors.Unwrap(err))
	}
	c := content{Mode: uint32(info.Mode().Perm()), Modified: info.ModTime()}
	c.UID, c.GID = ownerOf(info)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		c.Kind = link
		c.Target, err = os.Readlink(at)
	case info.Mode().IsRegular() && info.Size() <= maxFile:
		c.Kind = regular
		if c.Data, err = os.ReadFile(at); err == nil {
			c.Extended = extendedOf(at)
		}
	default:
		return content{}, fmt.Errorf("%s is neither a file of at most %d octets nor a link: put one there", path, maxFile)
	}
	if err != nil {
		return content{}, fmt.Errorf("read %s: %w", path, errors.Unwrap(err))
	}
	return c, nil
}

// follow returns the text of the file that a path leads to over links, which
// lead nowhere outside of the tree.
func (t tree) follow(path string) (string, error) {
	for range 40 {
		c, err := t.read(path)
		switch {
		case err != nil:
			return "", err
		case c.Kind == regular:
			return string(c.Data), nil
		case c.Kind == absent:
			return "", fmt.Errorf("read %s: %w", path, fs.ErrNotExist)
		}
		path = target(path, c.Target)
	}
	return "", fmt.Errorf("read %s: %w", path, unix.ELOOP)
}

// target is where a link leads to.
func target(path, to string) string {
	if !filepath.IsAbs(to) {
		to = filepath.Join(filepath.Dir(path), to)
	}
	return filepath.Clean(to)
}

// equal reports whether nothing would change if one took the other's place.
func (c content) equal(other content) bool {
	return c.same(other) && c.Mode == other.Mode && c.UID == other.UID && c.GID == other.GID && c.Modified.Equal(other.Modified)
}

func (t tree) exists(path string) bool {
	_, err := os.Stat(t.at(path))
	return err == nil
}

// fresh is the name of what takes a path's place once it is complete.
func fresh(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".meibo-new")
}

// put has a path hold what c says. Whoever looks sees what was there or c, whole;
// only a file that is mounted, which can't be replaced, is written in its place,
// after room for it is taken. On an error what was there stands.
func (t tree) put(path string, c content) error {
	err := t.replace(path, c)
	if errors.Is(err, unix.EBUSY) && c.Kind == regular {
		err = t.overwrite(path, c)
	}
	if err != nil {
		return fmt.Errorf("change %s: %w", path, explainChange(err))
	}
	return nil
}

// kept is the name under which a file that is replaced stays.
func kept(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".meibo-old")
}

// keep has what is at a path stay under a second name: it comes back from there on
// a full disk too. A file that is mounted is written in its place, and so has none.
func (t tree) keep(path string) error {
	if err := t.remove(kept(path)); err != nil {
		return err
	}
	if _, err := os.Lstat(t.at(path)); err != nil || t.mounted(path) {
		return nil
	}
	if err := t.about("keep", path); err != nil {
		return err
	}
	// Some file systems have no second names: the journal has what it holds, too.
	_ = os.Link(t.at(path), t.at(kept(path)))
	return nil
}

// putBack is put, of what was kept if that is still what it was.
func (t tree) putBack(path string, c content) error {
	old, err := t.read(kept(path))
	if err != nil || c.Kind == absent || !old.equal(c) {
		return t.put(path, c)
	}
	if err := t.about("rename", path); err != nil {
		return err
	}
	if err := os.Rename(t.at(kept(path)), t.at(path)); err != nil {
		return t.put(path, c)
	}
	return t.sync(t.at(path))
}

func (t tree) replace(path string, c content) error {
	if t.mounted(path) {
		return unix.EBUSY
	}
	if c.Kind == absent {
		return t.remove(path)
	}
	next := t.at(fresh(path))
	if err := t.remove(fresh(path)); err != nil {
		return err
	}
	if err := t.about("create", fresh(path)); err != nil {
		return err
	}
	err := t.create(next, c)
	if err == nil {
		if err = t.about("rename", path); err == nil {
			err = os.Rename(next, t.at(path))
		}
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(next))
	}
	return t.sync(next)
}

// create makes a file or link at a path of the machine.
func (t tree) create(at string, c content) error {
	if c.Kind == link {
		if err := os.Symlink(c.Target, at); err != nil {
			return err
		}
		return c.marks(at)
	}
	f, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = t.about("write", at); err == nil {
		_, err = f.Write(c.Data)
	}
	if err == nil {
		err = c.marks(at)
	}
	if err == nil && t.before == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// overwrite writes a file in its place.
func (t tree) overwrite(path string, c content) error {
	at := t.at(path)
	if err := t.about("overwrite", path); err != nil {
		return err
	}
	f, err := os.OpenFile(at, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err = reserve(f, int64(len(c.Data))); err == nil {
		if _, err = f.WriteAt(c.Data, 0); err == nil {
			err = f.Truncate(int64(len(c.Data)))
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil && c.Kind == regular {
		err = c.marks(at)
	}
	return errors.Join(err, f.Close())
}

// marks gives what is at a path of the machine the owner, mode, attributes and
// time of c.
func (c content) marks(at string) error {
	if uid, gid := os.Geteuid(), os.Getegid(); uid == 0 || c.UID != uid || c.GID != gid {
		if err := os.Lchown(at, c.UID, c.GID); err != nil {
			return err
		}
	}
	if c.Kind == regular {
		if err := os.Chmod(at, fs.FileMode(c.Mode)); err != nil {
			return err
		}
	}
	for name, value := range maps.All(c.Extended) {
		if err := unix.Lsetxattr(at, name, value, 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	if c.Modified.IsZero() {
		return nil
	}
	spec := unix.NsecToTimespec(c.Modified.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, at, []unix.Timespec{spec, spec}, unix.AT_SYMLINK_NOFOLLOW)
}

// remove removes a file or link, if there is one.
func (t tree) remove(path string) error {
	if _, err := os.Lstat(t.at(path)); errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err := t.about("remove", path); err != nil {
		return err
	}
	if err := os.Remove(t.at(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return t.sync(t.at(path))
}

// missing are the folders that a path lacks, the outermost first.
func (t tree) missing(path string) (folders []string) {
	for dir := filepath.Dir(path); dir != "/" && !t.exists(dir); dir = filepath.Dir(dir) {
		folders = append([]string{dir}, folders...)
	}
	return folders
}

func (t tree) makeDir(path string) error {
	if t.exists(path) {
		return nil
	}
	if err := t.about("mkdir", path); err != nil {
		return err
	}
	if err := os.Mkdir(t.at(path), 0o755); err != nil {
		return fmt.Errorf("make %s: %w", path, explainChange(errors.Unwrap(err)))
	}
	return os.Chmod(t.at(path), 0o755) // whatever the umask says
}

// removeDir removes a folder, unless somebody put something there.
func (t tree) removeDir(path string) error {
	if err := t.about("rmdir", path); err != nil {
		return err
	}
	err := os.Remove(t.at(path))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}

// mounted reports whether a path is a mount of its own, as a runtime makes it in
// a container.
func (t tree) mounted(path string) bool {
	at, err := filepath.Abs(t.at(path))
	if err != nil {
		return false
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(at)); err == nil {
		at = filepath.Join(dir, filepath.Base(at))
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false // the kernel refuses to replace it, and says so
	}
	defer f.Close()
	escaped := strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(at)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && fields[4] == escaped {
			return true
		}
	}
	return false
}

// immutable reports whether a path is marked as one that nobody may change
// (chattr +i).
func (t tree) immutable(path string) bool { return isImmutable(t.at(path)) }

// explainChange adds what to do to an error of a change.
func explainChange(err error) error {
	switch {
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: run this as root", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: run this as root; where root may not either, lsattr shows whether it or its folder is immutable (chattr -i)", err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: remount it for writing, or change the image that it comes from", err)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: make room, then try again", err)
	}
	return err
}

// sync has what became of a path of the machine outlast a crash. Tests that end
// changes don't end the machine.
func (t tree) sync(at string) error {
	if t.before != nil {
		return nil
	}
	d, err := os.Open(filepath.Dir(at))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func extendedOf(at string) map[string][]byte {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(at, names)
	if err != nil || n == 0 {
		return nil
	}
	out := map[string][]byte{}
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		value := make([]byte, 64<<10)
		if n, err := unix.Lgetxattr(at, name, value); err == nil {
			out[name] = value[:n]
		}
	}
	return out
}

func ownerOf(info fs.FileInfo) (uid, gid int) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid), int(s.Gid)
	}
	return 0, 0
}
