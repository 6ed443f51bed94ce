package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// watchProcess returns what waits for the end of the process that listens on a local socket. Its number can't become another
// one's meanwhile.
func watchProcess(socket string) (wait func(ctx context.Context) error, err error) {
	pid, err := listenerOf(socket)
	if err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("watch process %d: %w", pid, err)
	}
	return func(ctx context.Context) error {
		defer unix.Close(fd)
		for ctx.Err() == nil {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(fds, int(endAgain.Milliseconds()))
			if err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("watch process %d: %w", pid, err)
			}
			if n > 0 {
				return nil
			}
		}
		return ctx.Err()
	}, nil
}

// listenerOf is the process that made a local socket.
func listenerOf(socket string) (pid int, err error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	switch {
	case errors.Join(err, failed) != nil:
		return 0, errors.Join(err, failed)
	case cred.Pid <= 0:
		return 0, fmt.Errorf("%s is served from another namespace of processes", socket)
	}
	return int(cred.Pid), nil
}
