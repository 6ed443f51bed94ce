//go:build !linux

package main

import (
	"context"
	"errors"
)

func watchProcess(string) (wait func(ctx context.Context) error, err error) {
	return nil, errors.ErrUnsupported
}
