package feed_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"meibo/cluster/catalog"
	"meibo/cluster/feed"
)

var update = flag.Bool("update", false, "write golden files anew")

const golden = "testdata/session-v1.txt"

// tap copies what is read and written, a line for each frame's direction.
type tap struct {
	net.Conn
	mu    sync.Mutex
	lines []string
}

func (t *tap) note(mark string, b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.lines); n > 0 && strings.HasPrefix(t.lines[n-1], mark) {
		t.lines[n-1] += hex.EncodeToString(b)
		return
	}
	t.lines = append(t.lines, mark+hex.EncodeToString(b))
}

func (t *tap) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if n > 0 {
		t.note("< ", b[:n])
	}
	return n, err
}

func (t *tap) Write(b []byte) (int, error) {
	t.note("> ", b)
	return t.Conn.Write(b)
}

// TestSessionOfVersion1 holds both ends to the bytes of a released version: the
// server answers the host's as it did, the host understands the server's.
func TestSessionOfVersion1(t *testing.T) {
	if *update {
		recordSession(t)
	}
	file, err := os.Open(golden)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var lines, told []string
	for in := bufio.NewScanner(file); in.Scan(); {
		if text, ok := strings.CutPrefix(in.Text(), "= "); ok {
			told = append(told, text)
		} else if !strings.HasPrefix(in.Text(), "#") {
			lines = append(lines, in.Text())
		}
	}
	t.Run("server", func(t *testing.T) { replayHost(t, lines) })
	t.Run("host", func(t *testing.T) { replayServer(t, lines, told) })
}

// sessionStore is the catalog of the session; change does the second step.
func sessionStore(t *testing.T) (c *catalogue, change func()) {
	c = newCatalogue(t)
	c.begin(historyA, 1000)
	reg := register("n1", "Web", "w1", catalog.Passing)
	reg.Service.Tags, reg.Service.Address = []string{"x"}, "192.0.2.9"
	reg.Service.Meta = map[string]string{"v": "1"}
	reg.Checks = append(reg.Checks, &catalog.Check{CheckID: catalog.SerfHealth, Status: catalog.Passing, Output: "alive"})
	c.do(reg)
	c.do(register("n2", "db", "d1", catalog.Warning))
	return c, func() {
		c.do(&catalog.Deregister{Node: "n2"})
		settle(10 * time.Millisecond)
		c.do(&catalog.Forget{Node: "n3"})
		settle(10 * time.Millisecond)
		reg.Service.Port = 8080
		c.do(reg)
	}
}

// steps plays the host's side of the session: subscribe, see a change, go on
// for a while, unsubscribe.
func steps(s *feed.Stream, change func()) {
	settle(10 * time.Millisecond)
	s.Subscribe("Web", "none")
	settle(10 * time.Millisecond)
	change()
	settle(500 * time.Millisecond)
	s.Unsubscribe("none")
	settle(10 * time.Millisecond)
}

func recordSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, change := sessionStore(t)
		n := newNetwork(t)
		n.start("s1", c.store, subscriptions)
		settle(200 * time.Millisecond)
		conn, err := n.dial(host)(t.Context(), "s1")
		if err != nil {
			t.Fatal(err)
		}
		wire := &tap{Conn: conn}
		told := follow(t, wire, func() { wire.note("! change", nil); change() })
		out := "# A session of version 1: > from the host, < from the server, ! the catalog changes, = what the host tells of it.\n"
		for _, line := range append(wire.lines, told...) {
			out += line + "\n"
		}
		if err := os.WriteFile(golden, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	})
}

func dialTo(conn net.Conn) func(context.Context, string) (net.Conn, error) {
	return func(context.Context, string) (net.Conn, error) { return conn, nil }
}

// follow opens a stream over the connection, plays the steps and returns the
// updates as lines.
func follow(t *testing.T, conn net.Conn, change func()) (lines []string) {
	t.Helper()
	client := feed.NewClient(feed.ClientConfig{
		Dial:    dialTo(conn),
		Servers: func() []string { return []string{"s1"} }, NodeID: host, Datacenter: "dc1",
	})
	s, err := client.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			u, err := s.Next(t.Context())
			if err != nil {
				return
			}
			text, err := json.Marshal(u)
			if err != nil {
				t.Error(err)
			}
			lines = append(lines, "= "+string(text))
		}
	})
	steps(s, change)
	s.Close()
	wg.Wait()
	return lines
}

// replayHost sends the host's bytes to a server and compares what it says.
func replayHost(t *testing.T, lines []string) {
	synctest.Test(t, func(t *testing.T) {
		c, change := sessionStore(t)
		n := newNetwork(t)
		n.start("s1", c.store, subscriptions)
		settle(200 * time.Millisecond)
		conn, err := n.dial(host)(t.Context(), "s1")
		if err != nil {
			t.Fatal(err)
		}
		wire := &tap{Conn: conn}
		reader := make(chan struct{})
		go func() {
			defer close(reader)
			for buf := make([]byte, 4096); ; {
				if _, err := wire.Read(buf); err != nil {
					return
				}
			}
		}()
		for _, line := range lines {
			if line == "! change" {
				wire.note(line, nil)
				change()
				settle(500 * time.Millisecond)
			}
			if sent, ok := strings.CutPrefix(line, "> "); ok {
				b, err := hex.DecodeString(sent)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := wire.Write(b); err != nil {
					t.Fatal(err)
				}
				settle(10 * time.Millisecond)
			}
		}
		conn.Close()
		<-reader
		if diff := cmp.Diff(lines, wire.lines); diff != "" {
			t.Errorf("the server says other than version 1 did (-want +got):\n%s", diff)
		}
	})
}

// replayServer sends the server's bytes to a host and compares what it takes
// them for.
func replayServer(t *testing.T, lines, told []string) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			for buf := make([]byte, 4096); ; {
				if _, err := there.Read(buf); err != nil {
					return
				}
			}
		})
		wg.Go(func() {
			for _, line := range lines {
				if said, ok := strings.CutPrefix(line, "< "); ok {
					b, err := hex.DecodeString(said)
					if err != nil {
						t.Error(err)
					}
					if _, err := there.Write(b); err != nil {
						t.Error(err)
					}
				}
			}
		})
		got := follow(t, here, func() {})
		there.Close()
		wg.Wait()
		for i := range got {
			got[i] = strings.TrimPrefix(got[i], "= ")
		}
		if diff := cmp.Diff(told, got); diff != "" {
			t.Errorf("the host takes version 1 for other than it did (-want +got):\n%s", diff)
		}
	})
}
