package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestUnixSockets_AreGivenToUserAndGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "http.sock")
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 { // only root may give files away
		uid, gid = 1, 65534
	}
	s := newSite(t, fmt.Sprintf(`
		addresses { http = "127.0.0.1 unix://%s" }
		unix_sockets { user = "%d"  group = "%d"  mode = "0660" }
		telemetry { metrics_prefix = "consul" }`, path, uid, gid))
	p := s.start(t)
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	eventually(t, "the API on the socket", func() error {
		resp, err := client.Get("http://localhost/v1/agent/self")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	})
	info, err := os.Stat(path)
	must(t, err)
	if got := info.Sys().(*syscall.Stat_t); int(got.Uid) != uid || int(got.Gid) != gid || info.Mode().Perm() != 0o660 {
		t.Errorf("got %d:%d %v, want %d:%d", got.Uid, got.Gid, info.Mode(), uid, gid)
	}
	if got := s.metric(t, `consul_log_lost_lines_total{to="stderr"}`); got != "0" {
		t.Errorf("metrics_prefix: got %q", got)
	}
	p.Stop(t)
}

func TestUnixSockets_AnOwnerThatIsNobodyKeepsNothingFromStarting(t *testing.T) {
	s := newSite(t, fmt.Sprintf(`
		addresses { http = "unix://%s" }
		unix_sockets { user = "nobody-of-this-name" }`, filepath.Join(t.TempDir(), "http.sock")))
	p := s.start(t)
	s.up(t)
	p.Said(t, "http api is not served", "nobody-of-this-name")
	p.Stop(t)
}

func TestRetryJoin_AProgramSaysWhomToJoin(t *testing.T) {
	const key = `encrypt = "bmV1dHJhbC1rZXktb2YtMzItYnl0ZXMtZm9yLXRlc3Q="`
	first := newSite(t, key+" server = true  bootstrap_expect = 1")
	first.start(t)
	first.up(t)
	var members []struct {
		Name string
		Port int
	}
	eventually(t, "the API", func() error {
		_, body, err := first.call(http.MethodGet, "/v1/agent/members", "")
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(body), &members)
	})
	second := newSite(t, "")
	writeFile(t, second.dir, "hosts", "#!/bin/sh\necho \"127.0.0.1:$1\"\n")
	program := filepath.Join(second.dir, "hosts")
	must(t, os.Chmod(program, 0o700))
	writeFile(t, second.dir, "conf/join.hcl", key+fmt.Sprintf(`
		node_name = "h2"
		retry_join = ["exec=%s %s"]`, program, strconv.Itoa(members[0].Port)))
	p := second.start(t)
	eventually(t, "both are members", func() error {
		body := first.mustCall(t, http.MethodGet, "/v1/agent/members", "")
		if !strings.Contains(body, `"h2"`) {
			return fmt.Errorf("%s\n%s", body, p.Output)
		}
		return nil
	})
	p.Stop(t)
}
