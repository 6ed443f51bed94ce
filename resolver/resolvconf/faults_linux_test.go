package resolvconf

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"meibo/bench/hosttest"
)

// mountAt mounts in the test's own namespace.
func mountAt(t *testing.T, source, at, kind string, flags uintptr, options string) {
	t.Helper()
	if err := unix.Mount(source, at, kind, flags, options); err != nil {
		t.Fatalf("mount %s at %s: %v", source, at, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
}

// A runtime mounts resolv.conf into its container: it can't be replaced, and is written in its place.
func TestMounted_WrittenInItsPlace(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		for name, text := range map[string]string{"short": "nameserver 192.0.2.1\n", "long": "nameserver 192.0.2.1\n# " + strings.Repeat("much ", 2000) + "\n"} {
			t.Run(name, func(t *testing.T) {
				root := plant(t, map[string]string{"/etc/resolv.conf": "", "/of-the-runtime": text})
				at := filepath.Join(root, DefaultPath)
				mountAt(t, filepath.Join(root, "/of-the-runtime"), at, "", unix.MS_BIND, "")
				before := pictured(t, root)
				h := &Host{Root: root}
				s, err := h.Install(t.Context(), Options{})
				must(t, err)
				now, err := os.ReadFile(at)
				if err != nil || string(now) != ours || s.Owner != Container || s.File != "a mounted file" || s.State != Installed {
					t.Errorf("%q, %v, %+v", now, err, s)
				}
				if through, _ := os.ReadFile(filepath.Join(root, "/of-the-runtime")); string(through) != ours {
					t.Errorf("the runtime's file: %q", through)
				}
				_, err = h.Restore(t.Context(), false)
				must(t, err)
				same(t, before, pictured(t, root))
				// Killed between the text and its end, there and back.
				for k := 0; dies(&Host{Root: root}, k, func(h *Host) { _, _ = h.Install(t.Context(), Options{}) }); k++ {
					torn := append([]byte(ours), []byte(text)[min(len(text), len(ours)):]...)
					if now, _ := os.ReadFile(at); string(now) == ours {
						must(t, os.WriteFile(at, torn, 0o640))
					}
					_, err := h.Restore(t.Context(), false)
					must(t, err)
					cleanTemporary(t, root)
					if same(t, before, pictured(t, root)); t.Failed() {
						t.Fatalf("killed at %d", k)
					}
				}
			})
		}
	})
}

func TestImmutable_IsLeftAlone(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		root := plant(t, map[string]string{"/etc/resolv.conf": uplink})
		mark := func(at string, flags int) error {
			f, err := os.Open(at)
			must(t, err)
			defer f.Close()
			return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
		}
		at := filepath.Join(root, DefaultPath)
		if err := mark(at, immutableFlag); err != nil {
			t.Skipf("this machine marks no file as immutable (%v): run as root", err)
		}
		t.Cleanup(func() { _ = mark(at, 0) })
		before := pictured(t, root)
		h := &Host{Root: root}
		s, err := h.Status()
		if err != nil || s.File != "a file, immutable" || len(s.Notes) == 0 {
			t.Errorf("%+v, %v", s, err)
		}
		if _, err := h.Install(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "chattr -i /etc/resolv.conf") {
			t.Errorf("install: %v", err)
		}
		same(t, before, pictured(t, root))

		// Marked after the change: what can't be put back is said, and can be once it may.
		must(t, mark(at, 0))
		_, err = h.Install(t.Context(), Options{})
		must(t, err)
		must(t, mark(at, immutableFlag))
		if _, err := h.Restore(t.Context(), false); err == nil || !strings.Contains(err.Error(), "lsattr") || !strings.Contains(err.Error(), "run `meibo resolv restore` again") {
			t.Errorf("restore: %v", err)
		}
		if s, _ := h.Status(); s.State != Unfinished {
			t.Errorf("state %s", s.State)
		}
		must(t, mark(at, 0))
		_, err = h.Restore(t.Context(), false)
		must(t, err)
		same(t, before, pictured(t, root))
	})
}

// fill leaves no room on the file system of a directory.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	at := filepath.Join(dir, "filling")
	f, err := os.Create(at)
	must(t, err)
	defer f.Close()
	for size := 1 << 16; size > 0; size /= 2 {
		for {
			if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	return func() { must(t, os.Remove(at)) }
}

func TestDiskFull_ThereAndBack(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		for _, tc := range owners() {
			t.Run(tc.name, func(t *testing.T) {
				root := t.TempDir()
				mountAt(t, "tmpfs", root, "tmpfs", 0, "size=1m,mode=0755")
				from := plant(t, tc.files)
				must(t, os.CopyFS(root, os.DirFS(from)))
				before := pictured(t, root)
				h := &Host{Root: root}
				free := fill(t, root)
				if _, err := h.Install(t.Context(), Options{Only: tc.only}); err == nil || !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "make room") {
					t.Fatalf("on a full disk: %v", err)
				}
				free()
				same(t, before, pictured(t, root))
				_, err := h.Install(t.Context(), Options{Only: tc.only})
				must(t, err)
				free = fill(t, root)
				_, err = h.Restore(t.Context(), false)
				must(t, err)
				free()
				same(t, before, pictured(t, root))
			})
		}
	})
}

// A root file system that is mounted for reading, as of an appliance.
func TestReadOnly_SaysSo(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		root := plant(t, map[string]string{"/etc/resolv.conf": uplink})
		mountAt(t, root, root, "", unix.MS_BIND, "")
		if err := unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		_, err := (&Host{Root: root}).Install(t.Context(), Options{})
		if err == nil || !strings.Contains(err.Error(), "remount it for writing") {
			t.Errorf("install: %v", err)
		}
	})
}
