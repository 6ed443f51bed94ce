package packaging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestMain makes the test's binary the load too, and the program that has the port, as they have to run in a host's network.
func TestMain(m *testing.M) {
	if name := os.Getenv("MEIBO_PACKAGING_LOAD"); name != "" {
		if err := json.NewEncoder(os.Stdout).Encode(ask(name)); err != nil {
			panic(err)
		}
		return
	}
	if addr := os.Getenv("MEIBO_PACKAGING_HOLD"); addr != "" {
		if err := hold(addr); err != nil {
			panic(err)
		}
		return
	}
	if addr := os.Getenv("MEIBO_PACKAGING_UPSTREAM"); addr != "" {
		if err := serveUpstream(addr); err != nil {
			panic(err)
		}
		return
	}
	if addr := os.Getenv("MEIBO_PACKAGING_SERVE"); addr != "" {
		if err := serve(addr); err != nil {
			panic(err)
		}
		return
	}
	if server, name, ok := strings.Cut(os.Getenv("MEIBO_PACKAGING_ASK"), " "); ok {
		client := dns.Client{Timeout: time.Second}
		r, _, err := client.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA), net.JoinHostPort(server, "8600"))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(len(r.Answer))
		return
	}
	os.Exit(m.Run())
}

const (
	loadRate    = 5000 // queries a second
	loadTimeout = 5 * time.Second
)

// loadResult is what became of the queries.
type loadResult struct {
	Sent, Answered, Wrong, Refused, Lost int
	Slowest                              time.Duration
	Why                                  string // of one that went wrong
}

// ask asks 127.0.0.1 for a name, each time from a socket of its own, until stdin ends.
func ask(name string) (r loadResult) {
	packed, err := new(dns.Msg).SetQuestion(name, dns.TypeA).Pack()
	if err != nil {
		panic(err)
	}
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	var mu sync.Mutex // guards r
	var wg sync.WaitGroup
	const every = 5 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	began := time.Now()
	for sent := 0; ; {
		select {
		case <-stop:
			wg.Wait()
			r.Sent = sent
			return r
		case <-tick.C:
		}
		for due := int(time.Since(began).Seconds() * loadRate); sent < due; sent++ {
			wg.Go(func() {
				took, err := askOnce(packed)
				mu.Lock()
				defer mu.Unlock()
				r.Slowest = max(r.Slowest, took)
				switch {
				case err == nil:
					r.Answered++
					return
				case errors.Is(err, syscall.ECONNREFUSED):
					r.Refused++
				case errors.Is(err, os.ErrDeadlineExceeded):
					r.Lost++
				default:
					r.Wrong++
				}
				r.Why = err.Error()
			})
		}
	}
}

func askOnce(packed []byte) (time.Duration, error) {
	began := time.Now()
	conn, err := net.Dial("udp", "127.0.0.1:53")
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(began.Add(loadTimeout)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(packed); err != nil {
		return time.Since(began), err
	}
	var buffer [512]byte
	n, err := conn.Read(buffer[:])
	took := time.Since(began)
	if err != nil {
		return took, err
	}
	var m dns.Msg
	if err := m.Unpack(buffer[:n]); err != nil {
		return took, err
	}
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) == 0 {
		return took, fmt.Errorf("answered %s with %d records", dns.RcodeToString[m.Rcode], len(m.Answer))
	}
	return took, nil
}

// load asks in the host's network while f runs.
func (h *host) load(name string, f func()) loadResult {
	h.t.Helper()
	self, err := os.Executable()
	must(h.t, err)
	cmd := exec.Command("nsenter", "-t", fmt.Sprint(h.leader), "-n", "--", self)
	cmd.Env = append(os.Environ(), "MEIBO_PACKAGING_LOAD="+name)
	stdin, err := cmd.StdinPipe()
	must(h.t, err)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	must(h.t, cmd.Start())
	pause := func() { time.Sleep(time.Second) } // of load alone, before and after
	pause()
	f()
	pause()
	must(h.t, stdin.Close())
	must(h.t, cmd.Wait())
	var r loadResult
	must(h.t, json.Unmarshal(out.Bytes(), &r))
	return r
}

// hold keeps a UDP port until stdin ends.
func hold(addr string) error {
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return conn.Close()
}

// serveUpstream is a DNS server that has the same address for every name, until stdin ends.
func serveUpstream(addr string) error {
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}, A: net.ParseIP(upstreamAddress)}}
		}
		_ = w.WriteMsg(r)
	})
	server := dns.Server{PacketConn: conn, Handler: handler, NotifyStartedFunc: func() { fmt.Println("held") }}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = server.Shutdown()
	}()
	return server.ActivateAndServe()
}

// upstreamAddress is what an upstream of the tests says of every name.
const upstreamAddress = "192.0.2.77"

// holds has a program in the host keep a UDP port until free is called.
func (h *host) holds(addr string) (free func()) {
	h.t.Helper()
	return h.other("MEIBO_PACKAGING_HOLD=" + addr)
}

// other has this test's binary run in the host as another program, as a variable says, until free is called.
func (h *host) other(what string) (free func()) {
	h.t.Helper()
	self, err := os.Executable()
	must(h.t, err)
	if program := filepath.Join(h.dir, "usr/local/bin/other-resolver"); !exists(program) {
		h.copy(self, "usr/local/bin/other-resolver")
		must(h.t, os.Chmod(program, 0o755))
	}
	cmd := h.command(h.t.Context(), what, "/usr/local/bin/other-resolver")
	stdin, err := cmd.StdinPipe()
	must(h.t, err)
	stdout, err := cmd.StdoutPipe()
	must(h.t, err)
	must(h.t, cmd.Start())
	var said string
	if _, err := fmt.Fscan(stdout, &said); err != nil || said != "held" {
		h.t.Fatalf("%s: it doesn't run: %v", what, err)
	}
	return func() {
		must(h.t, stdin.Close())
		must(h.t, cmd.Wait())
	}
}

// serve is a name server of the world outside, which knows the root and one name, until stdin ends.
func serve(addr string) error {
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		answer := ""
		switch question := q.Question[0]; {
		case question.Name == "." && question.Qtype == dns.TypeNS:
			answer = ". 60 IN NS a.root.example."
		case question.Name != outside+".":
			m.Rcode = dns.RcodeNameError
		case question.Qtype == dns.TypeA:
			answer = outside + ". 60 IN A " + outsideAddr
		}
		if rr, err := dns.NewRR(answer); err == nil && rr != nil {
			m.Answer = append(m.Answer, rr)
		}
		_ = w.WriteMsg(m)
	})
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for _, server := range []*dns.Server{{PacketConn: p, Handler: handler}, {Listener: l, Handler: handler}} {
		go func() { _ = server.ActivateAndServe() }()
	}
	fmt.Println("serves")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
