package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestHostResolvesThroughMeibo is the daemon in its place: a host whose resolv.conf names 127.0.0.1, and the programs that
// people run there. Everything but .consul comes from a real authoritative server.
func TestHostResolvesThroughMeibo(t *testing.T) {
	inHost(t, func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.Chmod(dir, 0o755))
		startNSD(t, dir)
		port := startBackend(t, "127.0.0.1:0", "one")
		second := startBackend(t, "127.0.0.2:0", "two")
		writeFile(t, dir, "conf/agent.hcl", fmt.Sprintf(`
			node_name = "h1"
			bind_addr = "127.0.0.1"
			listen    = ["127.0.0.1:53", "[::1]:53"]
			data_dir  = %q
			recursors = ["127.0.0.1:5353"]
			services  = [
			  { id = "web-1", name = "web", address = "127.0.0.1", port = %d, tags = ["primary"] },
			]
			service { id = "lb-1" name = "lb" address = "127.0.0.1" port = %d }
			service { id = "lb-2" name = "lb" address = "127.0.0.2" port = %d }
			service { id = "ext" name = "ext" address = "www.example.org" port = 80 }
		`, filepath.Join(dir, "data"), port, port, second))
		daemon := startMeibo(t, "-config-dir", filepath.Join(dir, "conf"))
		took := eventually(t, "meibo answers on port 53", func() error {
			return wantAnswer("127.0.0.1:53", "web.service.consul", dns.TypeA, "A 127.0.0.1")
		})
		t.Logf("first answer after %v", took)

		t.Run("getent", func(t *testing.T) {
			wantOutput(t, exec.Command("getent", "hosts", "web.service.consul"), "127.0.0.1")
			wantOutput(t, exec.Command("getent", "ahosts", "www.example.org"), "192.0.2.80")
			wantOutput(t, exec.Command("getent", "ahosts", "ext.service.consul"), "192.0.2.80")
			if out, err := run(t, exec.Command("getent", "hosts", "no-such.service.consul")); err == nil {
				t.Errorf("getent found %q for a service that does not exist", out)
			}
		})
		t.Run("curl", func(t *testing.T) {
			wantOutput(t, peer(t, "curl", "-sS", "--max-time", "5", fmt.Sprintf("http://web.service.consul:%d/", port)), "one")
		})
		t.Run("dig", func(t *testing.T) {
			wantOutput(t, peer(t, "dig", "+short", "@127.0.0.1", "web.service.consul", "SRV"), fmt.Sprintf("1 1 %d 7f000001.addr.dc1.consul.", port))
			wantOutput(t, peer(t, "dig", "+short", "@::1", "www.example.org", "AAAA"), "2001:db8::80")
			wantOutput(t, peer(t, "dig", "+noall", "+comments", "@127.0.0.1", "absent.example.org"), "NXDOMAIN")
			wantOutput(t, peer(t, "dig", "+short", "+notcp", "@127.0.0.1", "long.example.org", "TXT"), "seventeenth")
		})
		t.Run("nginx", func(t *testing.T) { nginxFindsBackend(t, dir, port) })
		t.Run("haproxy", func(t *testing.T) { haproxyFindsBackends(t, dir) })
		daemon.Stop(t)
	})
}

func nginxFindsBackend(t *testing.T, dir string, port int) {
	conf := writeFile(t, dir, "nginx.conf", fmt.Sprintf(`
		daemon off; master_process off; user root root; pid %[1]s/nginx.pid; error_log stderr;
		events {}
		http {
		  access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
		  resolver 127.0.0.1 valid=1s;
		  server {
		    listen 127.0.0.1:8088;
		    location / { set $backend "web.service.consul"; proxy_pass http://$backend:%[2]d; }
		  }
		}`, dir, port))
	start(t, peer(t, "nginx", "-c", conf))
	took := eventually(t, "nginx proxies to web.service.consul", func() error { return wantBody("http://127.0.0.1:8088/", "one") })
	t.Logf("nginx: first page after %v", took)
}

func haproxyFindsBackends(t *testing.T, dir string) {
	conf := writeFile(t, dir, "haproxy.cfg", `
global
  log stderr local0
resolvers meibo
  nameserver local 127.0.0.1:53
  accepted_payload_size 8192
  hold valid 1s
defaults
  mode http
  timeout connect 1s
  timeout client 5s
  timeout server 5s
frontend front
  bind 127.0.0.1:8089
  default_backend lb
backend lb
  balance roundrobin
  server-template lb 4 _lb._tcp.service.consul resolvers meibo init-addr none check inter 200ms
`)
	start(t, peer(t, "haproxy", "-db", "-f", conf))
	seen := map[string]bool{}
	took := eventually(t, "haproxy finds both backends by SRV", func() error {
		body, err := get("http://127.0.0.1:8089/")
		if seen[body] = true; err != nil || !seen["one"] || !seen["two"] {
			return fmt.Errorf("seen only %v: %v", seen, err)
		}
		return nil
	})
	t.Logf("haproxy: both backends after %v", took)
}

// startNSD serves example.org on 127.0.0.1:5353 with NSD: the upstream for everything that is not ours.
func startNSD(t *testing.T, dir string) {
	t.Helper()
	var long strings.Builder
	for i := range 20 {
		fmt.Fprintf(&long, "long IN TXT \"%s number %d\"\n", strings.Repeat("x", 200), i)
	}
	long.WriteString("long IN TXT \"the seventeenth string of many\"\n")
	writeFile(t, dir, "example.org.zone", `$ORIGIN example.org.
$TTL 300
@ IN SOA ns hostmaster 1 3600 600 86400 60
@ IN NS ns
ns IN A 127.0.0.1
www IN A 192.0.2.80
www IN AAAA 2001:db8::80
alias IN CNAME www
`+long.String())
	conf := writeFile(t, dir, "nsd.conf", fmt.Sprintf(`
server:
  ip-address: 127.0.0.1@5353
  username: ""
  zonesdir: %[1]q
  pidfile: %[2]q
  xfrdfile: %[3]q
  zonelistfile: %[4]q
  database: ""
  server-count: 1
remote-control:
  control-enable: no
zone:
  name: example.org
  zonefile: example.org.zone
`, dir, filepath.Join(dir, "nsd.pid"), filepath.Join(dir, "xfrd.state"), filepath.Join(dir, "zone.list")))
	start(t, peer(t, "nsd", "-d", "-c", conf))
	eventually(t, "NSD answers", func() error {
		return wantAnswer("127.0.0.1:5353", "www.example.org", dns.TypeA, "A 192.0.2.80")
	})
}

// startBackend serves one word over HTTP and returns its port.
func startBackend(t *testing.T, addr, word string) int {
	t.Helper()
	listener, err := net.Listen("tcp", addr)
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, word) })}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return listener.Addr().(*net.TCPAddr).Port
}

func wantAnswer(addr, name string, qtype uint16, want ...string) error {
	reply, err := ask(addr, "udp", name, qtype)
	if err != nil {
		return err
	}
	got := answers(reply)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s %s: got %s %v, want %v", name, dns.TypeToString[qtype], dns.RcodeToString[reply.Rcode], got, want)
	}
	return nil
}

func wantBody(url, want string) error {
	got, err := get(url)
	if err == nil && got != want {
		err = fmt.Errorf("%s: got %q, want %q", url, got, want)
	}
	return err
}

func get(url string) (string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	return string(body), err
}

func wantOutput(t *testing.T, cmd *exec.Cmd, want string) {
	t.Helper()
	out, err := run(t, cmd)
	if err != nil || !strings.Contains(out, want) {
		t.Errorf("%v: got %q (%v), want %q in it", cmd.Args, strings.TrimSpace(out), err, want)
	}
}
