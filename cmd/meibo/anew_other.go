//go:build !linux

package main

import (
	"errors"
	"os"
)

func execAnew([]*os.File) error {
	return errors.New("this system can't have the daemon start anew in its process: restart it")
}
