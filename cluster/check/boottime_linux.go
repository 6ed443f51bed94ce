package check

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootTime counts while the host is suspended, as the monotonic clock does not:
// a TTL that ran out during a suspend has run out.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Since(processStart)
	}
	return time.Duration(ts.Nano())
}

var processStart = time.Now()
