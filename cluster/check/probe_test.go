package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// probeOnce runs d once, as a runner would.
func probeOnce(t *testing.T, d Definition) (status, output string) {
	t.Helper()
	if d.Interval == 0 {
		d.Interval = time.Minute
	}
	r, err := New(Config{Definition: d, Report: func(s, o string) { status, output = s, o }, ScriptsAllowed: true})
	if err != nil {
		t.Fatal(err)
	}
	if !r.runOnce(t.Context()) {
		t.Fatal("run was stopped")
	}
	return status, output
}

func wantResult(t *testing.T, d Definition, status, output string) {
	t.Helper()
	got, out := probeOnce(t, d)
	if got != status || !strings.Contains(out, output) {
		t.Errorf("got %s %q, want %s with %q", got, out, status, output)
	}
}

func TestHTTP_StatusDecides(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		w.WriteHeader(code)
		io.WriteString(w, "body")
	}))
	defer srv.Close()
	for code, want := range map[int]string{
		200: Passing, 204: Passing, 299: Passing, 301: Critical, 400: Critical,
		404: Critical, 429: Warning, 500: Critical, 503: Critical,
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			wantResult(t, Definition{HTTP: srv.URL + "/" + fmt.Sprint(code)}, want, fmt.Sprintf("HTTP GET %s/%d: %d ", srv.URL, code, code))
		})
	}
	wantResult(t, Definition{HTTP: srv.URL + "/200"}, Passing, "200 OK Output: body")
}

func TestHTTP_SendsWhatTheDefinitionSays(t *testing.T) {
	seen := make(chan *http.Request, 1)
	body := make(chan string, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		body <- string(b)
		seen <- r
	}))
	defer srv.Close()
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // must not be asked
	probeOnce(t, Definition{HTTP: srv.URL, Method: "POST", Body: "ping", Header: map[string][]string{
		"Host": {"web.example"}, "X-Two": {"a", "b"},
	}})
	r := <-seen
	if got := <-body; got != "ping" {
		t.Errorf("got body %q", got)
	}
	if r.Method != "POST" || r.Host != "web.example" || len(r.Header["X-Two"]) != 2 {
		t.Errorf("got %s host %s headers %v", r.Method, r.Host, r.Header)
	}
	if r.UserAgent() != "Consul Health Check" || !r.Close {
		t.Errorf("got user agent %q, close %v", r.UserAgent(), r.Close)
	}
}

func TestHTTP_Redirects(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/ok", http.StatusFound)
		}
	}))
	defer srv.Close()
	wantResult(t, Definition{HTTP: srv.URL}, Passing, "200 OK")
	wantResult(t, Definition{HTTP: srv.URL, DisableRedirects: true}, Critical, "302 Found")
}

func TestHTTP_RefusesMetadataServices(t *testing.T) {
	srv := httptest.NewServer(http.RedirectHandler("http://169.254.169.254/latest", http.StatusFound))
	defer srv.Close()
	wantResult(t, Definition{HTTP: srv.URL}, Critical, "metadata service")
	wantResult(t, Definition{HTTP: "http://[::ffff:169.254.169.254]/"}, Critical, "metadata service")
	wantResult(t, Definition{TCP: "169.254.169.254:80"}, Critical, "metadata service")
}

func TestHTTP_BodyIsBounded(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 64 {
			io.WriteString(w, strings.Repeat("x", 4096))
		}
	}))
	defer srv.Close()
	_, out := probeOnce(t, Definition{HTTP: srv.URL, OutputMaxSize: 10})
	if !strings.HasSuffix(out, "200 OK Output: xxxxxxxxxx") {
		t.Errorf("got %d bytes %.80q", len(out), out)
	}
}

func TestHTTP_WithoutASchemeIsCritical(t *testing.T) {
	for _, target := range []string{"localhost:5000/health", "ftp://h/", "h/health", "http://", "http://[::1/", "://"} {
		wantResult(t, Definition{HTTP: target}, Critical, "must begin with http://")
	}
}

func TestHTTP_Timeout(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-release }))
	defer srv.Close()
	defer close(release)
	wantResult(t, Definition{HTTP: srv.URL, Timeout: 20 * time.Millisecond}, Critical, "deadline exceeded")
}

// An answer that begins well and doesn't end is none: the server may hang in the middle, or die.
func TestHTTP_AnAnswerThatDoesNotEndIsCritical(t *testing.T) {
	for name, serve := range map[string]func(w http.ResponseWriter, r *http.Request){
		"stalls after the headers": func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"stalls in the body": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "fine so far")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"stalls when it should warn": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusTooManyRequests)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"ends too early": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "fine so far")
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(serve))
			defer srv.Close()
			wantResult(t, Definition{HTTP: srv.URL, Timeout: 100 * time.Millisecond}, Critical, "(reading the body: ")
		})
	}
}

func TestTLS_CertificateIsChecked(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.Config.ErrorLog = nil
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	host := srv.Listener.Addr().String()
	no := false
	for name, d := range map[string]Definition{
		"http":   {HTTP: srv.URL},
		"tcp":    {TCP: host, TCPUseTLS: true},
		"h2ping": {H2PING: host},
		"grpc":   {GRPC: host, GRPCUseTLS: true},
	} {
		t.Run(name, func(t *testing.T) {
			wantResult(t, d, Critical, "certificate")
			d.TLSSkipVerify = true
			if name == "grpc" {
				wantResult(t, d, Critical, "no grpc-status")
				return
			}
			wantResult(t, d, Passing, "")
		})
	}
	wantResult(t, Definition{H2PING: host, H2PingUseTLS: &no}, Critical, "")
}

// A server that asks for a certificate, and whose own is of a CA that the system
// doesn't know.
func TestTLS_TheAgentsCertificateAndCAs(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	host := srv.Listener.Addr().String()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	key, err := x509.MarshalPKCS8PrivateKey(srv.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	// The test server's certificate serves as CA, and as the client's.
	cert, private := write("cert.pem", "CERTIFICATE", srv.Certificate().Raw), write("key.pem", "PRIVATE KEY", key)
	cas := filepath.Join(dir, "cas")
	if err := errors.Join(os.Mkdir(cas, 0o700), os.Rename(cert, filepath.Join(cas, "ca.pem")), os.Symlink(filepath.Join(cas, "ca.pem"), cert)); err != nil {
		t.Fatal(err)
	}
	probe := func(d Definition, with *TLS) (status, output string) {
		d.Interval = time.Minute
		r, err := New(Config{Definition: d, TLS: with, Report: func(s, o string) { status, output = s, o }})
		if err != nil {
			t.Fatal(err)
		}
		r.runOnce(t.Context())
		return status, output
	}
	for name, d := range map[string]Definition{"http": {HTTP: srv.URL}, "h2ping": {H2PING: host}, "grpc": {GRPC: host, GRPCUseTLS: true}, "tcp": {TCP: host, TCPUseTLS: true}} {
		good := Passing
		if name == "grpc" { // it is reached, and no gRPC server
			good = Critical
		}
		for _, tt := range []struct {
			with   *TLS
			status string
			output string
		}{
			{&TLS{CAFile: cert, CertFile: cert, KeyFile: private}, good, ""},
			{&TLS{CAPath: cas, CertFile: cert, KeyFile: private}, good, ""},
			{&TLS{CertFile: cert, KeyFile: private}, Critical, "certificate"},
			{&TLS{CAFile: filepath.Join(dir, "none"), CertFile: cert, KeyFile: private}, Critical, "no such file"},
			{&TLS{CAFile: private, CertFile: cert, KeyFile: private}, Critical, "no CA certificate"},
			{&TLS{CAFile: cert, CertFile: cert, KeyFile: filepath.Join(dir, "none")}, Critical, "no such file"},
		} {
			status, output := probe(d, tt.with)
			if status != tt.status || !strings.Contains(output, tt.output) || name == "grpc" && tt.output == "" && !strings.Contains(output, "no grpc-status") {
				t.Errorf("%s with %+v: %s %q, want %s with %q", name, tt.with, status, output, tt.status, tt.output)
			}
		}
	}
}

func TestTLS_ServerNameIsSent(t *testing.T) {
	names := make(chan string, 1)
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		names <- h.ServerName
		return nil, nil
	}}
	srv.StartTLS()
	defer srv.Close()
	probeOnce(t, Definition{HTTP: srv.URL, TLSSkipVerify: true, TLSServerName: "web.example"})
	if got := <-names; got != "web.example" {
		t.Errorf("got server name %q", got)
	}
}

// closedPort returns an address where nothing listens.
func closedPort(t *testing.T, network string) string {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().String()
	wantResult(t, Definition{TCP: addr}, Passing, "TCP connect "+addr+": Success")
	wantResult(t, Definition{TCP: closedPort(t, "tcp")}, Critical, "connection refused")
}

func TestUDP_SilencePassesRefusalFails(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wantResult(t, Definition{UDP: c.LocalAddr().String(), Timeout: 50 * time.Millisecond}, Passing, "Success")
	wantResult(t, Definition{UDP: closedPort(t, "udp")}, Critical, "refused")
}

// h2Server speaks HTTP/2 without TLS.
func h2Server(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	u, _ := url.Parse(srv.URL)
	return u.Host
}

func TestH2Ping_Unencrypted(t *testing.T) {
	no := false
	wantResult(t, Definition{H2PING: h2Server(t, http.NotFoundHandler()), H2PingUseTLS: &no}, Passing, "HTTP2 ping was successful")
	wantResult(t, Definition{H2PING: closedPort(t, "tcp"), H2PingUseTLS: &no}, Critical, "refused")
}

// health answers as a gRPC server with a health service does.
func health(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
	service := ""
	if len(body) > 7 {
		service = string(body[7:])
	}
	status := map[string]byte{"": 1, "web": 1, "down": 2}[service]
	if r.URL.Path != "/grpc.health.v1.Health/Check" || r.Header.Get("Te") != "trailers" {
		w.Header().Set("Grpc-Status", "12")
		return
	}
	if status == 0 {
		w.Header().Set("Grpc-Status", "5")
		w.Header().Set("Grpc-Message", "unknown service")
		return
	}
	w.Write([]byte{0, 0, 0, 0, 2, 8, status})
	w.Header().Set("Grpc-Status", "0")
}

func TestGRPC_Health(t *testing.T) {
	host := h2Server(t, http.HandlerFunc(health))
	wantResult(t, Definition{GRPC: host}, Passing, "gRPC check "+host+": success")
	wantResult(t, Definition{GRPC: host + "/web"}, Passing, "success")
	wantResult(t, Definition{GRPC: host + "/down"}, Critical, "NOT_SERVING")
	wantResult(t, Definition{GRPC: host + "/other"}, Critical, "not known to the server")
	wantResult(t, Definition{GRPC: closedPort(t, "tcp")}, Critical, "refused")
}

func TestGRPC_HealthOverTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(health))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	wantResult(t, Definition{GRPC: srv.Listener.Addr().String() + "/web", GRPCUseTLS: true, TLSSkipVerify: true}, Passing, "success")
}

func TestScript_ExitCodeDecides(t *testing.T) {
	for code, want := range map[int]string{0: Passing, 1: Warning, 2: Critical, 127: Critical} {
		wantResult(t, Definition{ScriptArgs: []string{"/bin/sh", "-c", fmt.Sprintf("echo said; echo twice >&2; exit %d", code)}}, want, "said\ntwice")
	}
	wantResult(t, Definition{ScriptArgs: []string{"/nonexistent/check"}}, Critical, "no such file")
	wantResult(t, Definition{ScriptArgs: []string{"/bin/echo", "$HOME; x"}}, Passing, "$HOME; x") // argv, no shell
}

func TestScript_KeepsTheEndOfItsOutput(t *testing.T) {
	_, out := probeOnce(t, Definition{OutputMaxSize: 8, ScriptArgs: []string{"/bin/sh", "-c", "seq 1 1000; printf END"}})
	if !strings.HasSuffix(out, "1000\nEND") || strings.Contains(out, "997") {
		t.Errorf("got %q", out)
	}
}

func TestScript_TimeoutKillsTheProcessGroup(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	wantResult(t, Definition{Timeout: 300 * time.Millisecond, ScriptArgs: []string{"/bin/sh", "-c",
		"echo began; sleep 600 & echo $! > " + pidFile + "; wait"}}, Critical, "Timed out (300ms) running check")
	data, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); alive(pid); {
		if time.Now().After(end) {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("process %d outlived its check", pid)
		}
	}
}

// alive reports whether the process runs; a zombie does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestScript_ChildThatKeepsTheOutputOpenDoesNotHoldTheCheck(t *testing.T) {
	began := time.Now()
	wantResult(t, Definition{ScriptArgs: []string{"/bin/sh", "-c", "sleep 15 & echo done"}}, Passing, "done")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestOSService(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "systemctl")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n[ \"$1 $2\" = 'is-active --' ] || exit 9\necho $3\n[ $3 = active ]\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for state, want := range map[string]string{"active": Passing, "reloading": Warning, "inactive": Critical, "failed": Critical} {
		p := &osServiceProber{&Definition{OSService: state}, program}
		if got, out := p.probe(context.Background()); got != want || !strings.Contains(out, state) {
			t.Errorf("%s: got %s %q, want %s", state, got, out, want)
		}
	}
	p := &osServiceProber{&Definition{OSService: "web"}, filepath.Join(dir, "missing")}
	if got, out := p.probe(context.Background()); got != Critical || !strings.Contains(out, "ask systemd") {
		t.Errorf("got %s %q", got, out)
	}
}

func FuzzHealthResponse(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 8, 1})
	f.Add([]byte{0, 0, 0, 0, 2, 8, 2})
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{1, 0, 0, 0, 2, 8, 1})
	f.Add([]byte{0, 0, 0, 0, 6, 0x12, 2, 'h', 'i', 8, 1})
	f.Fuzz(func(t *testing.T, frame []byte) {
		err := parseHealthResponse(frame)
		if err == nil && int(binary.BigEndian.Uint32(frame[1:5])) != len(frame)-5 {
			t.Errorf("%x accepted with a wrong length", frame)
		}
	})
}

func TestH2Ping_ServerThatSpeaksSomethingElse(t *testing.T) {
	no := false
	srv := httptest.NewServer(http.NotFoundHandler()) // HTTP/1.1 only
	defer srv.Close()
	wantResult(t, Definition{H2PING: srv.Listener.Addr().String(), H2PingUseTLS: &no}, Critical, "HTTP2 ping to")

	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	wantResult(t, Definition{H2PING: l.Addr().String(), H2PingUseTLS: &no, Timeout: 50 * time.Millisecond}, Critical, "deadline exceeded")
}
