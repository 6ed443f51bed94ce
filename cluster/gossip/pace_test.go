package gossip

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
)

// Memberlist's fields are reached by name: a version that calls them otherwise would
// wake every host ten times a second.
func TestRounds_FindMemberlists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := memberlist.DefaultLANConfig()
		cfg.Name, cfg.Logger = "a", newLines(slog.New(slog.DiscardHandler), func(string, bool) {}, func() {})
		cfg.Transport = new(memberlist.MockNetwork).NewTransport("a")
		ml, err := memberlist.Create(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer ml.Shutdown()
		own := &memberlist.TransmitLimitedQueue{NumNodes: func() int { return 2 }, RetransmitMult: 1}
		r := newRounds(ml, Tuning{ProbeInterval: time.Second, Interval: 100 * time.Millisecond}, own)
		if r.probe == nil || r.tell == nil || len(r.queues) != 2 {
			t.Fatalf("%+v: not found", r)
		}
		for _, tc := range []struct {
			name                     string
			after                    time.Duration
			do                       func()
			others, telling, probing bool
		}{
			{"alone: its own description stays queued", 0, func() {}, false, false, false},
			{"alone, with something to tell", 0, r.hasten, false, false, false},
			{"another is there", 0, func() {}, true, true, true},
			{"it goes on for a while", tellLinger / 2, r.queues[1].Reset, true, true, true},
			{"and ends", 2 * tellLinger, func() {}, true, false, true},
			{"something is queued", 0, func() { own.QueueBroadcast(&broadcast{body: []byte("x")}) }, true, true, true},
			{"and told", 2 * tellLinger, own.Reset, true, false, true},
			{"something is about to be", 0, r.hasten, true, true, true},
		} {
			time.Sleep(tc.after) // in fake time
			tc.do()
			r.follow(time.Now(), tc.others)
			if r.telling != tc.telling || r.probing != tc.probing {
				t.Errorf("%s: telling %v, probing %v", tc.name, r.telling, r.probing)
			}
		}
	})
}
