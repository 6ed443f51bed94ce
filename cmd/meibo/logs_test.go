package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meibo/cmd/meibo/logging"
)

// startOn starts the daemon with the given outputs; nil is a closed one.
func (s *site) startOn(t *testing.T, stdout, stderr *os.File, args ...string) *process {
	t.Helper()
	bin, err := meiboBinary()
	must(t, err)
	args = append([]string{"agent", "-config-dir", filepath.Join(s.dir, "conf"), "-data-dir", s.data()}, args...)
	p := &process{Cmd: exec.Command(bin, args...), Output: &syncBuffer{}, Done: make(chan struct{})}
	if stdout == nil {
		p.Cmd = exec.Command("/bin/sh", append([]string{"-c", `exec "$0" "$@" >&- 2>&-`, bin}, args...)...)
	}
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if stdout != nil {
		p.Stdout, p.Stderr = stdout, stderr
	}
	must(t, p.Start())
	go func() { p.Ended = p.Cmd.Wait(); close(p.Done) }()
	t.Cleanup(func() { _ = p.Process.Kill(); <-p.Done })
	return p
}

// metric returns the value of one metric as /metrics shows it, "" when it isn't there.
func (s *site) metric(t *testing.T, name string) string {
	t.Helper()
	for line := range strings.Lines(s.mustCall(t, "GET", "/metrics", "")) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// goesOn has the daemon log a line and asserts that it lives, and ends as it should.
func (s *site) goesOn(t *testing.T, p *process, lost string) {
	t.Helper()
	s.up(t)
	eventually(t, "the API", func() error {
		if code, body, err := s.call(http.MethodPut, "/v1/agent/reload", ""); err != nil || code != http.StatusOK {
			return fmt.Errorf("%d %s %w", code, body, err)
		}
		return nil
	})
	if lost != "" {
		eventually(t, "lines lost to "+lost+" are counted", func() error {
			if v := s.metric(t, `meibo_log_lost_lines_total{to="`+lost+`"}`); v == "" || v == "0" {
				return fmt.Errorf("the metric is %q", v)
			}
			return nil
		})
	}
	must(t, wantAnswer(s.dns, "web.service.consul", 1, "A 192.0.2.10"))
	p.Stop(t)
}

func TestOutput_WhateverBecomesOfItTheDaemonLives(t *testing.T) {
	t.Run("the reader is gone before the start", func(t *testing.T) {
		r, w, err := os.Pipe()
		must(t, err)
		must(t, r.Close())
		defer w.Close()
		s := newSite(t, "")
		p := s.startOn(t, w, w)
		s.goesOn(t, p, "stderr")
	})
	t.Run("the reader ends", func(t *testing.T) {
		r, w, err := os.Pipe()
		must(t, err)
		defer w.Close()
		s := newSite(t, "")
		p := s.startOn(t, w, w)
		s.up(t)
		must(t, r.Close())
		s.goesOn(t, p, "stderr")
	})
	t.Run("the reader stalls", func(t *testing.T) {
		r, w, err := os.Pipe()
		must(t, err)
		defer w.Close()
		defer r.Close()
		must(t, w.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
		if _, err := w.Write(make([]byte, 1<<20)); err == nil { // the pipe is full before the first line
			t.Fatal("a pipe took 1 MiB that nobody read")
		}
		s := newSite(t, "")
		p := s.startOn(t, w, w)
		s.goesOn(t, p, "")
	})
	t.Run("closed", func(t *testing.T) {
		s := newSite(t, "")
		p := s.startOn(t, nil, nil)
		s.goesOn(t, p, "")
	})
	t.Run("a full disk", func(t *testing.T) {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		must(t, err)
		defer full.Close()
		s := newSite(t, "")
		p := s.startOn(t, full, full, "-log-file", "/dev/full")
		s.goesOn(t, p, "file")
	})
}

func TestBanner_IsForTerminals(t *testing.T) {
	s := newSite(t, "")
	p := s.start(t)
	p.Said(t, `msg="meibo started"`, "node=h1", "dns="+s.dns, "http="+s.http)
	s.up(t)
	p.Stop(t)
	if out := p.Output.String(); strings.Contains(out, "==>") || strings.Contains(out, "Try:") {
		t.Errorf("who is no person is shown\n%s", out)
	}

	terminal, tty := openTerminal(t)
	s.startOn(t, tty, tty)
	shown := bufio.NewReader(terminal)
	for _, want := range []string{"==> meibo", "Node: h1", "Try:  dig @127.0.0.1"} {
		for line := ""; !strings.Contains(line, want); {
			var err error
			line, err = shown.ReadString('\n')
			must(t, err)
		}
	}
}

// The line of the start says whether this host is a server of a cluster, as /v1/agent/self does.
func TestStartLine_SaysWhoIsAServer(t *testing.T) {
	for name, tt := range map[string]struct {
		config string
		self   bool // what /v1/agent/self says: it holds the catalog
		want   bool
	}{
		"alone":  {"", true, false},
		"agent":  {`retry_join = ["127.0.0.1:9"]`, false, false},
		"server": {"server = true\nbootstrap_expect = 1", true, true},
		"waits":  {"server = true\nbootstrap_expect = 3", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, tt.config)
			p := s.start(t)
			p.Said(t, `msg="meibo started"`, fmt.Sprintf("server=%t ", tt.want))
			s.up(t)
			var self struct{ Config struct{ Server bool } }
			must(t, json.Unmarshal([]byte(s.mustCall(t, "GET", "/v1/agent/self", "")), &self))
			if self.Config.Server != tt.self {
				t.Errorf("/v1/agent/self says %t", self.Config.Server)
			}
			p.Stop(t)
		})
	}
}

// openTerminal returns both ends of a terminal: that of the person, and that of the program.
func openTerminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { person.Close() })
	must(t, unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	must(t, err)
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	must(t, err)
	t.Cleanup(func() { program.Close() })
	return person, program
}

func TestWarnings_AreSaidOnceEach(t *testing.T) {
	s := newSite(t, "connect { enabled = true }\nservice { name = \"dotted.name\" port = 1 }")
	for _, name := range []string{"more", "most"} {
		writeFile(t, s.dir, "conf/"+name+".hcl", `connect { enabled = true } acl_datacenter = "dc1"`)
	}
	p := s.start(t)
	s.up(t)
	count := func(want int, what string) {
		t.Helper()
		if out := p.Output.String(); strings.Count(out, what) != want {
			t.Errorf("%q is not said %d times in\n%s", what, want, out)
		}
	}
	s.mustCall(t, http.MethodPut, "/v1/agent/reload", "")
	p.Said(t, "configuration taken")
	count(1, "acl_datacenter")
	count(1, "service mesh")
	count(1, "dotted.name")
	writeFile(t, s.dir, "conf/more.hcl", `datacenter = "dc2"  acl_datacenter = "dc1"  ui_config { enabled = true }`)
	for range 2 {
		s.mustCall(t, http.MethodPut, "/v1/agent/reload", "")
	}
	p.Said(t, "waits for a restart") // the log is written by itself
	p.Said(t, "no web interface")
	count(1, "waits for a restart")
	count(1, "no web interface") // is new
	count(1, "service mesh")
	p.Stop(t)
}

func TestOutput_ProgramsOfChecksHearOfABrokenPipe(t *testing.T) {
	s := newSite(t, `
		enable_local_script_checks = true
		check { id = "pipe" name = "pipe" args = ["/bin/grep", "SigIgn", "/proc/self/status"] interval = "1s" }`)
	s.start(t)
	eventually(t, "the check has run", func() error {
		_, body, err := s.call(http.MethodGet, "/v1/agent/checks", "")
		if err != nil || !strings.Contains(body, "SigIgn") {
			return fmt.Errorf("%s %w", body, err)
		}
		_, rest, _ := strings.Cut(body, `SigIgn:\t`)
		var ignored uint64
		if _, err := fmt.Sscanf(rest, "%x", &ignored); err != nil {
			return err
		}
		if ignored&(1<<(syscall.SIGPIPE-1)) != 0 {
			t.Fatalf("SIGPIPE is ignored: %s", rest)
		}
		return nil
	})
}

func TestLogFile_DirectoryAndRotation(t *testing.T) {
	s := newSite(t, `log_rotate_bytes = 200  log_rotate_max_files = 2`)
	dir := filepath.Join(s.dir, "logs")
	p := s.start(t, "-log-file", dir+"/")
	s.up(t)
	eventually(t, "three files", func() error {
		s.mustCall(t, http.MethodPut, "/v1/agent/reload", "")
		found, err := filepath.Glob(dir + "/meibo-*.log")
		if len(found) != 3 {
			return fmt.Errorf("%q, %w", found, err)
		}
		return nil
	})
	must(t, os.RemoveAll(dir))
	eventually(t, "a file in a new directory", func() error {
		s.mustCall(t, http.MethodPut, "/v1/agent/reload", "")
		found, err := filepath.Glob(dir + "/meibo-*.log")
		if len(found) == 0 {
			return fmt.Errorf("none, %w", err)
		}
		return nil
	})
	p.Stop(t)
}

func TestLogFile_OneThatCannotBeHadKeepsNothingFromStarting(t *testing.T) {
	s := newSite(t, `enable_syslog = true`) // nor does a syslog that isn't there
	writeFile(t, s.dir, "file", "")
	p := s.start(t, "-log-file", filepath.Join(s.dir, "file", "logs")+"/", "-pid-file", filepath.Join(s.dir, "file", "pid"))
	p.Said(t, "level=ERROR", "to=file", "not a directory")
	p.Said(t, "level=ERROR", "pid_file")
	s.goesOn(t, p, "file")
}

// Every part whose level can be set is a package, and the other way round.
func TestLogging_PartsAreThePackages(t *testing.T) {
	known := map[string]bool{}
	for _, part := range logging.Parts() {
		known[part] = true
	}
	for line := range strings.Lines(importPolicy) {
		room, _, ok := strings.Cut(strings.TrimSpace(line), "<")
		if part := strings.ReplaceAll(strings.TrimPrefix(strings.TrimSpace(room), "cmd/"), "/", "."); ok && !known[part] {
			t.Errorf("%s is no part for log_sublevels", part)
		} else if ok {
			delete(known, part)
		}
	}
	for part := range known {
		t.Errorf("%s is a part for log_sublevels, and no package", part)
	}
}

func TestSublevels_AreTakenByAReload(t *testing.T) {
	s := newSite(t, `log_level = "error"`)
	p := s.start(t)
	s.up(t)
	writeFile(t, s.dir, "conf/more.hcl", `log_sublevels { meibo = "info" }`)
	must(t, p.Process.Signal(syscall.SIGHUP))
	p.Said(t, "level=INFO", "configuration taken")
	writeFile(t, s.dir, "conf/more.hcl", `log_sublevels { "cluster.gossip" = "debug", "agent.http" = "trace" }`)
	must(t, p.Process.Signal(syscall.SIGHUP))
	s.led(t)
	p.Stop(t)
	if out := p.Output.String(); strings.Count(out, "configuration taken") != 1 || strings.Contains(out, "leadership") || strings.Contains(out, "warning=") {
		t.Errorf("it said\n%s", out)
	}
}
