package consensus

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func init() { helper = help }

var kills = flag.Int("kills", 10, "how often the process is killed in the midst of writes")

// help is the process that some tests start. It prints what the parent should
// know and returns its exit status.
func help(mode, dir string) int {
	var err error
	switch mode {
	case "count":
		err = helpCount(dir)
	case "cut":
		err = helpCut(dir)
	case "full":
		err = helpFull(dir)
	case "serve":
		err = helpServe(dir)
	case "read-only":
		err = helpReadOnly(dir)
	}
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println("ok")
	return 0
}

// alone is a replica outside of a test.
func alone(dir string) (sm *list, r *Replica, done chan error, stop context.CancelFunc, err error) {
	sm = new(list)
	if r, err = New(Config{StateMachine: sm, ID: "one", Dir: dir, Bootstrap: true, MinFree: -1}); err != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done = make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	for {
		l, changed := r.Leadership()
		if l.Leading {
			if err = r.Barrier(ctx); err != nil { // it led for a moment only: Run says why
				stop()
				err = errors.Join(err, <-done)
			}
			return sm, r, done, stop, err
		}
		select {
		case <-changed:
		case err = <-done:
			return sm, r, done, stop, err
		}
	}
}

// helpCount commits numbers for ever and prints each when it is acknowledged.
func helpCount(dir string) error {
	sm, r, _, _, err := alone(dir)
	if err != nil {
		return err
	}
	for i := len(sm.entries); ; i++ {
		if _, _, err := r.Apply(context.Background(), []byte(strconv.Itoa(i))); err != nil {
			return err
		}
		fmt.Println(i)
	}
}

func TestKillMidWrite_FindsEveryAcknowledgedEntryAgain(t *testing.T) {
	dir, want := t.TempDir(), 0
	for round := range *kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), helperMode+"=count", helperDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		stopAfter := want + 5 + 7*(round%10)
		for lines.Scan() {
			n, err := strconv.Atoi(lines.Text())
			if err != nil {
				t.Errorf("round %d: %s", round, lines.Text())
				break
			}
			if n < want {
				t.Errorf("round %d: begins with %d, %d were acknowledged", round, n, want)
			}
			want = n + 1
			if n == stopAfter {
				_ = cmd.Process.Kill() // the pipe still gives what was acknowledged until then
			}
		}
		_ = cmd.Wait()
	}
	p := run(t, dir, nil)
	p.awaitLeader()
	if err := p.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if i >= len(p.sm.entries) || p.sm.entries[i] != strconv.Itoa(i) {
			t.Fatalf("entry %d was acknowledged and is not where it was; found %d in all", i, len(p.sm.entries))
		}
	}
	t.Logf("acknowledged %d, found %d", want, len(p.sm.entries))
}

// A file cut under the feet of a running process is a memory fault, and can
// leave bbolt with locks that nobody gives back. The process lives, and goes
// on with a new file.
func TestCutLog_WhileRunningIsAnErrorNotACrash(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperMode+"=cut", helperDir+"="+filled(t, 200, 0))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func helpCut(dir string) error {
	_, r, done, stop, err := alone(dir)
	if err != nil {
		return err
	}
	defer stop()
	if err := os.Truncate(filepath.Join(dir, fileLog), 8192); err != nil {
		return err
	}
	for err == nil {
		_, _, err = r.Apply(context.Background(), bytes.Repeat([]byte("y"), 4096))
	}
	if err := <-done; !errors.Is(err, ErrDamaged) {
		return fmt.Errorf("run: got %w, want it to be damage", err)
	}
	r, err = New(Config{StateMachine: new(list), ID: "one", Dir: dir, Bootstrap: true, OnDamage: BeginAnew})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() { done <- r.Run(ctx) }()
	for _, _, err = r.Apply(ctx, []byte("a")); errors.Is(err, ErrNoLeader); _, _, err = r.Apply(ctx, []byte("a")) {
		select {
		case err := <-done:
			return fmt.Errorf("begin anew: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
	stop()
	return errors.Join(err, <-done)
}

// inNamespace runs the helper where it may mount what it likes.
func inNamespace(t *testing.T, mode string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperMode+"="+mode, helperDir+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	switch {
	case err == nil && strings.Contains(out.String(), "ok"):
	case strings.Contains(out.String(), errNoMount.Error()), errors.Is(err, syscall.EPERM):
		t.Skipf("needs a mount namespace: %v %s", err, out.String())
	default:
		t.Errorf("%v\n%s", err, out.String())
	}
}

var errNoMount = errors.New("mounting is not allowed here")

func mountTmpfs(dir, options string) error {
	err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, "")
	if err == nil {
		err = syscall.Mount("tmpfs", dir, "tmpfs", 0, options)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errNoMount, err)
	}
	return nil
}

func TestDiskFull_IsSaidAndLosesNothing(t *testing.T) { inNamespace(t, "full") }

func helpFull(dir string) error {
	if err := mountTmpfs(dir, "size=1m"); err != nil {
		return err
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 512<<10), 0o600); err != nil {
		return err
	}
	_, r, done, stop, err := alone(dir)
	if err != nil {
		return fmt.Errorf("first start: %w", err)
	}
	defer stop()
	acknowledged := 0
	pad := strings.Repeat("x", 4096)
	for ; err == nil; acknowledged++ {
		_, _, err = r.Apply(context.Background(), []byte(strconv.Itoa(acknowledged)+pad))
	}
	acknowledged--
	if err := <-done; !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), fileLog) {
		return fmt.Errorf("run on a full disk: got %v, want it to name the file and say that the disk is full", err)
	}
	if acknowledged == 0 {
		return errors.New("nothing was acknowledged: the test shows nothing")
	}
	// As long as the disk is full a new start says so too, if it comes so far.
	if _, _, done, stop, err := alone(dir); err == nil {
		stop()
		<-done
	} else if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("start on a full disk: %w", err)
	}
	if err := os.Remove(filler); err != nil {
		return err
	}
	sm, r, done, stop, err := alone(dir)
	if err != nil {
		return fmt.Errorf("start when there is room again: %w", err)
	}
	for i := range acknowledged {
		if !sm.has(strconv.Itoa(i) + pad) {
			return fmt.Errorf("entry %d of %d was acknowledged and is lost", i, acknowledged)
		}
	}
	if _, _, err := r.Apply(context.Background(), []byte("more")); err != nil {
		return err
	}
	stop()
	return <-done
}

func TestReadOnlyDirectory_IsSaid(t *testing.T) { inNamespace(t, "read-only") }

func helpReadOnly(dir string) error {
	if err := mountTmpfs(dir, "size=1m"); err != nil {
		return err
	}
	_, _, done, stop, err := alone(dir)
	if err != nil {
		return err
	}
	stop()
	if err := <-done; err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("%w: %w", errNoMount, err)
	}
	if _, _, _, _, err = alone(dir); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), dir) {
		return fmt.Errorf("run on a read-only disk: got %v, want it to name the directory", err)
	}
	return nil
}

// The goal is a leader within 50 ms; a machine under load gets a second.
func TestStart_OfAClusterOfOneLeadsSoon(t *testing.T) {
	for name, dir := range map[string]string{"memory": "", "new": t.TempDir(), "old": filled(t, 200, 0)} {
		start := time.Now()
		p := run(t, dir, nil)
		p.awaitLeader()
		took := time.Since(start)
		t.Logf("%s: leader after %v", name, took)
		if took > time.Second {
			t.Errorf("%s: leader after %v", name, took)
		}
	}
}
