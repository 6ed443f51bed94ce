package main

import (
	"testing"

	"meibo/bench/hosttest"
	"meibo/cluster/clustertest/logtest"
)

// What tests of whole daemons share, under short names.
const patience = hosttest.Patience

type (
	process    = hosttest.Process
	syncBuffer = logtest.Text
)

var (
	meiboBinary = hosttest.Binary
	eventually  = hosttest.Eventually
	pause       = hosttest.Pause
	must        = hosttest.Must
	peersRoot   = hosttest.PeersRoot
	peer        = hosttest.Peer
	start       = hosttest.Start
	startMeibo  = hosttest.StartMeibo
	ask         = hosttest.Ask
	answers     = hosttest.Answers
	freePort    = hosttest.FreePort
	run         = hosttest.Run
	writeFile   = hosttest.WriteFile
	verifying   = hosttest.Verifying
)

// inHost runs body on a host of its own, beside other tests that have one.
func inHost(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	hosttest.InHost(t, body)
}
