package feed

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// When every server has failed lately, the one that failed last is asked last: it is
// the one whose stream just broke.
func TestOrder_ServersThatFailedComeLastTheLatestOfThemAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClient(ClientConfig{NodeID: "a host"})
		servers := []string{"10.0.0.1:8300", "10.0.0.2:8300", "10.0.0.3:8300"}
		own := c.order(servers, true)
		for _, i := range []int{1, 2, 0} {
			c.avoid(own[i])
			time.Sleep(time.Millisecond)
		}
		if got, want := c.order(servers, true), []string{own[1], own[2], own[0]}; !slices.Equal(got, want) {
			t.Errorf("all failed: got %v, want %v", got, want)
		}
		if got := c.order(servers, false); !slices.Equal(got, own) {
			t.Errorf("not careful: got %v, want %v", got, own)
		}
		time.Sleep(avoided)
		c.avoid(own[0])
		if got, want := c.order(servers, true), []string{own[1], own[2], own[0]}; !slices.Equal(got, want) {
			t.Errorf("one failed: got %v, want %v", got, want)
		}
	})
}
