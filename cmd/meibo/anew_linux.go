package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// execAnew runs the program again in this process, with the same command line, and hands it the sockets as systemd does.
// (sd_listen_fds(3)) It returns on an error alone.
func execAnew(sockets []*os.File) error {
	self, err := exec.LookPath(os.Args[0])
	if err != nil {
		return fmt.Errorf("find this program again: %w", err)
	}
	const first, aside = 3, 1000 // descriptors: where the sockets are to be, and where nothing is
	var high []int
	for _, f := range sockets {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, aside)
		if err != nil {
			return fmt.Errorf("hand over a socket: %w", err)
		}
		high = append(high, fd)
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "LISTEN_") })
	if len(high) > 0 {
		env = append(env, fmt.Sprintf("LISTEN_PID=%d", os.Getpid()), fmt.Sprintf("LISTEN_FDS=%d", len(high)))
	}
	for i, fd := range high { // over what this program has there, which ends now
		if err := unix.Dup3(fd, first+i, 0); err != nil {
			return fmt.Errorf("hand over a socket: %w", err)
		}
	}
	return fmt.Errorf("start %s anew: %w", self, syscall.Exec(self, os.Args, env))
}
