//go:build !race

package fleet

const (
	raceEnabled    = false
	raftMultiplier = 0 // meibo's own timeouts
)
