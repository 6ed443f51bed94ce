//go:build !race

package main

const (
	raceEnabled    = false
	raftMultiplier = 0 // meibo's own timeouts
)
