package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"meibo/cluster/httpapi/client"
	"meibo/resolver/resolvconf"
)

// TestMain is also a process that has a port: run under the name of one that is known for it.
func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); name == "dnsmasq" || name == "systemd-resolve" {
		conn, err := net.ListenPacket("udp", os.Args[1])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends
		conn.Close()
		return
	}
	if filepath.Base(os.Args[0]) == "nobody" { // may not read the configuration of the root that it examines
		h := Host{Root: os.Args[1], FilesOnly: true}
		_ = json.NewEncoder(os.Stdout).Encode(Examine(context.Background(), &h))
		return
	}
	goleak.VerifyTestMain(m)
}

const key = "pYJZQ2pm0B5zFmS2uS9oN0Y5VQ6Zc6f1n1m9r0k3b1E=" // of nobody

// host is a healthy host: a tree of files, its DNS, its upstream, and a daemon that answers.
type host struct {
	Host
	t        *testing.T
	meibo    netip.AddrPort // DNS
	upstream netip.AddrPort
	self     client.Self
	selfErr  error
	standing client.Standing
}

// Self implements Agent.
func (h *host) Self(context.Context) (*client.Self, error) { return &h.self, h.selfErr }

// Standing implements Agent.
func (h *host) Standing(context.Context, string) (*client.Standing, error) { return &h.standing, nil }

func newHost(t *testing.T) *host {
	h := &host{t: t, Host: Host{Root: t.TempDir(), clock: func() (clock, error) { return clock{synced: true}, nil }}}
	h.Agent = h
	h.meibo, h.upstream = serve(t, answers), serve(t, answers)
	h.self.Config.NodeName, h.self.Config.Version = "h1", "1.21.0+meibo.0.9.0"
	h.standing.Node = "h1"
	for i, name := range []string{"h1", "h2", "h3"} {
		h.standing.Members = append(h.standing.Members, client.MemberDetail{
			Name: name, Addr: "127.0.0.1", Port: listenTCP(t), State: "alive",
			Tags: map[string]string{"role": "consul", "meibo": "v0.9.0", "port": fmt.Sprint(listenTCP(t))}, Flaps: i,
		})
	}
	h.write("etc/resolv.conf", "nameserver 127.0.0.1\nsearch example.net\n")
	h.write("etc/nsswitch.conf", "passwd: files\nhosts: files dns\n")
	h.write("etc/docker/daemon.json", `{"dns": ["172.17.0.1"]}`)
	h.write("usr/lib/systemd/system/meibo.service", "[Service]\n")
	h.write("usr/lib/systemd/system/meibo.socket", "[Socket]\nListenStream=127.0.0.1:53\n")
	h.link("/usr/lib/systemd/system/meibo.service", "etc/systemd/system/multi-user.target.wants/meibo.service")
	h.link("/usr/lib/systemd/system/meibo.socket", "etc/systemd/system/sockets.target.wants/meibo.socket")
	h.write("var/lib/meibo/serf/local.keyring", "[]")
	h.mode("var/lib/meibo/serf/local.keyring", 0o600)
	h.mode("var/lib/meibo", 0o700)
	h.configure("")
	return h
}

func (h *host) at(path string) string { return filepath.Join(h.Root, path) }

func (h *host) write(path, text string) {
	h.t.Helper()
	must(h.t, os.MkdirAll(filepath.Dir(h.at(path)), 0o755))
	must(h.t, os.WriteFile(h.at(path), []byte(text), 0o644))
}

func (h *host) link(to, path string) {
	h.t.Helper()
	must(h.t, os.MkdirAll(filepath.Dir(h.at(path)), 0o755))
	_ = os.Remove(h.at(path))
	must(h.t, os.Symlink(to, h.at(path)))
}

func (h *host) mode(path string, mode fs.FileMode) {
	h.t.Helper()
	must(h.t, os.Chmod(h.at(path), mode))
}

func (h *host) remove(path string) { must(h.t, os.Remove(h.at(path))) }

// configure writes the configuration as the host is, and more of it.
func (h *host) configure(more string) {
	h.write("etc/meibo.d/host.hcl", fmt.Sprintf("data_dir = \"/var/lib/meibo\"\nnode_name = \"h1\"\nencrypt = %q\nlisten = [\"%s\"]\n%s\n", key, h.meibo, more))
	h.mode("etc/meibo.d/host.hcl", 0o640)
	if h.upstream.IsValid() {
		h.write("etc/meibo.d/upstream.hcl", fmt.Sprintf("recursors = [\"%s\"]\n", h.upstream))
	} else {
		_ = os.Remove(h.at("etc/meibo.d/upstream.hcl"))
	}
}

// forwardsTo gives it another upstream.
func (h *host) forwardsTo(upstream netip.AddrPort) {
	h.upstream = upstream
	h.configure("")
}

// taken has a process of this name take the address of DNS.
func (h *host) taken(name string) {
	self, err := os.Executable()
	must(h.t, err)
	h.meibo = netip.AddrPortFrom(loopback, freeUDP(h.t))
	h.configure("")
	program := filepath.Join(h.t.TempDir(), name)
	must(h.t, os.Symlink(self, program))
	cmd := exec.Command(program, h.meibo.String())
	in, err := cmd.StdinPipe()
	must(h.t, err)
	out, err := cmd.StdoutPipe()
	must(h.t, err)
	must(h.t, cmd.Start())
	h.t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	said := make([]byte, 5)
	if _, err := io.ReadFull(out, said); err != nil || string(said) != "ready" {
		h.t.Fatalf("%s: %q, %v", name, said, err)
	}
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answers is what a good server says, and meibo.
func answers(w dns.ResponseWriter, q *dns.Msg) {
	reply := new(dns.Msg).SetReply(q)
	switch question := q.Question[0]; {
	case question.Qclass == dns.ClassCHAOS:
		reply.Answer = append(reply.Answer, record("version.bind. 0 CH TXT \"meibo v0.9.0\""))
	case question.Qtype == dns.TypeNS:
		reply.Answer = append(reply.Answer, record(". 60 IN NS a.root-servers.net."))
	default:
		reply.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(reply)
}

func record(text string) dns.RR {
	rr, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return rr
}

// serve answers over UDP and TCP at one port.
func serve(t *testing.T, handler dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	return serveBy(t, handler, true)
}

func serveBy(t *testing.T, handler dns.HandlerFunc, tcp bool) netip.AddrPort {
	t.Helper()
	for range 20 {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		must(t, err)
		at := packets.LocalAddr().(*net.UDPAddr).AddrPort()
		if !tcp {
			run(t, &dns.Server{PacketConn: packets, Handler: handler})
			return at
		}
		stream, err := net.Listen("tcp", at.String())
		if err != nil { // somebody else's
			packets.Close()
			continue
		}
		run(t, &dns.Server{PacketConn: packets, Handler: handler})
		run(t, &dns.Server{Listener: stream, Handler: handler})
		return at
	}
	t.Fatal("no port is free for both UDP and TCP")
	return netip.AddrPort{}
}

func run(t *testing.T, s *dns.Server) {
	started, ended := make(chan struct{}), make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	go func() {
		defer close(ended)
		_ = s.ActivateAndServe()
	}()
	<-started
	t.Cleanup(func() { _ = s.Shutdown(); <-ended })
}

// listenTCP takes connections, and says nothing.
func listenTCP(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// silent has a socket that never answers.
func silent(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// freeUDP is a port below those that are handed out, so that nobody gets it meanwhile.
func freeUDP(t *testing.T) uint16 {
	t.Helper()
	for range 200 {
		p := uint16(20000 + next.Add(1)%10000)
		u, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			continue
		}
		u.Close()
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			continue
		}
		l.Close()
		return p
	}
	t.Fatal("no port is free")
	return 0
}

var next atomic.Uint32

func init() { next.Store(uint32(os.Getpid() * 7)) }

// TestExamine_AHealthyHost has nothing to complain of.
func TestExamine_AHealthyHost(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	found := Examine(t.Context(), &h.Host)
	for _, f := range found {
		if f.Status != OK || f.What == "" || f.Check == "" {
			t.Errorf("%+v", f)
		}
	}
	for _, c := range checks {
		if !slices.ContainsFunc(found, func(f Finding) bool { return f.Check == c.name }) {
			t.Errorf("nothing was said of %s", c.name)
		}
	}
	if Worst(found) != OK {
		t.Errorf("worst is %s", Worst(found))
	}
}

// TestExamine_PlantedFaults are found, each by the check that it is for, with what mends it; nothing else is blamed, nothing
// is changed, and no secret told.
func TestExamine_PlantedFaults(t *testing.T) {
	const w, c = Warning, Critical
	tests := []struct {
		name   string
		plant  func(*host)
		check  string
		status Status
		what   string // a regexp
		mend   string
		also   []string // checks that have to complain too
	}{
		{"dnsmasq has the port", func(h *host) { h.taken("dnsmasq") }, "port", c, `127\.0\.0\.1:\d+ is taken by dnsmasq \(pid \d+\)`, "`meibo migrate`", nil},
		{"systemd-resolved has the port", func(h *host) { h.taken("systemd-resolve") }, "port", c, `is taken by systemd-resolve \(pid \d+\)`, "DNSStubListener=no", nil},
		{"nobody answers", func(h *host) { h.meibo = netip.AddrPortFrom(loopback, freeUDP(h.t)); h.configure("") }, "port", c, "nobody answers DNS at", "systemctl start meibo", nil},
		{"another server answers in place of meibo", func(h *host) {
			h.meibo = serve(h.t, func(w dns.ResponseWriter, q *dns.Msg) {
				_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeNotImplemented))
			})
			h.configure("")
		}, "port", c, `is taken by doctor\.test \(pid`, "stop and disable it, or give meibo another address", nil},

		{"programs ask another server", func(h *host) { h.write("etc/resolv.conf", "nameserver 192.0.2.1\n") }, "resolv.conf", w, `programs ask 192\.0\.2\.1, not meibo at 127\.0\.0\.1; the file's owner: nobody`, "`meibo resolv install`", nil},
		{"programs ask another server, by NetworkManager", func(h *host) {
			h.write("etc/resolv.conf", "# Generated by NetworkManager\nnameserver 192.0.2.1\n")
			h.write("run/NetworkManager/NetworkManager.conf", "")
		}, "resolv.conf", w, `owner: NetworkManager \(its head says so\)`, "`meibo resolv install`", nil},
		{"a second nameserver beside ours", func(h *host) { h.write("etc/resolv.conf", "nameserver 127.0.0.1\nnameserver 192.0.2.1\n") }, "resolv.conf", w, `names 192\.0\.2\.1 beside meibo`, "take them out", nil},
		{"another nameserver before ours", func(h *host) { h.write("etc/resolv.conf", "nameserver 192.0.2.1\nnameserver 127.0.0.1\n") }, "resolv.conf", c, `names 192\.0\.2\.1 before meibo`, "take the other lines out", nil},
		{"too many nameservers", func(h *host) {
			h.write("etc/resolv.conf", "nameserver 127.0.0.1\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n")
		}, "resolv.conf", w, "names 4 servers: the C library takes the first three", "leave one of them", nil},
		{"resolv.conf leads nowhere", func(h *host) { h.link("../run/systemd/resolve/stub-resolv.conf", "etc/resolv.conf") }, "resolv.conf", c, `is a link to \.\./run/systemd/resolve/stub-resolv\.conf, which is not there`, "remove the link", nil},
		{"resolv.conf is root's alone", func(h *host) { h.mode("etc/resolv.conf", 0o600) }, "resolv.conf", c, `not readable by all \(mode 0600\)`, "`chmod 0644 /etc/resolv.conf`", nil},
		{"resolv.conf is a folder", func(h *host) { h.remove("etc/resolv.conf"); must(h.t, os.Mkdir(h.at("etc/resolv.conf"), 0o755)) }, "resolv.conf", c, "is not a file", "must be a file that everybody may read", nil},
		{"resolv.conf is missing", func(h *host) { h.remove("etc/resolv.conf") }, "resolv.conf", w, "there is no /etc/resolv.conf", "`meibo resolv install` writes it", nil},
		{"ndots", func(h *host) {
			h.write("etc/resolv.conf", "nameserver 127.0.0.1\nsearch a.net b.net\noptions ndots:5\n")
		}, "resolv.conf", w, `ndots:5: a name with fewer dots is first asked for below each of 2 search domains`, "take ndots out", nil},
		{"a line that makes no sense", func(h *host) { h.write("etc/resolv.conf", "nameserver 127.0.0.1\nnamserver 192.0.2.1\n") }, "resolv.conf", w, `line 2: unknown keyword "namserver"`, "mend it", nil},
		{"resolv.conf was overwritten", func(h *host) {
			h.write("etc/resolv.conf", "nameserver 192.0.2.1\n")
			_, err := (&resolvconf.Host{Root: h.Root}).Install(h.t.Context(), resolvconf.Options{})
			must(h.t, err)
			h.write("etc/resolv.conf", "nameserver 192.0.2.9\n")
		}, "resolv.conf", c, "was overwritten by others since `meibo resolv install`", "`meibo resolv install` takes it over anew", nil},

		{"nsswitch never asks DNS", func(h *host) { h.write("etc/nsswitch.conf", "hosts: files myhostname\n") }, "nsswitch", c, `"hosts: files myhostname": programs never ask DNS`, "hosts: files dns", nil},
		{"nsswitch asks systemd-resolved", func(h *host) {
			h.write("etc/nsswitch.conf", "hosts: files resolve [!UNAVAIL=return] dns\n")
			h.write("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.1\n")
		}, "nsswitch", w, "programs ask systemd-resolved, whatever resolv.conf says", "`meibo resolv install`", nil},
		{"nsswitch gives .local to multicast", func(h *host) { h.write("etc/nsswitch.conf", "hosts: files mdns4_minimal [NOTFOUND=return] dns\n") }, "nsswitch", w, `names below \.local are asked of multicast DNS alone`, `take \[NOTFOUND=return\] behind mdns4_minimal out`, nil},
		{"nsswitch ends before DNS", func(h *host) { h.write("etc/nsswitch.conf", "hosts: files[NOTFOUND=return]dns\n") }, "nsswitch", c, "what files does not know is never asked of DNS", `take \[NOTFOUND=return\] out`, nil},

		{"Docker falls back to public servers", func(h *host) { h.write("etc/docker/daemon.json", `{"log-driver": "journald"}`) }, "docker", w, `8\.8\.8\.8 and 8\.8\.4\.4`, "`meibo resolv docker -apply`", nil},
		{"Docker hands out loopback", func(h *host) { h.write("etc/docker/daemon.json", `{"dns": ["127.0.0.1"]}`) }, "docker", c, `names 127\.0\.0\.1 for containers, which is each container itself`, "`meibo resolv docker -apply`", nil},
		{"Docker's file is damaged", func(h *host) { h.write("etc/docker/daemon.json", `{"dns": [`) }, "docker", c, "is no JSON", "dockerd --validate", nil},
		{"kubelet hands out loopback", func(h *host) { h.write("var/lib/kubelet/config.yaml", "kind: KubeletConfiguration\n") }, "kubelet", w, "CoreDNS in a pod asks itself", "resolvConf: /run/meibo/resolv.conf", nil},

		{"upstream is silent", func(h *host) { h.forwardsTo(silent(h.t)) }, "upstreams", c, "does not answer within 2s", "whether a firewall lets UDP port", nil},
		{"one of two upstreams is silent", func(h *host) { h.configure(fmt.Sprintf("recursors = [\"%s\"]", silent(h.t))) }, "upstreams", w, "does not answer within 2s", "name another one", nil},
		{"upstream is not there", func(h *host) { h.forwardsTo(netip.AddrPortFrom(loopback, freeUDP(h.t))) }, "upstreams", c, "nobody listens", "start it, or take it out", nil},
		{"upstream is slow", func(h *host) {
			// The fault is slowness itself, and no other time is to be had over a socket.
			h.forwardsTo(serve(h.t, func(w dns.ResponseWriter, q *dns.Msg) { time.Sleep(slow + 50*time.Millisecond); answers(w, q) }))
		}, "upstreams", w, `takes \d+ms for what it has in its cache`, "name one that is nearer", nil},
		{"upstream answers another question", func(h *host) {
			h.forwardsTo(serve(h.t, func(w dns.ResponseWriter, q *dns.Msg) {
				other := q.Copy()
				other.Question[0].Name = "portal.example."
				answers(w, other)
			}))
		}, "upstreams", c, "answers other than what it was asked", "captive portal", nil},
		{"upstream has every name", func(h *host) {
			h.forwardsTo(serve(h.t, func(w dns.ResponseWriter, q *dns.Msg) {
				reply := new(dns.Msg).SetReply(q)
				reply.Answer = append(reply.Answer, record(q.Question[0].Name+" 60 IN A 192.0.2.66"))
				_ = w.WriteMsg(reply)
			}))
		}, "upstreams", w, "has addresses for names that do not exist", "have that switched off", nil},
		{"upstream without TCP", func(h *host) { h.forwardsTo(serveBy(h.t, answers, false)) }, "upstreams", w, "not over TCP", `let TCP port \d+ through`, nil},
		{"upstream refuses", func(h *host) {
			h.forwardsTo(serve(h.t, func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeRefused)) }))
		}, "upstreams", c, "refuses this host", "have it allow recursion", nil},
		{"upstream has no way out", func(h *host) {
			h.forwardsTo(serve(h.t, func(w dns.ResponseWriter, q *dns.Msg) {
				_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
			}))
		}, "upstreams", w, "answers SERVFAIL for the root", "mend it where it runs", nil},
		{"upstream asks meibo", func(h *host) {
			h.write("run/systemd/resolve/resolv.conf", "nameserver 127.0.0.1\n")
			h.forwardsTo(netip.MustParseAddrPort("127.0.0.53:53"))
		}, "upstreams", c, `127\.0\.0\.53:53 asks meibo: questions go round in a circle`, "name the true servers", nil},
		{"no upstream", func(h *host) { h.forwardsTo(netip.AddrPort{}) }, "upstreams", c, "no upstream server is known", `recursors = \["ADDRESS"\]`, nil},

		{"configuration has a fault", func(h *host) { h.write("etc/meibo.d/fault.hcl", "data_dirr = \"/x\"\n") }, "configuration", c, `would not start: .*fault\.hcl.*data_dirr`, "`meibo validate /etc/meibo.d`", []string{"port", "upstreams"}},
		{"configuration is missing", func(h *host) { must(h.t, os.RemoveAll(h.at("etc/meibo.d"))) }, "configuration", w, "there is no configuration", "-config-dir", []string{"port", "upstreams"}},
		{"all may read the key", func(h *host) { h.mode("etc/meibo.d/host.hcl", 0o644) }, "permissions", c, `anybody on this host may read /etc/meibo\.d/host\.hcl, which holds the secret encrypt \(mode 0644\)`, "chmod 0640 /etc/meibo.d/host.hcl", nil},
		{"all may change the configuration", func(h *host) { h.mode("etc/meibo.d/upstream.hcl", 0o666) }, "permissions", c, `anybody may change /etc/meibo\.d/upstream\.hcl`, "`chmod o-w /etc/meibo.d/upstream.hcl`", nil},
		{"data_dir is open", func(h *host) { h.mode("var/lib/meibo", 0o755) }, "permissions", w, "data_dir, /var/lib/meibo, is open to others", "`chmod 0700 /var/lib/meibo`", nil},
		{"the keyring is open", func(h *host) { h.mode("var/lib/meibo/serf/local.keyring", 0o640) }, "permissions", c, "local.keyring, which holds the cluster's key, is open", "chmod 0600 /var/lib/meibo/serf/local.keyring", nil},
		{"files are not the daemon's", func(h *host) { h.write("etc/passwd", "meibo:x:54321:54321::/var/lib/meibo:/usr/sbin/nologin\n") }, "permissions", c, `data_dir, /var/lib/meibo, is of uid \d+, not of the daemon's user`, "`chown -R meibo:meibo /var/lib/meibo`", nil},
		{"the daemon can't read its configuration", func(h *host) { h.write("etc/passwd", "meibo:x:54321:54321::/var/lib/meibo:/usr/sbin/nologin\n") }, "permissions", c, `the daemon's user, meibo, can't read /etc/meibo.d/host.hcl`, "chown root:meibo /etc/meibo.d/host.hcl", nil},

		{"the unit is masked", func(h *host) { h.link("/dev/null", "etc/systemd/system/meibo.service") }, "unit", c, "meibo.service is masked", "`systemctl unmask meibo.service", nil},
		{"the unit is disabled", func(h *host) { h.remove("etc/systemd/system/multi-user.target.wants/meibo.service") }, "unit", w, "meibo.service is disabled", "`systemctl enable --now meibo.service`", nil},
		{"dnsmasq starts at boot", func(h *host) {
			h.link("/lib/systemd/system/dnsmasq.service", "etc/systemd/system/multi-user.target.wants/dnsmasq.service")
		}, "unit", c, "dnsmasq.service is started at boot and takes port 53", "`meibo migrate`", nil},
		{"unbound starts at boot", func(h *host) {
			h.link("/lib/systemd/system/unbound.service", "etc/systemd/system/multi-user.target.wants/unbound.service")
		}, "unit", c, "unbound.service is started at boot", "`systemctl disable --now unbound.service`", nil},
		{"another's socket has the port", func(h *host) {
			h.write("usr/lib/systemd/system/other.socket", "[Socket]\nListenDatagram=53\n")
			h.link("/usr/lib/systemd/system/other.socket", "etc/systemd/system/sockets.target.wants/other.socket")
		}, "unit", c, "other.socket is started at boot and takes port 53", "`systemctl disable --now other.socket`", nil},

		{"the daemon does not run", func(h *host) { h.selfErr = errors.New("connection refused") }, "agent", c, "no daemon answers: connection refused", "`systemctl start meibo`", nil},
		{"Consul has the API", func(h *host) { h.self.Config.Version = "1.21.0" }, "agent", c, `answered by Consul 1\.21\.0, not by meibo`, "-http-addr", nil},
		{"nobody keeps the clock", func(h *host) { h.clock = func() (clock, error) { return clock{}, nil } }, "clock", w, "not synchronised", "`timedatectl set-ntp true`", nil},
		{"the clock is wrong", func(h *host) { h.clock = func() (clock, error) { return clock{true, 3 * time.Second}, nil } }, "clock", w, "may be wrong by 3s", "chronyc tracking", nil},

		{"no leader", func(h *host) { h.standing.Stale = true }, "cluster", c, "no server with a leader", "`meibo members -detailed`", nil},
		{"two hosts of one name", func(h *host) { h.standing.Members[1].Conflict = "same ID as h9" }, "cluster", c, "member h2: same ID as h9", "a node_name and a data_dir of its own", nil},
		{"a server is gone", func(h *host) { h.standing.Members[2].State = "failed"; h.standing.Members[2].Port = unlistened(h.t) }, "cluster", w, "servers are gone: h3", "`meibo force-leave NODE`", nil},
		{"two servers", func(h *host) { h.standing.Members[2].Tags["role"] = "node" }, "cluster", w, "the loss of either stops writes", "run three", nil},
		{"a firewall rejects gossip", func(h *host) { h.standing.Members[1].Port = unlistened(h.t) }, "reachable", c, `h2 is alive, but refuses connections of gossip at 127\.0\.0\.1:\d+`, `let TCP port \d+ through`, nil},
		{"a firewall drops what goes to servers", func(h *host) { h.standing.Members[1].Tags["port"] = fmt.Sprint(full(h.t)) }, "reachable", c, `h2 is alive, but TCP to its port of servers, 127\.0\.0\.1:\d+, does not get through`, `let TCP port \d+ through, both ways`, nil},
		{"a firewall drops UDP", func(h *host) { h.standing.Members[1].State, h.standing.Members[1].Tags["role"] = "failed", "node" }, "reachable", c, `gossip says that h2 is failed, but its port takes connections`, `let UDP port \d+ through`, []string{"cluster"}},
		{"versions are mixed", func(h *host) { h.standing.Members[2].Tags["meibo"] = "v0.8.0" }, "versions", w, `v0\.8\.0 on 1 \(h3\); v0\.9\.0 on 2 \(h1, h2\)`, "upgrade those that are behind", nil},
	}
	t.Logf("%d faults", len(tests))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			tt.plant(h)
			before := tree(t, h.Root)
			found := Examine(t.Context(), &h.Host)
			if after := tree(t, h.Root); after != before {
				t.Errorf("it changed the host:\n%s\nwas\n%s", after, before)
			}
			what, mend := regexp.MustCompile(tt.what), regexp.MustCompile(tt.mend)
			if !slices.ContainsFunc(found, func(f Finding) bool {
				return f.Check == tt.check && f.Status == tt.status && what.MatchString(f.What) && mend.MatchString(f.Mend)
			}) {
				t.Errorf("no %s of %s says %q and %q", tt.status, tt.check, tt.what, tt.mend)
			}
			for _, f := range found {
				bad := f.Status == Warning || f.Status == Critical
				if bad && f.Check != tt.check && !slices.Contains(tt.also, f.Check) || bad && f.Mend == "" || strings.Contains(f.What+f.Mend, key) {
					t.Errorf("%+v", f)
				}
			}
			if t.Failed() {
				t.Logf("%+v", found)
			}
		})
	}
}

// unlistened is a TCP port that refuses.
func unlistened(t *testing.T) uint16 { return freeUDP(t) }

// full is a TCP port whose queue is full, so that the kernel drops what comes, as a firewall does.
func full(t *testing.T) uint16 {
	t.Helper()
	l := backlogged(t)
	d := net.Dialer{Timeout: 200 * time.Millisecond}
	for range 8 {
		conn, err := d.Dial("tcp", l.String())
		if err != nil {
			return l.Port()
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the queue is never full")
	return 0
}

// tree is a host's files, as a text.
func tree(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := ""
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text = string(content)
		}
		fmt.Fprintf(&b, "%s %s %s %q\n", path, info.Mode(), info.ModTime(), text)
		return nil
	}))
	return b.String()
}

// TestExamine_FilesOnly looks at nothing that runs.
func TestExamine_FilesOnly(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.FilesOnly = true
	for _, f := range Examine(t.Context(), &h.Host) {
		if i := slices.IndexFunc(checks, func(c struct {
			name  string
			live  bool
			check func(context.Context, *exam) []Finding
		}) bool {
			return c.name == f.Check
		}); checks[i].live || f.Status != OK {
			t.Errorf("%+v", f)
		}
	}
}

// TestExamine_WhatThisUserMayNotSee is unknown, and no fault of the host.
func TestExamine_WhatThisUserMayNotSee(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	must(t, os.Chmod(filepath.Dir(h.Root), 0o755)) // of t.TempDir
	h.mode("etc/meibo.d/host.hcl", 0)
	self, err := os.Executable()
	must(t, err)
	program, err := os.ReadFile(self)
	must(t, err)
	must(t, os.WriteFile(h.at("nobody"), program, 0o755))
	cmd := exec.Command(h.at("nobody"), h.Root)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.Output()
	must(t, err)
	var found []Finding
	must(t, json.Unmarshal(out, &found))
	for _, f := range found {
		want := OK
		if f.Check == "configuration" || f.Check == "permissions" {
			want = Unknown
		}
		if f.Status != want {
			t.Errorf("%+v; want %s", f, want)
		}
	}
}

func TestHostsLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                                              "",
		"passwd: files\n":                               "",
		"hosts: files dns # as it was\n":                "files,dns",
		" hosts:files [ NOTFOUND = return ] dns":        "files,[ NOTFOUND = return ],dns",
		"hosts: files[NOTFOUND=return]dns":              "files,[NOTFOUND=return],dns",
		"hosts: resolve [!UNAVAIL=return] dns\n":        "resolve,[!UNAVAIL=return],dns",
		"hosts: a [SUCCESS=continue NOTFOUND=return] b": "a,[SUCCESS=continue NOTFOUND=return],b",
	} {
		if got := strings.Join(hostsLine(text), ","); got != want {
			t.Errorf("%q: %q; want %q", text, got, want)
		}
	}
}

func TestReturns(t *testing.T) {
	for _, tt := range []struct {
		action, result string
		want           bool
	}{
		{"[NOTFOUND=return]", "NOTFOUND", true},
		{"[notfound=RETURN]", "NOTFOUND", true},
		{"[!UNAVAIL=return]", "NOTFOUND", true},
		{"[UNAVAIL=return]", "NOTFOUND", false},
		{"[!NOTFOUND=return]", "NOTFOUND", false},
		{"[NOTFOUND=continue]", "NOTFOUND", false},
		{"[SUCCESS=continue NOTFOUND=return]", "NOTFOUND", true},
		{"[!SUCCESS=return]", "NOTFOUND", true},
		{"dns", "NOTFOUND", false},
	} {
		if got := returns(tt.action, tt.result); got != tt.want {
			t.Errorf("%s, %s: %v", tt.action, tt.result, got)
		}
	}
}
