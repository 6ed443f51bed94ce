package main

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
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// patience is how long a condition may take before a test gives up on it; times are printed, not judged.
const patience = 30 * time.Second

// inHost runs body on a host of its own: a network and a mount namespace with loopback up and an /etc/resolv.conf that
// says nameserver 127.0.0.1, made by running this test again as a child. It works as root and, where the kernel lets
// people have them, in an unprivileged user namespace.
func inHost(t *testing.T, body func(t *testing.T)) {
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
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(resolv, []byte("nameserver 127.0.0.1\noptions timeout:2 attempts:2\n"), 0o644))
	must(t, unix.Mount(resolv, "/etc/resolv.conf", "", unix.MS_BIND, ""))
	loopbackUp(t)
	if root := peersRoot(); root != "" {
		for _, dir := range []string{"/dev", "/tmp"} {
			must(t, unix.Mount(dir, filepath.Join(root, dir), "", unix.MS_BIND|unix.MS_REC, ""))
		}
	}
}

func loopbackUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	must(t, err)
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	must(t, unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req))
}

// peersRoot is the Debian root that `make test` fetched, or "" where there is none.
func peersRoot() string {
	root := os.Getenv("MEIBO_PEERS")
	if root == "" {
		root, _ = filepath.Abs("../../.peers/root")
	}
	if _, err := os.Stat(filepath.Join(root, "usr/sbin/nginx")); err != nil {
		return ""
	}
	return root
}

// peer makes a command of a program out of the peers' root, or of this machine where the root is missing.
func peer(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if root := peersRoot(); root != "" {
		cmd.Path, cmd.Err = peerPath(root, name), nil
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

func peerPath(root, name string) string {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if _, err := os.Stat(filepath.Join(root, dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	return name
}

// meiboBinary is the plain binary that `make build` made, or one built once for this run of the tests.
var meiboBinary = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("MEIBO_BIN"); bin != "" {
		return bin, nil
	}
	dir, err := os.MkdirTemp("", "meibo-bin")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "meibo")
	cmd := exec.Command("go", "build", "-o", bin, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
})

// process is a program that a test started; its output is kept, and it is killed when the test ends.
type process struct {
	*exec.Cmd
	output *syncBuffer
	done   chan struct{} // closed when it has ended
	err    error         // why; set before done is closed
}

func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{Cmd: cmd, output: &syncBuffer{}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.output, p.output
	must(t, cmd.Start())
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("output of %s:\n%s", filepath.Base(cmd.Path), p.output)
		}
	})
	return p
}

// startMeibo starts `meibo agent` with the given arguments.
func startMeibo(t *testing.T, args ...string) *process {
	t.Helper()
	bin, err := meiboBinary()
	must(t, err)
	cmd := exec.Command(bin, append([]string{"agent"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return start(t, cmd)
}

// wait returns the exit code of a process that is to end by itself.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
		return p.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("%s did not end within %v; it said:\n%s", p.Path, patience, p.output)
		return 0
	}
}

func (p *process) stop(t *testing.T) {
	t.Helper()
	must(t, p.Process.Signal(syscall.SIGTERM))
	if code := p.wait(t); code != 0 {
		t.Errorf("after SIGTERM: exit code %d, want 0; it said:\n%s", code, p.output)
	}
}

// eventually waits for a condition, however long it takes up to patience, and says how long it took.
func eventually(t *testing.T, what string, condition func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	var err error
	for time.Since(begin) < patience {
		if err = condition(); err == nil {
			return time.Since(begin)
		}
		pause(2 * time.Millisecond)
	}
	t.Fatalf("%s: not within %v: %v", what, patience, err)
	return 0
}

// pause spaces out the tries of eventually; nothing depends on its length.
func pause(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

// ask sends one question over UDP or TCP and returns the reply.
func ask(addr, network, name string, qtype uint16, edit ...func(*dns.Msg)) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	for _, e := range edit {
		e(m)
	}
	client := dns.Client{Net: network, Timeout: 3 * time.Second, UDPSize: dns.MaxMsgSize}
	reply, _, err := client.Exchange(m, addr)
	return reply, err
}

// answers are the addresses, targets or texts of the reply's answer section.
func answers(m *dns.Msg) []string {
	var got []string
	for _, rr := range m.Answer {
		fields := strings.Fields(rr.String())
		got = append(got, strings.Join(fields[3:], " "))
	}
	return got
}

// freePort is a port of 127.0.0.1 that nobody holds just now, UDP and TCP. It lies below the range that the kernel hands out
// by itself, where another test's connection could take it before the daemon does.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(10000+rand.IntN(20000)))
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		if err != nil {
			continue
		}
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		must(t, tcp.Close())
		if err == nil {
			must(t, udp.Close())
			return int(addr.Port())
		}
	}
	t.Fatal("no free port on 127.0.0.1")
	return 0
}

func run(t *testing.T, cmd *exec.Cmd) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
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

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// syncBuffer is a buffer that a process writes while the test reads.
type syncBuffer struct {
	mu  sync.Mutex // guards following
	buf bytes.Buffer
}

var _ io.Writer = (*syncBuffer)(nil)

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
