package gossip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

const (
	execTime   = 30 * time.Second // for a program that prints hosts to join
	execOutput = 64 << 10         // bytes of what it prints
)

// addresses runs a program, without a shell, and returns the hosts it prints,
// parted by white space. Its arguments may be secrets: they are in no error.
func addresses(ctx context.Context, argv []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, execTime)
	defer cancel()
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &limited{&out, execOutput}, &limited{&complaint, 512}
	cmd.WaitDelay = time.Second // what it left behind may hold its output open
	err := cmd.Run()
	switch {
	case ctx.Err() == context.DeadlineExceeded: //nolint:errorlint // returned as it is
		return nil, fmt.Errorf("run %s for hosts to join: not done after %v", argv[0], execTime)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return nil, fmt.Errorf("run %s for hosts to join: %w: %s", argv[0], err, strings.Join(strings.Fields(complaint.String()), " "))
	}
	found := strings.Fields(out.String())
	if len(found) == 0 {
		return nil, fmt.Errorf("run %s for hosts to join: it printed none", argv[0])
	}
	return found, nil
}

// limited keeps the first n bytes.
type limited struct {
	io.Writer
	n int
}

func (l *limited) Write(b []byte) (int, error) {
	_, err := l.Writer.Write(b[:min(l.n, len(b))])
	l.n -= min(l.n, len(b))
	return len(b), err
}
