//go:build !linux

package check

import "time"

var processStart = time.Now()

// bootTime is the monotonic clock where there is no better one.
func bootTime() time.Duration { return time.Since(processStart) }
