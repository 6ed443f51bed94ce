//go:build !linux

package resolvconf

import "os"

func isImmutable(string) bool { return false }

func reserve(*os.File, int64) error { return nil }
