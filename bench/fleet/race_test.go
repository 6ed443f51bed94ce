//go:build race

package fleet

// Under the race detector daemons are some ten times slower, and elections with the usual timeouts would follow one
// another.
const (
	raceEnabled    = true
	raftMultiplier = 4
)
