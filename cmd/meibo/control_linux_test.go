package main

import (
	"bufio"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// asUser runs TestControl_WhoseSocketIsTrusted anew, as another user and with a role; binary is a copy of the test's that
// this user may run.
func asUser(t *testing.T, binary string, uid uint32, role, path string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestControl_WhoseSocketIsTrusted$")
	cmd.Env = []string{"MEIBO_TEST_ROLE=" + role, "MEIBO_TEST_PATH=" + path, "GORACE=" + os.Getenv("GORACE")}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	return cmd
}

// A command of root's gives keys to a socket of another user only in a folder that nobody but this user can write to;
// one of another user's trusts root and himself.
func TestControl_WhoseSocketIsTrusted(t *testing.T) {
	path := os.Getenv("MEIBO_TEST_PATH")
	switch os.Getenv("MEIBO_TEST_ROLE") {
	case "listen":
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		os.Stdout.WriteString("listens\n")
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent has looked
		return
	case "judge":
		if isTrusted(path) {
			os.Stdout.WriteString("trusted\n")
		}
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can be other users")
	}
	const owner, other = 61001, 61002
	root, err := os.MkdirTemp("", "meibo-control-") // t.TempDir's parents may be closed to others
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(root) })
	must(t, os.Chmod(root, 0o755))
	binary := filepath.Join(root, "test")
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(binary, self, 0o755))

	for _, row := range []struct {
		name                string
		by, folderOf        uint32
		mode                os.FileMode
		root, itself, third bool // who trusts it
	}{
		{"own folder", owner, owner, 0o755, true, true, false},
		{"own folder, a group may write", owner, owner, 0o775, false, true, false},
		{"own folder, all may write", owner, owner, 0o777, false, true, false},
		{"another's folder", owner, other, 0o777, false, true, false},
		{"root's folder, all may write", owner, 0, 0o777, false, true, false},
		{"root's folder, all may write, sticky", owner, 0, 0o777 | os.ModeSticky, false, true, false},
		{"root's socket", 0, 0, 0o755, true, true, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			folder := filepath.Join(root, strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(row.name))
			must(t, os.Mkdir(folder, 0o755))
			must(t, os.Chown(folder, int(row.folderOf), int(row.folderOf)))
			must(t, os.Chmod(folder, row.mode))
			socket := filepath.Join(folder, controlName)
			judge := func(uid uint32) bool {
				out, err := asUser(t, binary, uid, "judge", socket).Output()
				must(t, err)
				return strings.HasPrefix(string(out), "trusted\n")
			}
			l := asUser(t, binary, row.by, "listen", socket)
			in, err := l.StdinPipe()
			must(t, err)
			out, err := l.StdoutPipe()
			must(t, err)
			must(t, l.Start())
			defer func() { in.Close(); _ = l.Wait() }()
			if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "listens\n" {
				t.Fatalf("%q, %v", line, err)
			}
			if got := isTrusted(socket); got != row.root {
				t.Errorf("root trusts it: %v, want %v", got, row.root)
			}
			if got := judge(owner); got != row.itself {
				t.Errorf("its user trusts it: %v, want %v", got, row.itself)
			}
			if got := judge(other); got != row.third {
				t.Errorf("another user trusts it: %v, want %v", got, row.third)
			}
		})
	}
	file := filepath.Join(root, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, path := range []string{file, filepath.Join(root, "nothing")} {
		if isTrusted(path) {
			t.Errorf("%s is trusted", path)
		}
	}
}
