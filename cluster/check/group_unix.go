//go:build unix

package check

import (
	"os/exec"
	"syscall"
)

// ownGroup puts the program into a process group of its own and has the whole
// group killed, so that what a script started goes with it.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
