package fleet

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"meibo/bench/hosttest"
)

// times is how often a fault is repeated: once, or as often as the long form says.
func times(long int) int {
	if hosttest.Verifying() {
		return long
	}
	return 1
}

// TestFleet_AnswersWhileLeadersDie kills the leader under a load of lookups and waits until writes are back.
func TestFleet_AnswersWhileLeadersDie(t *testing.T) {
	hosttest.InHost(t, func(t *testing.T) {
		f := newFleet(t, 3, 4)
		f.start()
		writer := f.agents()[0]
		var back []time.Duration
		for i := range times(20) {
			leader := f.leader()
			begin := time.Now()
			leader.kill()
			hosttest.Eventually(t, "a write", func() error {
				return writer.call("PUT", "/v1/catalog/register", fmt.Sprintf(`{"Node":"ext-%d","Address":"192.0.2.1"}`, i), nil)
			})
			back = append(back, time.Since(begin))
			leader.up()
			f.whole()
		}
		slices.Sort(back)
		t.Logf("writes back after the leader's death: p50 %v, p95 %v, max %v of %d", back[len(back)/2].Round(time.Millisecond),
			back[len(back)*95/100].Round(time.Millisecond), back[len(back)-1].Round(time.Millisecond), len(back))
		if hosttest.Verifying() && !raceEnabled {
			if p95, most := back[len(back)*95/100], back[len(back)-1]; p95 > 800*time.Millisecond || most > 1200*time.Millisecond {
				t.Errorf("p95 %v, want ≤ 0.8 s; max %v, want ≤ 1.2 s", p95, most)
			}
		}
		f.client.settled()
		f.client.check()
	})
}
