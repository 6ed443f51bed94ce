package fleet

import "meibo/bench/hosttest"

// What tests of whole daemons share, under short names.
const patience = hosttest.Patience

type (
	process    = hosttest.Process
	syncBuffer = hosttest.SyncBuffer
)

var (
	inHost      = hosttest.InHost
	meiboBinary = hosttest.Binary
	eventually  = hosttest.Eventually
	pause       = hosttest.Pause
	must        = hosttest.Must
	writeFile   = hosttest.WriteFile
	verifying   = hosttest.Verifying
)
