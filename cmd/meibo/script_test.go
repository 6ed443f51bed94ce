package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "dig" { // under this name for the README alone
		os.Exit(standInDig(os.Args[1:]))
	}
	// The scripts run `meibo` as this very test binary, race detector included.
	testscript.Main(leakChecked{m}, map[string]func(){
		"meibo": func() { os.Exit(execute(context.Background(), os.Args[1:])) },
	})
}

// leakChecked runs the tests and then looks for goroutines that nobody waited for.
type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int {
	code := l.m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// TestScripts runs the command line as a person would type it; each script has ports of its own in $DNS and $HTTP.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("DNS", strconv.Itoa(freePort(t)))
			env.Setenv("HTTP", strconv.Itoa(freePort(t)))
			env.Setenv("SERVER", strconv.Itoa(freePort(t)))
			env.Setenv("SERF", strconv.Itoa(freePort(t)))
			net := fmt.Sprintf("127.%d.%d.", 1+rand.IntN(254), rand.IntN(256)) // two hosts of the loopback network
			env.Setenv("S1", net+"1")
			env.Setenv("A1", net+"2")
			env.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:"+env.Getenv("HTTP"))
			env.Setenv("GOCOVERDIR", filepath.Join(env.WorkDir))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"wait-ready": waitReady,
			"wait-port":  waitPort,
			"wait-out":   waitOut,
			"put":        put,
			"exits":      exits,
		},
	})
}

// waitReady waits until the catalog of the daemon at $HTTP has a service, and lookups there follow it: `wait-ready SERVICE`.
func waitReady(ts *testscript.TestScript, _ bool, args []string) {
	url := "http://127.0.0.1:" + ts.Getenv("HTTP") + "/v1/catalog/service/" + args[0]
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	waitUntil(ts, url, func() error {
		resp, err := client.Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body := make([]byte, 3)
		if n, _ := resp.Body.Read(body); resp.StatusCode != http.StatusOK || n < 3 {
			return fmt.Errorf("%s: %q", resp.Status, body)
		}
		var host struct {
			Stale   bool
			History string
		}
		resp, err = client.Get("http://127.0.0.1:" + ts.Getenv("HTTP") + "/v1/meibo/members")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&host); err != nil || host.Stale || host.History == "" {
			return fmt.Errorf("the view: %+v, %v", host, err)
		}
		return nil
	})
}

// waitPort waits until something accepts on a TCP port of 127.0.0.1: `wait-port PORT`.
func waitPort(ts *testscript.TestScript, _ bool, args []string) {
	waitUntil(ts, "port "+args[0], func() error {
		conn, err := net.Dial("tcp", "127.0.0.1:"+args[0])
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

// waitOut runs meibo until it succeeds with an output that matches: `wait-out PATTERN ARGUMENT...`.
func waitOut(ts *testscript.TestScript, neg bool, args []string) {
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	waitUntil(ts, strings.Join(args, " "), func() error {
		if err := ts.Exec("meibo", args[1:]...); err != nil {
			return err
		}
		if out := ts.ReadFile("stdout"); pattern.MatchString(out) == neg {
			return fmt.Errorf("it says:\n%s", out)
		}
		return nil
	})
}

// put sends a body to the daemon at $CONSUL_HTTP_ADDR: `put PATH BODY`.
func put(ts *testscript.TestScript, _ bool, args []string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	req, err := http.NewRequest(http.MethodPut, "http://"+ts.Getenv("CONSUL_HTTP_ADDR")+args[0], strings.NewReader(args[1]))
	ts.Check(err)
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		ts.Fatalf("%s: %s", args[0], resp.Status)
	}
}

// exits runs meibo, which must end with this code: `exits CODE meibo ARGUMENT...`.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); !errors.As(err, &exit) || exit.ExitCode() != want {
		ts.Fatalf("it ends with %v; expected exit code %d", err, want)
	}
}

func waitUntil(ts *testscript.TestScript, what string, condition func() error) {
	var err error
	for begin := time.Now(); time.Since(begin) < patience; pause(5 * time.Millisecond) {
		if err = condition(); err == nil {
			return
		}
	}
	ts.Fatalf("%s: not within %v: %v", what, patience, err)
}
