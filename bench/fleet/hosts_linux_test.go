package fleet

import (
	"slices"
	"testing"
	"time"

	"meibo/bench/hosttest"
)

// but are the hosts without some.
func but(hosts []*fleetHost, without ...*fleetHost) []*fleetHost {
	return slices.DeleteFunc(slices.Clone(hosts), func(h *fleetHost) bool { return slices.Contains(without, h) })
}

// beside lets the short form of a fleet's test run beside another: it waits most of the time.
func beside(t *testing.T) {
	if !hosttest.Verifying() {
		t.Parallel()
	}
}

// long is the first duration in the long form, else the second.
func long(verify, short time.Duration) time.Duration {
	if hosttest.Verifying() {
		return verify
	}
	return short
}
