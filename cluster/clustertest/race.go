//go:build race

package clustertest

// Under the race detector all takes some five times as long.
const raceEnabled = true
