// Package packaging holds what makes the packages of meibo. Its tests install them into real Debian roots with systemd as
// PID 1.
package packaging

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is for what should take a second or two.
const patience = 30 * time.Second

// bootedPackages are in every root beside what Debian cannot do without.
const bootedPackages = "systemd,systemd-sysv,dbus,iproute2,procps,bind9-dnsutils,libnss-systemd,polkitd,curl,rpm"

// asidePackages lie in such a root at asideFolder, and are not installed.
const (
	asidePackages = "systemd-resolved libnss-resolve resolvconf openresolv"
	asideFolder   = "/var/cache/aside"
)

// host is a Debian root of its own with systemd as PID 1, in a directory.
type host struct {
	t      *testing.T
	name   string
	dir    string // its root
	leader int    // its PID 1, as seen from here; 0: it is down
	ended  chan struct{}
	net    string // a network namespace that it lives in; "": one of its own
}

// tool is a program of this machine, or one of the peers, with the environment that it wants.
func tool(t *testing.T, name string) (path string, env []string) {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	root := os.Getenv("MEIBO_PEERS")
	path = filepath.Join(root, "usr/bin", name)
	if _, err := os.Stat(path); root == "" || err != nil {
		t.Skipf("%s is missing: run `make test` as root on Debian, which fetches it", name)
	}
	shared, _ := filepath.Glob(filepath.Join(root, "usr/lib/*/systemd"))
	return path, []string{"LD_LIBRARY_PATH=" + strings.Join(shared, ":")}
}

// base is a Debian root of a suite that tests put their own layer on. It is made once, and kept among the peers.
func base(t *testing.T, suite, packages string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can boot a root")
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("roots are made by apt, which this machine has not")
	}
	args := []string{"--variant=minbase", "--include=" + packages}
	if packages == bootedPackages {
		args = append(args, `--customize-hook=mkdir -p "$1`+asideFolder+`" && cd "$1`+asideFolder+`" && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get download `+asidePackages)
	}
	kind := fmt.Sprintf("%s-%08x", suite, crc32.ChecksumIEEE([]byte(strings.Join(args, " "))))
	dir := filepath.Join(os.Getenv("MEIBO_PEERS"), "..", "roots", kind)
	if os.Getenv("MEIBO_PEERS") == "" {
		dir = filepath.Join(os.TempDir(), "meibo-roots", kind)
	}
	dir, err := filepath.Abs(dir)
	must(t, err)
	stamp := dir + ".made"
	if _, err := os.Stat(stamp); err == nil {
		return dir
	}
	bootstrap, env := tool(t, "mmdebstrap")
	must(t, os.RemoveAll(dir))
	must(t, os.MkdirAll(filepath.Dir(dir), 0o755))
	began := time.Now()
	// A mirror may cut a connection.
	for try := 1; ; try++ {
		cmd := exec.CommandContext(t.Context(), bootstrap, append(slices.Clone(args), suite, dir)...)
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		if err == nil {
			break
		}
		if try == 3 {
			t.Fatalf("make a root of %s: %v\n%s", suite, err, out)
		}
		must(t, os.RemoveAll(dir))
	}
	must(t, os.WriteFile(stamp, nil, 0o644))
	t.Logf("a root of %s was made in %v", suite, time.Since(began))
	return dir
}

// newHost makes a host on a fresh layer over a base; nothing of the base changes. Its resolv.conf names 127.0.0.1.
func newHost(t *testing.T, name, base string) *host {
	t.Helper()
	work := t.TempDir()
	for _, d := range []string{"upper", "work", "root"} {
		must(t, os.Mkdir(filepath.Join(work, d), 0o755))
	}
	h := &host{t: t, name: fmt.Sprintf("meibo-%s-%d", name, os.Getpid()), dir: filepath.Join(work, "root")}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", base, filepath.Join(work, "upper"), filepath.Join(work, "work"))
	must(t, syscall.Mount("overlay", h.dir, "overlay", 0, options))
	t.Cleanup(func() {
		h.down()
		if err := syscall.Unmount(h.dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", h.dir, err)
		}
	})
	h.write("etc/resolv.conf", "nameserver 127.0.0.1\n")
	h.write("etc/hosts", "127.0.0.1 localhost\n")
	h.write("etc/hostname", name+"\n")
	h.write("etc/machine-id", "")
	return h
}

func (h *host) write(path, text string) {
	h.t.Helper()
	path = filepath.Join(h.dir, path)
	must(h.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(h.t, os.WriteFile(path, []byte(text), 0o644))
}

// copy puts a file of this machine into the host.
func (h *host) copy(from, to string) {
	h.t.Helper()
	text, err := os.ReadFile(from)
	must(h.t, err)
	h.write(to, string(text))
}

// up boots the host.
func (h *host) up() {
	h.t.Helper()
	nspawn, env := tool(h.t, "systemd-nspawn")
	args := []string{"--boot", "--quiet", "-D", h.dir, "-M", h.name, "--register=no", "--keep-unit", "--console=pipe", "--resolv-conf=off"}
	if h.net != "" {
		args = append(args, "--network-namespace-path="+h.net)
	} else {
		args = append(args, "--private-network")
	}
	// systemd wants a cgroup of its own in every hierarchy there is.
	const enter = `for d in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
		[ -e $d/cgroup.procs ] || continue
		mkdir -p $d/$0 && echo $$ > $d/$0/cgroup.procs
	done; exec "$@"`
	cmd := exec.Command("/bin/sh", append([]string{"-c", enter, h.name, nspawn}, args...)...)
	cmd.Env = append(append(os.Environ(), env...), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1")
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	began := time.Now()
	must(h.t, cmd.Start())
	h.ended = make(chan struct{})
	go func() { _ = cmd.Wait(); close(h.ended) }()
	h.eventually("the host is up", func() error {
		select {
		case <-h.ended:
			h.t.Fatalf("%s did not boot:\n%s", h.name, console.String())
		default:
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if err != nil {
			return err
		}
		if _, err := fmt.Sscan(string(children), &h.leader); err != nil {
			return err
		}
		state, err := h.try("systemctl", "is-system-running")
		if s := strings.TrimSpace(state); s != "running" && s != "degraded" {
			return fmt.Errorf("it is %q: %v", s, err)
		}
		return nil
	})
	h.t.Logf("%s was up after %v", h.name, time.Since(began))
	_, err := h.try("ip", "link", "set", "lo", "up")
	must(h.t, err)
}

// down powers the host off.
func (h *host) down() {
	if h.leader == 0 {
		return
	}
	_, _ = h.try("systemctl", "poweroff")
	select {
	case <-h.ended:
	case <-time.After(patience):
		h.t.Errorf("%s does not power off", h.name)
		_ = syscall.Kill(h.leader, syscall.SIGKILL)
		<-h.ended
	}
	h.leader = 0
	for _, d := range []string{"", "unified", "systemd"} {
		h.removeGroup(filepath.Join("/sys/fs/cgroup", d, h.name))
	}
}

// removeGroup removes a cgroup with those in it, from the innermost.
func (h *host) removeGroup(dir string) {
	inner, _ := os.ReadDir(dir)
	for _, d := range inner {
		if d.IsDir() {
			h.removeGroup(filepath.Join(dir, d.Name()))
		}
	}
	_ = os.Remove(dir)
}

// command is a program of the host, run in it.
func (h *host) command(ctx context.Context, args ...string) *exec.Cmd {
	into := []string{"-t", fmt.Sprint(h.leader), "-m", "-u", "-i", "-n", "-p", "-C", "--", "/usr/bin/env", "-i",
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	return exec.CommandContext(ctx, "nsenter", append(into, args...)...)
}

func (h *host) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := h.command(ctx, args...).CombinedOutput()
	return string(out), err
}

// run runs a program in the host that must not fail, and returns what it said.
func (h *host) run(args ...string) string {
	h.t.Helper()
	out, err := h.try(args...)
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// eventually waits for a condition, and says how long it took.
func (h *host) eventually(what string, condition func() error) time.Duration {
	h.t.Helper()
	began := time.Now()
	for {
		err := condition()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			h.t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// files are all there are on the host's own disk, with what they hold told by size and mode; passing lists what comes and
// goes by itself.
func (h *host) files(passing ...string) map[string]bool {
	h.t.Helper()
	out := map[string]bool{}
	must(h.t, filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, h.dir)
		for _, p := range passing {
			if strings.HasPrefix(rel, p) {
				if d.IsDir() {
					return filepath.SkipDir
				}
				return nil
			}
		}
		out[rel] = true
		return nil
	}))
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// chroot runs a program in the host's root while the host is down, and returns what it said.
func (h *host) chroot(args ...string) string {
	h.t.Helper()
	proc := filepath.Join(h.dir, "proc")
	must(h.t, syscall.Mount("proc", proc, "proc", 0, ""))
	defer func() { must(h.t, syscall.Unmount(proc, syscall.MNT_DETACH)) }()
	cmd := exec.CommandContext(h.t.Context(), args[0], args[1:]...)
	cmd.Path = "/usr/bin/" + args[0]
	cmd.Err = nil
	cmd.SysProcAttr, cmd.Dir = &syscall.SysProcAttr{Chroot: h.dir}, "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// command runs a program of this machine that must not fail, and returns what it said.
func command(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
