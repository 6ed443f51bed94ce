// Package signals hears what a service manager sends from the first moment of the
// process on.
//
// A signal that nobody listens for kills, and some milliseconds pass until main runs:
// the init of all that is linked in. This package needs the runtime alone, so that its
// own init comes early among them; for the daemon it listens from there. It must not
// import anything else of ours, or it would have to wait for that.
package signals

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Heard are the signals that have come and were not carried out yet. Each channel keeps
// what comes while nobody receives.
type Heard struct {
	// Stop holds two: the second one cuts short what the first one began.
	Stop chan os.Signal // SIGTERM, SIGINT
	// Hangup holds one: several that come while one is carried out are one more.
	Hangup chan os.Signal // SIGHUP
	spared chan os.Signal
}

// early is what was heard since the process began; the first Hear takes it over.
var early = struct {
	sync.Mutex
	heard *Heard
}{heard: hearEarly(os.Args)}

// hearEarly listens for the daemon alone: any other command ends as usual.
func hearEarly(args []string) *Heard {
	if len(args) < 2 || args[1] != "agent" {
		return nil
	}
	return hear()
}

// Hear returns the signals that come from now on, and those that came since the process
// began if this is its first call. The caller calls Release when it is done.
func Hear() *Heard {
	early.Lock()
	defer early.Unlock()
	if h := early.heard; h != nil {
		early.heard = nil
		return h
	}
	return hear()
}

func hear() *Heard {
	h := &Heard{Stop: make(chan os.Signal, 2), Hangup: make(chan os.Signal, 1), spared: make(chan os.Signal, 1)}
	signal.Notify(h.Stop, os.Interrupt, syscall.SIGTERM)
	signal.Notify(h.Hangup, syscall.SIGHUP)
	// A write beyond the limit of a file's size is an error of that write; the signal
	// beside it would end the process, as one to output that nobody reads any more would.
	// They must not be ignored, which scripts would inherit.
	signal.Notify(h.spared, syscall.SIGXFSZ, syscall.SIGPIPE)
	return h
}

// Release ends listening: signals do again what they do by default.
func (h *Heard) Release() {
	signal.Stop(h.Stop)
	signal.Stop(h.Hangup)
	signal.Stop(h.spared)
}
