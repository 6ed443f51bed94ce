package gossip

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// The same cause is said once, with all the hosts that it keeps from being reached.
func TestJoin_SaysEachCauseOnce(t *testing.T) {
	key, refused := errors.New("the keys differ"), errors.New("refused")
	err := byCause([]error{
		&joinError{"10.0.0.2", key}, &joinError{"10.0.0.3", refused}, &joinError{"10.0.0.1", key}, errors.New("a program failed"),
	})
	want := "a program failed\njoin 10.0.0.1, 10.0.0.2: the keys differ\njoin 10.0.0.3: refused"
	if err.Error() != want || !errors.Is(err, key) {
		t.Errorf("got %q, want %q", err, want)
	}
	if byCause(nil) != nil {
		t.Error("no failure is one")
	}
}

func TestJoin_WarnsOfTheSameOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said unreached
		port := func(p string) error { return errors.New("read tcp 10.0.0.9:" + p + "->10.0.0.1:8301: reset") }
		for i, tt := range []struct {
			after   time.Duration
			err     error
			attempt int
			want    slog.Level
		}{
			{0, port("1"), 1, slog.LevelWarn},
			{time.Second, port("2"), 2, slog.LevelDebug},
			{time.Second, errors.New("refused"), 3, slog.LevelWarn},
			{time.Second, errors.New("refused"), 4, slog.LevelDebug},
			{quiet, errors.New("refused"), 5, slog.LevelWarn},
			{time.Second, errOldKey, 1, slog.LevelInfo},
			{time.Second, errOldKey, oldKeyIsNews, slog.LevelWarn},
		} {
			time.Sleep(tt.after) // synctest's
			if got := said.level(tt.err, tt.attempt); got != tt.want {
				t.Errorf("%d: %v, want %v", i, got, tt.want)
			}
		}
	})
}
