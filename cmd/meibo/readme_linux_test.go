package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"meibo/bench/hosttest"
	"meibo/bench/netswitch"
	"meibo/cmd/meibo/config"
)

// readmeStep is one block of commands of the README.
type readmeStep struct {
	begins string   // its first line
	skip   string   // why it can't run; else:
	on     string   // the hosts that it runs on, one after another
	stays  string   // its last command stays in the foreground: a daemon, which is ready once it accepts on this port
	want   []string // patterns of what it prints; commands that only look are run until they do
	looks  bool     // it changes nothing, and may exit with what it sees
	never  string   // a pattern of what it must not print
	then   func(*readmeHost)
}

// readmeSteps are all blocks of commands of the README, in its order. A word in capitals is what a reader fills in.
func readmeSteps() []readmeStep {
	const cluster, servers, others = "s1 s2 s3 a1 a2", "s1 s2 s3", "a1 a2"
	reads := func(h *readmeHost) { h.site.fill["THE-KEY"] = strings.TrimSpace(h.said) }
	return []readmeStep{
		{begins: "make run", on: "d1", stays: "8500"},
		{begins: "dig @127.0.0.1 -p 8600 web.service.consul", on: "d1", looks: true, want: []string{
			`web\.service\.consul\.\s+5\s+IN\s+A\s+127\.0\.0\.2`, `IN\s+SRV\s+1 3 8082 `, `db +127\.0\.0\.1:5432 +critical +left out +check port 5432 accepts is critical: `,
		}},
		{begins: "make test", skip: "this test is part of it"},

		{begins: "make build", on: cluster + " c1"},
		{begins: "sudo tee /etc/meibo.d/meibo.hcl <<'EOF'", on: cluster},
		{begins: "meibo validate /etc/meibo.d", on: cluster, stays: "8500", want: []string{`Configuration is valid! \(2 files, 1 service, 1 check\)`}},
		{begins: "dig @127.0.0.1 web.service.consul", on: cluster, looks: true, want: []string{
			`web\.service\.consul\.\s+0\s+IN\s+A\s+10\.0\.0\.`, `debian\.org\.\s+[0-9]+\s+IN\s+A\s+192\.0\.2\.80`,
		}, then: (*readmeHost).resolvesByMeibo},

		{begins: "sudo meibo migrate\n", skip: "wants systemd: packaging's tests run it on booted hosts"},
		{begins: "meibo resolv status", on: "a1", want: []string{
			`(?s)state +installed, taken over.*10\.0\.0\.21 +web\.service\.consul.*state +off: nothing is changed`, `owner +nobody: `, `/etc/resolv\.conf +replaced +as written`,
		}},

		{begins: "sudo tee /etc/meibo.d/meibo.hcl <<'EOF'", on: "c1", stays: "8510"},
		{begins: "dig @127.0.0.1 -p 5300 web.service.consul", on: "c1", looks: true, want: []string{
			`IN\s+A\s+10\.0\.0\.99`, `from +upstream 127\.0\.0\.1:8600`,
		}, never: `known by`},

		{begins: "meibo keygen", on: "s1", want: []string{`^[A-Za-z0-9+/]{43}=\n$`}, then: reads},
		{begins: "sudo install -m 0600 /dev/stdin /etc/meibo.d/cluster.hcl <<'EOF'", on: servers},
		{begins: "sudo install -m 0600 /dev/stdin /etc/meibo.d/cluster.hcl <<'EOF'", on: others},
		{begins: "sudo meibo validate /etc/meibo.d", on: cluster, stays: "8500", want: []string{`Configuration is valid! \(3 files, `}},
		{begins: "meibo members ", on: cluster, looks: true, want: []string{
			`(?m)^s3 +10\.0\.0\.13:8301 +alive +server`, `(?m)^a2 +10\.0\.0\.22:8301 +alive +client`, `(?m)^s[123] .* leader +true`,
			`IN\s+A\s+10\.0\.0\.11`, `IN\s+A\s+10\.0\.0\.12`, `IN\s+A\s+10\.0\.0\.13`, `IN\s+A\s+10\.0\.0\.21`, `IN\s+A\s+10\.0\.0\.22`,
		}},
		{begins: "NEW=$(meibo keygen)", on: "s2", want: []string{`\[5/5\]`}, then: (*readmeHost).hasOneKey},

		{begins: "make bench-cluster", skip: "five minutes of two cores; bench/cluster's tests have a small one"},
	}
}

// TestReadme follows the README from scratch: every block of commands, in order, as it stands there, on hosts that have
// nothing but the source.
func TestReadme(t *testing.T) {
	blocks := readmeBlocks(t)
	inHost(t, func(t *testing.T) {
		site := newReadmeSite(t)
		begin := time.Now()
		for i, step := range readmeSteps() {
			if step.skip != "" {
				continue
			}
			for _, name := range strings.Fields(step.on) {
				site.host(name).follow(blocks[i], step)
			}
			t.Logf("%6.1f s  README.md:%d: %s", time.Since(begin).Seconds(), blocks[i].line, step.begins)
		}
		for _, h := range site.hosts {
			h.stop()
		}
	})
}

// TestReadme_ShowsWhatIsPrintedToTry holds the first commands of the README to those that the daemon prints.
func TestReadme_ShowsWhatIsPrintedToTry(t *testing.T) {
	cfg, _, err := config.Load(config.Sources{Paths: []string{"../../packaging/example"}, Partial: true})
	must(t, err)
	printed := strings.Join(tries(cfg, cfg.Listen[0], "bin/meibo"), "\n") + "\n"
	if block := readmeBlocks(t)[1]; block.text != printed {
		t.Errorf("README.md:%d: it says\n%s`make run` prints\n%s", block.line, block.text, printed)
	}
}

// readmeBlock is a fenced block of the README.
type readmeBlock struct {
	line int // of its first line
	lang string
	text string
}

var fence = regexp.MustCompile("^( *)```([a-z]*)$")

// readmeBlocks returns the blocks of commands, which are those that readmeSteps names.
func readmeBlocks(t *testing.T) []readmeBlock {
	t.Helper()
	data, err := os.ReadFile("../../README.md")
	must(t, err)
	var commands []readmeBlock
	var open *readmeBlock
	var indent string
	for i, line := range strings.Split(string(data), "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case m != nil && open == nil:
			open, indent = &readmeBlock{line: i + 2, lang: m[2]}, m[1]
			if !slices.Contains([]string{"sh", "hcl", "json", "text"}, open.lang) {
				t.Errorf("README.md:%d: a block of the language %q: commands are sh, what is no command is hcl, json or text", i+1, open.lang)
			}
		case m != nil:
			switch open.lang {
			case "sh":
				commands = append(commands, *open)
			case "hcl":
				if _, err := config.Validate([]string{writeFile(t, t.TempDir(), "readme.hcl", open.text)}, ""); err != nil {
					t.Errorf("README.md:%d: a part of a configuration that is not valid: %v", open.line, err)
				}
			}
			open = nil
		case open != nil:
			open.text += strings.TrimPrefix(line, indent) + "\n"
		case strings.HasPrefix(line, "    "):
			t.Errorf("README.md:%d: a block without a fence: nothing would tell whether it is commands, which are to run here", i+1)
		}
	}
	steps := readmeSteps()
	for i := range max(len(commands), len(steps)) {
		switch {
		case i >= len(steps):
			t.Fatalf("README.md:%d: a block that readmeSteps does not have:\n%s", commands[i].line, commands[i].text)
		case i >= len(commands):
			t.Fatalf("the README has no block any more that begins %q", steps[i].begins)
		case !strings.HasPrefix(commands[i].text, steps[i].begins):
			t.Fatalf("README.md:%d: the next block of readmeSteps begins %q, this one is:\n%s", commands[i].line, steps[i].begins, commands[i].text)
		}
	}
	return commands
}

// readmeSite is the hosts that the README is followed on, and the world outside them.
type readmeSite struct {
	t     *testing.T
	net   *netswitch.Switch
	repo  string
	dir   string
	hosts map[string]*readmeHost
	fill  map[string]string // what the reader fills in for the words in capitals
}

// readmeHost is a machine with a user at its keyboard: namespaces for its network, files and name.
type readmeHost struct {
	site   *readmeSite
	name   string
	addr   netip.Addr
	do     chan func()
	daemon *process
	said   string // by the last block
}

func newReadmeSite(t *testing.T) *readmeSite {
	t.Helper()
	repo, err := filepath.Abs("../..")
	must(t, err)
	s := &readmeSite{t: t, net: netswitch.New(t), repo: repo, dir: t.TempDir(), hosts: map[string]*readmeHost{}, fill: map[string]string{}}
	must(t, unix.Mount("tmpfs", s.dir, "tmpfs", 0, "mode=0755"))
	t.Cleanup(func() { _ = unix.Unmount(s.dir, unix.MNT_DETACH) })
	// What is built and installed is so for all hosts, and for nobody else.
	for _, dir := range []string{repo, "/usr/local/bin"} {
		err := s.cover(dir, "all")
		if errors.Is(err, unix.EPERM) {
			t.Skipf("this machine lets this user keep no folder from others (%v): run as root", err)
		}
		must(t, err)
	}
	s.programs()
	addrs := map[string]string{"d1": "10.0.0.9", "s1": "10.0.0.11", "s2": "10.0.0.12", "s3": "10.0.0.13", "a1": "10.0.0.21", "a2": "10.0.0.22", "c1": "10.0.0.31", "world": "10.0.0.254"}
	for name, addr := range addrs {
		s.hosts[name] = &readmeHost{site: s, name: name, addr: netip.MustParseAddr(addr)}
		s.hosts[name].boot()
	}
	build := exec.Command("make", "build") // from nothing it may take longer than patience
	build.Dir = repo
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	s.host("world").answers("192.0.2.53:53", "debian.org.", "192.0.2.80")
	s.host("c1").hasConsulAndDnsmasq()
	return s
}

// cover makes changes of a folder invisible to all but this mount namespace.
func (s *readmeSite) cover(dir, whose string) error {
	upper := filepath.Join(s.dir, whose, strings.ReplaceAll(dir, "/", "_"))
	for _, d := range []string{upper, upper + ".work"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s.work", dir, upper, upper)
	if err := unix.Mount("overlay", dir, "overlay", 0, options); err != nil {
		return fmt.Errorf("cover %s: %w", dir, err)
	}
	return nil
}

// programs are what the commands need besides what is on every machine: sudo, as who runs the test may do all that there
// is to do here, and dig.
func (s *readmeSite) programs() {
	writeFile(s.t, s.dir, "bin/sudo", "#!/bin/sh\nexec \"$@\"\n")
	must(s.t, os.Chmod(filepath.Join(s.dir, "bin/sudo"), 0o755))
	if _, err := exec.LookPath("dig"); err == nil {
		return
	}
	if root := peersRoot(); root != "" {
		writeFile(s.t, s.dir, "bin/dig", fmt.Sprintf("#!/bin/sh\nexec chroot %q %s \"$@\"\n", root, hosttest.PeerPath(root, "dig")))
		must(s.t, os.Chmod(filepath.Join(s.dir, "bin/dig"), 0o755))
		return
	}
	self, err := os.Executable()
	must(s.t, err)
	must(s.t, os.Symlink(self, filepath.Join(s.dir, "bin/dig")))
}

func (s *readmeSite) host(name string) *readmeHost {
	s.t.Helper()
	h := s.hosts[name]
	if h == nil {
		s.t.Fatalf("no host %s", name)
	}
	return h
}

// boot makes the host: its name, its addresses, and files that nobody else sees. Its users' service listens on port 8080.
func (h *readmeHost) boot() {
	t := h.site.t
	t.Helper()
	last := h.addr.As4()[3]
	h.do = h.site.net.Attach(t, last, h.addr, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Sethostname([]byte(h.name)); err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		outside := netip.AddrFrom4([4]byte{192, 0, 2, last})
		if h.name == "world" {
			outside = netip.AddrFrom4([4]byte{192, 0, 2, 53})
		}
		if err := netswitch.SetAddr(fd, "eth0:1", outside); err != nil {
			return err
		}
		_ = unix.Unmount("/etc/resolv.conf", unix.MNT_DETACH) // the one of inHost; this host has its own
		for _, dir := range []string{"/etc", "/var/lib", "/run"} {
			if err := h.site.cover(dir, h.name); err != nil {
				return err
			}
		}
		// Whoever writes resolv.conf on this machine is not on this host.
		for _, path := range []string{"/run/systemd", "/run/NetworkManager", "/run/resolvconf", "/etc/resolv.conf"} {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
		return os.WriteFile("/etc/resolv.conf", []byte("nameserver 192.0.2.53\n"), 0o644)
	})
	h.inside(func() {
		l, err := net.Listen("tcp", "127.0.0.1:8080")
		must(t, err)
		h.serve(l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	})
}

func (h *readmeHost) inside(f func()) {
	done := make(chan struct{})
	h.do <- func() { defer close(done); f() }
	<-done
}

func (h *readmeHost) serve(l net.Listener, handler http.Handler) {
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	h.site.t.Cleanup(func() { _ = server.Close(); <-done })
}

// answers serves one name over DNS, UDP and TCP; all others don't exist there.
func (h *readmeHost) answers(at, name, addr string) {
	t := h.site.t
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if m.RecursionAvailable = true; q.Question[0].Name == "." {
			rr, _ := dns.NewRR(". 60 IN NS a.root-servers.net.")
			m.Answer = append(m.Answer, rr)
		} else if q.Question[0].Name != name {
			m.Rcode = dns.RcodeNameError
		} else if q.Question[0].Qtype == dns.TypeA {
			rr, _ := dns.NewRR(name + " 60 IN A " + addr)
			m.Answer = append(m.Answer, rr)
		}
		_ = w.WriteMsg(m)
	})
	h.inside(func() {
		p, err := net.ListenPacket("udp", at)
		must(t, err)
		l, err := net.Listen("tcp", at)
		must(t, err)
		for _, server := range []*dns.Server{{PacketConn: p, Handler: handler}, {Listener: l, Handler: handler}} {
			started, ended := make(chan struct{}), make(chan struct{})
			server.NotifyStartedFunc = func() { close(started) }
			go func() { defer close(ended); _ = server.ActivateAndServe() }()
			<-started
			t.Cleanup(func() { _ = server.Shutdown(); <-ended })
		}
	})
}

// hasConsulAndDnsmasq takes the ports that they take.
func (h *readmeHost) hasConsulAndDnsmasq() {
	h.answers("0.0.0.0:53", "nothing.", "192.0.2.1")
	h.answers("127.0.0.1:8600", "web.service.consul.", "10.0.0.99")
	h.answers("0.0.0.0:8301", "nothing.", "192.0.2.1")
	h.inside(func() {
		for _, at := range []string{"127.0.0.1:8500", "0.0.0.0:8300"} {
			l, err := net.Listen("tcp", at)
			must(h.site.t, err)
			h.serve(l, http.HandlerFunc(consulAgent))
		}
	})
}

// follow does what a block says, and looks at what comes of it.
func (h *readmeHost) follow(b readmeBlock, step readmeStep) {
	t := h.site.t
	t.Helper()
	text := b.text
	for word, value := range h.site.fill {
		text = strings.ReplaceAll(text, word, value)
	}
	what := fmt.Sprintf("README.md:%d on %s", b.line, h.name)
	if step.stays != "" {
		h.stop()
		h.inside(func() { h.daemon = start(t, h.shell(text, "-ec", true)) })
		eventually(t, what, func() error { return h.ready("127.0.0.1:" + step.stays) })
		h.said = h.daemon.Output.String()
	} else {
		eventually(t, what, func() error {
			flags := "-ec"
			if step.looks {
				flags = "-c"
			}
			out, err := h.run(text, flags)
			if h.said = out; step.looks {
				return lacks(out, step.want)
			}
			if err != nil {
				t.Fatalf("%s: %v; it printed:\n%s", what, err, out)
			}
			return nil
		})
	}
	if err := lacks(h.said, step.want); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if step.never != "" && regexp.MustCompile(step.never).MatchString(h.said) {
		t.Errorf("%s: %s is in:\n%s", what, step.never, h.said)
	}
	if step.then != nil {
		step.then(h)
	}
}

// lacks says which pattern the output has nothing of.
func lacks(out string, patterns []string) error {
	for _, p := range patterns {
		if !regexp.MustCompile(p).MatchString(out) {
			return fmt.Errorf("nothing like %s in:\n%s", p, out)
		}
	}
	return nil
}

// shell is a shell on the host in the folder of the source, as if text was typed.
func (h *readmeHost) shell(text, flags string, daemon bool) *exec.Cmd {
	cmd := exec.Command("sh", flags, text)
	cmd.Dir = h.site.repo
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(h.site.dir, "bin")+":/usr/local/bin:"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if daemon { // whatever ends the shell ends what it started
		cmd.SysProcAttr.Cloneflags, cmd.SysProcAttr.Setpgid = syscall.CLONE_NEWPID, true
	}
	return cmd
}

func (h *readmeHost) run(text, flags string) (out string, err error) {
	h.inside(func() { out, err = run(h.site.t, h.shell(text, flags, false)) })
	return out, err
}

// ready reports whether something on the host accepts at an address, or that the daemon has ended.
func (h *readmeHost) ready(addr string) (err error) {
	select {
	case <-h.daemon.Done:
		h.site.t.Fatalf("on %s: it ended and said:\n%s", h.name, h.daemon.Output)
	default:
	}
	h.inside(func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", addr, time.Second); err == nil {
			c.Close()
		}
	})
	return err
}

// stop is Ctrl-C at the terminal in which the daemon runs.
func (h *readmeHost) stop() {
	if h.daemon == nil {
		return
	}
	t := h.site.t
	t.Helper()
	must(t, unix.Kill(-h.daemon.Process.Pid, unix.SIGINT))
	h.daemon.Exit(t) // the exit code is the shell's, which tells of the key
	for line := range strings.Lines(h.daemon.Output.String()) {
		if strings.Contains(line, "level=ERROR") {
			t.Errorf("on %s, where everything was done as it is written: %s", h.name, line)
		}
	}
	h.daemon = nil
}

// resolvesByMeibo is what a host is once its resolv.conf names meibo.
func (h *readmeHost) resolvesByMeibo() {
	if out, err := h.run("getent hosts web.service.consul", "-ec"); err != nil || !strings.Contains(out, h.addr.String()) {
		h.site.t.Errorf("on %s: getent: %q, %v", h.name, out, err)
	}
}

// hasOneKey is what a rotation comes to: the old one is nobody's.
func (h *readmeHost) hasOneKey() {
	out, err := h.run("meibo keyring list", "-ec")
	if err != nil || strings.Contains(out, h.site.fill["THE-KEY"]) || !strings.Contains(out, "[5/5]") {
		h.site.t.Errorf("on %s after the rotation: %v\n%s", h.name, err, out)
	}
}

// standInDig is dig where there is none, as far as the README uses it: dig @SERVER [-p PORT] NAME [TYPE].
func standInDig(args []string) int {
	server, port, qtype, name := "127.0.0.1", "53", uint16(dns.TypeA), ""
	for i := 0; i < len(args); i++ {
		switch t, isType := dns.StringToType[args[i]]; {
		case strings.HasPrefix(args[i], "@"):
			server = args[i][1:]
		case args[i] == "-p" && i+1 < len(args):
			i++
			port = args[i]
		case isType:
			qtype = t
		default:
			name = args[i]
		}
	}
	reply, err := ask(net.JoinHostPort(server, port), "udp", name, qtype)
	if err != nil {
		fmt.Println(";;", err)
		return 9
	}
	fmt.Println(reply)
	return 0
}
