// Package hosttest has what tests of whole daemons need: a host of its own in namespaces,
// the binary and the peers' programs as processes, and waiting for conditions.
package hosttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meibo/cluster/clustertest/logtest"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Patience is how long a condition may take before a test gives up on it; times are printed, not judged.
const Patience = 30 * time.Second

// InHost runs body on a host of its own: a network and a mount namespace with loopback up and an /etc/resolv.conf that
// says nameserver 127.0.0.1, made by running this test again as a child. It works as root and, where the kernel lets
// people have them, in an unprivileged user namespace.
func InHost(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	if os.Getenv("MEIBO_TEST_HOST") == t.Name() {
		becomeHost(t)
		body(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v", "-test.count=1", "-test.timeout=20m")
	cmd.Env = append(os.Environ(), "MEIBO_TEST_HOST="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // Pdeathsig follows the thread
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	t.Logf("%s", bytes.TrimSpace(out))
	if errors.Is(err, syscall.EPERM) {
		t.Skip("this machine lets this user have no network namespace: run as root, or allow user namespaces")
	}
	if err != nil {
		t.Fatalf("on its host: %v", err)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Skip("skipped on its host, see above")
	}
}

// becomeHost turns this process, alone in fresh namespaces, into the host that the test wants.
func becomeHost(t *testing.T) {
	t.Helper()
	Must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	Must(t, os.WriteFile(resolv, []byte("nameserver 127.0.0.1\noptions timeout:2 attempts:2\n"), 0o644))
	Must(t, unix.Mount(resolv, "/etc/resolv.conf", "", unix.MS_BIND, ""))
	loopbackUp(t)
	if root := PeersRoot(); root != "" {
		for _, dir := range []string{"/dev", "/tmp"} {
			Must(t, unix.Mount(dir, filepath.Join(root, dir), "", unix.MS_BIND|unix.MS_REC, ""))
		}
	}
}

func loopbackUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	Must(t, err)
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	Must(t, err)
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	Must(t, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req))
}

// PeersRoot is the Debian root that `make test` fetched, or "" where there is none.
func PeersRoot() string {
	root := os.Getenv("MEIBO_PEERS")
	if root == "" {
		root, _ = filepath.Abs("../../.peers/root")
	}
	if _, err := os.Stat(filepath.Join(root, "usr/sbin/nginx")); err != nil {
		return ""
	}
	return root
}

// Peer makes a command of a program out of the peers' root, or of this machine where the root is missing.
func Peer(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if root := PeersRoot(); root != "" {
		cmd.Path, cmd.Err = PeerPath(root, name), nil
		cmd.SysProcAttr.Chroot = root
		cmd.Dir = "/"
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp"}
		return cmd
	}
	if cmd.Err != nil {
		t.Skipf("%s is not here: run `make test` as root on Debian, which fetches it, or install it", name)
	}
	return cmd
}

// PeerPath is where a program is in the peers' root.
func PeerPath(root, name string) string {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if _, err := os.Stat(filepath.Join(root, dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	return name
}

// Binary is the stripped binary that `make build` made, or one built once for this run of the tests.
var Binary = sync.OnceValues(func() (string, error) {
	return build("MEIBO_BIN", "CGO_ENABLED=0", "-trimpath", "-ldflags", "-s -w")
})

// RaceBinary is one with the race detector.
var RaceBinary = sync.OnceValues(func() (string, error) { return build("MEIBO_RACE_BIN", "CGO_ENABLED=1", "-race") })

// build builds the daemon, unless the variable already says where one is.
func build(variable, env string, flags ...string) (string, error) {
	if bin := os.Getenv(variable); bin != "" {
		return bin, nil
	}
	dir, err := os.MkdirTemp("", "meibo-bin")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "meibo")
	cmd := exec.Command("go", slices.Concat([]string{"build", "-o", bin}, flags, []string{"meibo/cmd/meibo"})...)
	cmd.Env = append(os.Environ(), env)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return bin, nil
}

// Process is a program that a test started; its output is kept, and it is killed when the test ends.
type Process struct {
	*exec.Cmd
	Output *logtest.Text
	Done   chan struct{} // closed when it has ended
	Ended  error         // why; set before Done is closed
}

// Start starts a program, which ends with the test at the latest. What it said is shown if the test fails.
func Start(t *testing.T, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Cmd: cmd, Output: new(logtest.Text)}
	t.Cleanup(func() { // after the program's end
		if t.Failed() {
			t.Logf("output of %s:\n%s", filepath.Base(cmd.Path), p.Output)
		}
	})
	p.start(t, p.Output)
	return p
}

// StartAppending is Start with the output appended to a file; nothing is in Output.
func StartAppending(t *testing.T, cmd *exec.Cmd, path string) *Process {
	t.Helper()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	Must(t, err)
	defer out.Close()
	p := &Process{Cmd: cmd, Output: new(logtest.Text)}
	p.start(t, out)
	return p
}

func (p *Process) start(t *testing.T, output io.Writer) {
	t.Helper()
	p.Done = make(chan struct{})
	p.Stdout, p.Stderr = output, output
	Must(t, p.Cmd.Start())
	go func() {
		p.Ended = p.Wait()
		close(p.Done)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.Done
	})
}

// StartMeibo starts `meibo agent` with the given arguments.
func StartMeibo(t *testing.T, args ...string) *Process {
	t.Helper()
	bin, err := Binary()
	Must(t, err)
	cmd := exec.Command(bin, append([]string{"agent"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return Start(t, cmd)
}

// Exit returns the exit code of a process that is to end by itself.
func (p *Process) Exit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.Done:
		return p.ProcessState.ExitCode()
	case <-time.After(Patience):
		t.Fatalf("%s did not end within %v; it said:\n%s", p.Path, Patience, p.Output)
		return 0
	}
}

// Stop ends the process in order; an exit code other than 0 fails the test.
func (p *Process) Stop(t *testing.T) {
	t.Helper()
	Must(t, p.Process.Signal(syscall.SIGTERM))
	if code := p.Exit(t); code != 0 {
		t.Errorf("after SIGTERM: exit code %d, want 0; it said:\n%s", code, p.Output)
	}
}

// Said waits for a line of the output that holds all the words.
func (p *Process) Said(t *testing.T, words ...string) {
	t.Helper()
	Eventually(t, fmt.Sprintf("a log line with %q", words), func() error {
		for line := range strings.Lines(p.Output.String()) {
			found := true
			for _, w := range words {
				found = found && strings.Contains(line, w)
			}
			if found {
				return nil
			}
		}
		return fmt.Errorf("not said; output so far:\n%s", p.Output)
	})
}

// Eventually waits for a condition, however long it takes up to Patience, and says how long it took.
func Eventually(t *testing.T, what string, condition func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	var err error
	for time.Since(begin) < Patience {
		if err = condition(); err == nil {
			return time.Since(begin)
		}
		Pause(2 * time.Millisecond)
	}
	t.Fatalf("%s: not within %v: %v", what, Patience, err)
	return 0
}

// Pause spaces out the tries of Eventually; nothing depends on its length.
func Pause(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// Ask sends one question over UDP or TCP and returns the reply.
func Ask(addr, network, name string, qtype uint16, edit ...func(*dns.Msg)) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	for _, e := range edit {
		e(m)
	}
	client := dns.Client{Net: network, Timeout: 3 * time.Second, UDPSize: dns.MaxMsgSize}
	reply, _, err := client.Exchange(m, addr)
	return reply, err
}

// Answers are the addresses, targets or texts of the reply's answer section.
func Answers(m *dns.Msg) []string {
	var got []string
	for _, rr := range m.Answer {
		fields := strings.Fields(rr.String())
		got = append(got, strings.Join(fields[3:], " "))
	}
	return got
}

// givenPorts are those of FreePort.
var givenPorts sync.Map

// FreePort is a port of 127.0.0.1 that nobody holds just now, UDP and TCP. It lies below the range that the kernel hands out
// by itself, where another test's connection could take it before the daemon does. None is given twice in a process: who
// was given it may not have bound it yet.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(10000+rand.IntN(20000)))
		if _, given := givenPorts.LoadOrStore(addr.Port(), true); given {
			continue
		}
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		if err != nil {
			continue
		}
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		Must(t, tcp.Close())
		if err == nil {
			Must(t, udp.Close())
			return int(addr.Port())
		}
	}
	t.Fatal("no free port on 127.0.0.1")
	return 0
}

// Run runs a program to its end, for Patience at most, and returns what it printed.
func Run(t *testing.T, cmd *exec.Cmd) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	err := cmd.Wait()
	return out.String(), err
}

// Must ends the test with err, if it is one.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// WriteFile makes a file, with the folders that it needs, and returns its path.
func WriteFile(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	Must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	Must(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// Verifying reports whether this is the long form, with its bars in seconds.
func Verifying() bool { return os.Getenv("MEIBO_VERIFY") != "" }
