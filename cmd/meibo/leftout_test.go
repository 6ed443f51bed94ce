package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// One bad definition costs itself: DNS and all else start, and every place where somebody would look says what is left
// out, and where it is written.
func TestDefinitionWithAFault_IsLeftOutAndToldEverywhere(t *testing.T) {
	s := newSite(t, "")
	writeFile(t, s.dir, "conf/bad.hcl", `
service { name = "any" id = "any1" address = "0.0.0.0" port = 5000 }
check { name = "script" service_id = "web" args = ["true"] interval = "10s" }
check { name = "orphan" service_id = "nobody" ttl = "1m" }
service { name = "fine" address = "192.0.2.20" port = 1 }`)
	file := filepath.Join(s.dir, "conf/bad.hcl")
	p := s.start(t)
	s.up(t)
	must(t, wantAnswer(s.dns, "fine.service.consul", dns.TypeA, "A 192.0.2.20"))
	s.led(t)
	p.Said(t, `service \"any1\"`, file+":2: ", "service.address")
	p.Said(t, `check \"script\"`, file+":3: ", "enable_local_script_checks")
	p.Said(t, `check \"orphan\"`, file+":4: ", "nobody")

	metrics := s.mustCall(t, "GET", "/v1/agent/metrics?format=prometheus", "")
	for _, want := range []string{`meibo_config_left_out{kind="service"} 1`, `meibo_config_left_out{kind="check"} 2`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	for path, want := range map[string][]string{
		"/v1/agent/health/service/name/any":              {`"AggregatedStatus":"critical"`, file + ":2: ", `"ID":"any1"`},
		"/v1/agent/health/service/id/any1":               {`"AggregatedStatus":"critical"`, file + ":2: "},
		"/v1/agent/health/service/name/any?format=text":  {"critical: ", file + ":2: "},
		"/v1/agent/health/service/id/any1?format=text":   {"critical: ", file + ":2: "},
		"/v1/meibo/lookup?name=any.service.consul":       {`"Status":"invalid"`, file + ":2: ", `"ServiceID":"any1"`},
		"/v1/meibo/lookup?name=web.service.consul":       {`"Answered":true`, file + ":3: "},
		"/v1/agent/health/service/name/web":              {`"AggregatedStatus":"passing"`, `"LeftOut":["check `, file + ":3: "},
		"/v1/agent/health/service/name/fine":             {`"AggregatedStatus":"passing"`},
		"/v1/agent/health/service/name/none?format=text": {"Not Found"},
	} {
		code, body, err := s.call("GET", path, "")
		must(t, err)
		wantCode := http.StatusOK
		switch {
		case strings.HasPrefix(path, "/v1/agent/health") && strings.Contains(path, "any"):
			wantCode = http.StatusServiceUnavailable
		case strings.Contains(path, "none"):
			wantCode = http.StatusNotFound
		}
		compact := strings.NewReplacer("\n", "", "    ", "", `": `, `":`).Replace(body)
		for _, w := range want {
			if code != wantCode || !strings.Contains(compact, w) && !strings.Contains(body, w) {
				t.Errorf("%s: %d, want %d with %q in\n%s", path, code, wantCode, w, body)
			}
		}
	}
	bin, err := meiboBinary()
	must(t, err)
	out, err := exec.Command(bin, "lookup", "-http-addr", s.http, "any.service.consul").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "invalid  left out    its definition has a fault: "+file+":2: ") {
		t.Errorf("lookup says (%v):\n%s", err, out)
	}
	out, err = exec.Command(bin, "validate", "-json", filepath.Join(s.dir, "conf")).Output()
	var report struct {
		Valid, Starts   bool
		LeftOut, Errors []string
	}
	must(t, json.Unmarshal(out, &report))
	if err == nil || report.Valid || !report.Starts || len(report.LeftOut) != 3 || len(report.Errors) != 3 {
		t.Errorf("validate says (%v): %+v", err, report)
	}

	// A reload has something better than to leave out: what runs. It takes all, or nothing.
	writeFile(t, s.dir, "conf/more.hcl", `service { name = "late" address = "192.0.2.30" port = 1 }`)
	if code, body, err := s.call("PUT", "/v1/agent/reload", ""); err != nil || code == http.StatusOK || !strings.Contains(body, file+":2: ") {
		t.Errorf("reload: %d %s %v", code, body, err)
	}
	writeFile(t, s.dir, "conf/agent.hcl", strings.Replace(string(mustRead(t, filepath.Join(s.dir, "conf/agent.hcl"))), `"192.0.2.10"`, `"0.0.0.0"`, 1))
	must(t, p.Process.Signal(syscall.SIGHUP))
	p.Said(t, "configuration not taken", filepath.Join(s.dir, "conf/agent.hcl")+":6: ")
	s.up(t)
	writeFile(t, s.dir, "conf/agent.hcl", strings.Replace(string(mustRead(t, filepath.Join(s.dir, "conf/agent.hcl"))), `"0.0.0.0"`, `"192.0.2.10"`, 1))
	writeFile(t, s.dir, "conf/bad.hcl", `service { name = "any" id = "any1" address = "192.0.2.40" port = 5000 }`)
	s.mustCall(t, "PUT", "/v1/agent/reload", "")
	must(t, wantAnswer(s.dns, "any.service.consul", dns.TypeA, "A 192.0.2.40"))
	if metrics := s.mustCall(t, "GET", "/v1/agent/metrics?format=prometheus", ""); !strings.Contains(metrics, `meibo_config_left_out{kind="service"} 0`) {
		t.Error("the metric counts what is mended")
	}
	p.Stop(t)
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	return data
}

// A file's check of a service that the API registered: taken by a reload, and so by the next start, as by validate.
func TestRestart_AFilesCheckOfAServiceOfTheAPI(t *testing.T) {
	s := newSite(t, "")
	p := s.start(t)
	s.up(t)
	eventually(t, "the API takes a registration", func() error {
		code, body, err := s.call("PUT", "/v1/agent/service/register", `{"ID":"web1","Name":"kept","Address":"192.0.2.50","Port":80}`)
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	})
	writeFile(t, s.dir, "conf/check.hcl", `check { id = "filed" name = "filed" service_id = "web1" ttl = "1h" status = "passing" }`)
	s.mustCall(t, "PUT", "/v1/agent/reload", "")
	must(t, wantAnswer(s.dns, "kept.service.consul", dns.TypeA, "A 192.0.2.50"))
	p.Stop(t)

	bin, err := meiboBinary()
	must(t, err)
	writeFile(t, s.dir, "data.hcl", fmt.Sprintf("data_dir = %q", s.data()))
	if out, err := exec.Command(bin, "validate", filepath.Join(s.dir, "conf"), filepath.Join(s.dir, "data.hcl")).CombinedOutput(); err != nil {
		t.Errorf("validate, which knows data_dir: %v\n%s", err, out)
	}
	if out, err := exec.Command(bin, "validate", filepath.Join(s.dir, "conf")).CombinedOutput(); err == nil || !strings.Contains(string(out), `start without check "filed"`) {
		t.Errorf("validate, which doesn't know data_dir: %v\n%s", err, out)
	}
	p = s.start(t)
	s.up(t)
	must(t, wantAnswer(s.dns, "kept.service.consul", dns.TypeA, "A 192.0.2.50"))
	eventually(t, "the check is there", func() error {
		_, body, err := s.call("GET", "/v1/agent/checks", "")
		if err == nil && !strings.Contains(body, `"filed"`) {
			err = fmt.Errorf("checks: %s", body)
		}
		return err
	})
	p.Stop(t)
}

// What comes while the daemon starts waits until it has started. The file is a pipe: the daemon has begun, and is not
// done, while it waits for what the pipe says.
func TestSignalsWhileStarting_WaitUntilItHasStarted(t *testing.T) {
	starting := func(t *testing.T) (s *site, p *process, say func()) {
		s = newSite(t, "")
		pipe := filepath.Join(s.dir, "late.hcl")
		must(t, unix.Mkfifo(pipe, 0o600))
		p = s.start(t, "-config-file", pipe)
		var w *os.File
		eventually(t, "the daemon reads its files", func() (err error) {
			w, err = os.OpenFile(pipe, os.O_WRONLY|unix.O_NONBLOCK, 0)
			return err
		})
		return s, p, func() {
			_, err := w.WriteString("datacenter = \"dc1\"\n")
			must(t, err)
			must(t, w.Close())
		}
	}
	t.Run("SIGHUP", func(t *testing.T) {
		s, p, say := starting(t)
		for range 3 {
			must(t, p.Process.Signal(syscall.SIGHUP))
		}
		writeFile(t, s.dir, "conf/more.hcl", `service { name = "late" address = "192.0.2.30" port = 1 }`) // conf was read already
		say()
		s.up(t)
		// The reload reads the pipe again.
		eventually(t, "the reload reads the files", func() error {
			w, err := os.OpenFile(filepath.Join(s.dir, "late.hcl"), os.O_WRONLY|unix.O_NONBLOCK, 0)
			if err == nil {
				err = w.Close()
			}
			return err
		})
		p.Said(t, "configuration taken")
		must(t, wantAnswer(s.dns, "late.service.consul", dns.TypeA, "A 192.0.2.30"))
		// A reload that hangs, as nobody writes to the pipe, doesn't keep the daemon from ending.
		must(t, p.Process.Signal(syscall.SIGHUP))
		p.Stop(t)
	})
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			_, p, _ := starting(t) // the pipe says nothing, for as long as it takes
			must(t, p.Process.Signal(sig))
			if code := p.Exit(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
	t.Run("others", func(t *testing.T) {
		s, p, say := starting(t)
		for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGXFSZ, syscall.SIGWINCH, syscall.SIGCHLD, syscall.SIGURG} {
			must(t, p.Process.Signal(sig))
		}
		say()
		s.up(t)
		p.Stop(t)
	})
}

// From the first moment: the daemon listens before the init of nearly all that is linked in, which takes some milliseconds.
func TestSignals_AreHeardBeforeTheInitOfAllElse(t *testing.T) {
	bin, err := meiboBinary()
	must(t, err)
	cmd := exec.Command(bin, "version")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	must(t, err)
	var before []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "init" {
			continue
		}
		if fields[1] == "meibo/cmd/meibo/signals" {
			break
		}
		before = append(before, fields[1])
	}
	for _, early := range before {
		if strings.Contains(early, ".") || early == "net" || early == "main" || strings.HasPrefix(early, "meibo/") {
			t.Errorf("%s is there before signals are heard", early)
		}
	}
}

func TestPIDFile_ThatCantBeWrittenIsSaidAndNoMore(t *testing.T) {
	// Not even root makes a directory under a file.
	s := newSite(t, `pid_file = "/dev/null/meibo.pid"`)
	p := s.start(t)
	s.up(t)
	p.Said(t, "pid_file cannot be written", "/dev/null/meibo.pid")
	p.Stop(t)
}

func TestRefusedStart_NamesTheFilesThatWerePassedOver(t *testing.T) {
	s := newSite(t, "")
	writeFile(t, s.dir, "meibo.conf", `domain = "x"`)
	p := startMeibo(t, "-config-file", filepath.Join(s.dir, "meibo.conf"))
	if code := p.Exit(t); code != 1 || !strings.Contains(p.Output.String(), "meibo.conf: skipped: ") || !strings.Contains(p.Output.String(), "-config-format") {
		t.Errorf("exit code %d:\n%s", code, p.Output)
	}
}
