package logging

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
	"time"
)

func TestJSON_DurationsAreInSeconds(t *testing.T) {
	var out bytes.Buffer
	l := New(Config{JSON: true, Stderr: &out})
	l.Logger().WithGroup("g").Info("x", "dur", 1500*time.Millisecond, "n", 3, slog.Group("deep", "rtt", time.Microsecond))
	l.Close()
	var line struct {
		G struct {
			Dur, N float64
			Deep   struct{ RTT float64 }
		}
	}
	must(t, json.Unmarshal(out.Bytes(), &line))
	if line.G.Dur != 1.5 || line.G.N != 3 || line.G.Deep.RTT != 1e-6 {
		t.Errorf("got %s", out.Bytes())
	}
}
