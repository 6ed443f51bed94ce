package retry

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestBackoff_DoublesUpToItsMostAndScatters(t *testing.T) {
	b := Backoff{Min: 100 * time.Millisecond, Max: time.Second}
	differ := false
	for range 2 {
		for i, most := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
			most *= time.Millisecond
			d := b.Next()
			if d < most/2 || d > most {
				t.Errorf("pause %d is %v, want between %v and %v", i, d, most/2, most)
			}
			differ = differ || d != most
		}
		b.Reset()
	}
	if !differ {
		t.Error("twelve pauses without any scatter")
	}
}

func TestWait_EndsWithTimeContextOrWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		if !Wait(t.Context(), time.Second) || time.Since(begin) != time.Second {
			t.Errorf("waited %v, want 1s", time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if Wait(ctx, time.Minute) || WaitFor(ctx, time.Minute, nil) {
			t.Error("the context's end is no success")
		}
		wake := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(wake) })
		begin = time.Now()
		if !WaitFor(t.Context(), time.Minute, wake) || time.Since(begin) != time.Second {
			t.Errorf("woken after %v, want 1s", time.Since(begin))
		}
	})
}
