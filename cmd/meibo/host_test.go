package main

import (
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
	inHost      = hosttest.InHost
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
