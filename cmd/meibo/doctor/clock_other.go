//go:build !linux

package doctor

import "errors"

func kernelClock() (clock, error) { return clock{}, errors.New("this system has no way to tell") }
