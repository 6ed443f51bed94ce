package logging_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meibo/cmd/meibo/logging"
)

func TestFollow_IsConsulsFormFromTheLevelThatIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stderr bytes.Buffer
		l := logging.New(logging.Config{Level: slog.LevelWarn, Stderr: &stderr})
		ctx, cancel := context.WithCancel(t.Context())
		text, asJSON := l.Follow(ctx, slog.LevelDebug, false), l.Follow(ctx, slog.LevelInfo, true)
		log := l.Logger().With("node", "n1").WithGroup("g")
		log.Debug("small", "empty", "")
		log.Info("check changed", "check", "web up", "took", 1500*time.Millisecond, slog.Group("h", "n", 3))
		log.Error("bad", "err", errors.New("a=b"))
		cancel()
		synctest.Wait()
		l.Logger().Error("after the end")

		at := `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d) `
		for _, want := range []string{
			`\[DEBUG\] meibo\.logging_test: small: node=n1 g\.empty=""\n$`,
			`\[INFO\]  meibo\.logging_test: check changed: node=n1 g\.check="web up" g\.took=1\.5s g\.h\.n=3\n$`,
			`\[ERROR\] meibo\.logging_test: bad: node=n1 g\.err="a=b"\n$`,
		} {
			if got := string(<-text); !regexp.MustCompile(at + want).MatchString(got) {
				t.Errorf("got %q, want %s", got, want)
			}
		}
		var line struct {
			At      string `json:"@timestamp"`
			Level   string `json:"@level"`
			Message string `json:"@message"`
			Module  string `json:"@module"`
			Node    string
			G       struct {
				Check string
				Took  float64
			}
		}
		if err := json.Unmarshal(<-asJSON, &line); err != nil || line.At == "" || line.Level != "info" || line.Message != "check changed" || line.Node != "n1" || line.G.Check != "web up" || line.G.Took != 1.5 {
			t.Errorf("got %+v, %v", line, err)
		}
		<-asJSON
		for _, ch := range []<-chan []byte{text, asJSON} {
			if more, ok := <-ch; ok {
				t.Errorf("after the end: %q", more)
			}
		}
		l.Close()
		if got := stderr.String(); strings.Contains(got, "small") || strings.Contains(got, "changed") || !strings.Contains(got, "bad") {
			t.Errorf("the log itself has %s", got)
		}
	})
}

// Who does not read loses lines, is told how many, and holds up nobody.
func TestFollow_WhoIsSlowIsToldOfWhatIsLost(t *testing.T) {
	l := logging.New(logging.Config{Level: slog.LevelInfo})
	defer l.Close()
	lines := l.Follow(t.Context(), slog.LevelInfo, false)
	for range 1000 {
		l.Logger().Info("x")
	}
	for range len(lines) {
		<-lines
	}
	l.Logger().Info("again")
	if got := string(<-lines); !strings.Contains(got, "dropped 488 logs") {
		t.Errorf("got %q", got)
	}
	if got := string(<-lines); !strings.Contains(got, "again") {
		t.Errorf("got %q", got)
	}
}
