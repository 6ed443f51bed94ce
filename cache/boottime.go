package cache

import (
	"sync/atomic"
	"time"
)

// resyncEvery is how long BootTime trusts the offset between the monotonic
// clock and the boot clock. Reading the boot clock is a system call (Go reaches
// the vDSO for the monotonic clock only), ten times the cost of a whole lookup's
// hash; after a suspend the offset is wrong for at most this long, far below the
// one-second grain of TTLs.
const resyncEvery = 10 * time.Millisecond

var bootClock struct {
	synced atomic.Int64 // monotonic time of the last resync
	offset atomic.Int64 // boot time minus monotonic time
}

// processStart is the origin of the monotonic readings below.
var processStart = time.Now()

// BootTime is the time since the machine started, the time it was suspended
// included (CLOCK_BOOTTIME), so that answers age while a laptop sleeps. Where
// there is no such clock it is the time since the process started. It never
// follows changes of the wall clock. Safe for concurrent use.
func BootTime() time.Duration {
	mono := time.Since(processStart)
	synced := bootClock.synced.Load()
	if synced == 0 || int64(mono)-synced >= int64(resyncEvery) {
		bootClock.offset.Store(int64(sinceBoot(mono) - mono))
		bootClock.synced.Store(int64(mono))
	}
	return mono + time.Duration(bootClock.offset.Load())
}
