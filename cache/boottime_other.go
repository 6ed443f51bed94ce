//go:build !linux

package cache

import "time"

// sinceBoot is the monotonic clock on systems without CLOCK_BOOTTIME.
func sinceBoot(mono time.Duration) time.Duration { return mono }
