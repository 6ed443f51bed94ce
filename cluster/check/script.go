package check

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// scriptProber runs a program: exit 0 is passing, 1 warning, all else critical.
type scriptProber struct{ def *Definition }

// killWait is how long a process group may take to go once it was killed, and
// how long children that outlive the script may keep its output open.
const killWait = time.Second

func (p *scriptProber) probe(ctx context.Context) (status, output string) {
	kept := &tail{max: p.def.outputSize()}
	err := runProgram(ctx, p.def.ScriptArgs, kept)
	output = kept.String()
	if kept.cut {
		output = fmt.Sprintf("Captured the last %d bytes of output\n...\n%s", len(output), output)
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		timedOut := fmt.Sprintf("Timed out (%s) running check", p.def.timeout())
		if output != "" {
			timedOut += "\n\n" + output
		}
		return Critical, timedOut
	case err == nil:
		return Passing, output
	case errors.As(err, &exit) && exit.ExitCode() == 1:
		return Warning, output
	case errors.As(err, &exit) && output != "":
		return Critical, output
	}
	return Critical, strings.TrimSpace(fmt.Sprintf("%v\n%s", err, output))
}

// runProgram runs argv in a process group of its own, which is killed whole
// when ctx ends. Output and errors go to out.
func runProgram(ctx context.Context, argv []string, out *tail) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	ownGroup(cmd)
	cmd.WaitDelay = killWait
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it ended well, only a child of it still holds the pipe
	}
	return err
}

// osServiceProber asks systemd, by `systemctl is-active`, how a unit is.
type osServiceProber struct {
	def     *Definition
	program string
}

func (p *osServiceProber) probe(ctx context.Context) (status, output string) {
	kept := &tail{max: p.def.outputSize()}
	err := runProgram(ctx, []string{p.program, "is-active", "--", p.def.OSService}, kept)
	state := strings.TrimSpace(kept.String())
	if state == "" && err != nil {
		return Critical, fmt.Sprintf("ask systemd for %q: %v", p.def.OSService, err)
	}
	output = fmt.Sprintf("Service %q is %s", p.def.OSService, state)
	switch state {
	case "active":
		return Passing, output
	case "reloading", "refreshing", "activating", "deactivating", "maintenance":
		return Warning, output
	}
	return Critical, output
}
