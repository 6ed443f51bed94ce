package gossip

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"meibo/cluster/clustertest/logtest"
	"meibo/cluster/membership"
)

func TestLogger_TellsWhatMattersOnceAndHearsWhomThisHostAccuses(t *testing.T) {
	var log logtest.Text
	heard := make(map[string]bool)
	l := newLines(slog.New(slog.NewTextHandler(&log, nil)), func(name string, dead bool) { heard[name] = dead }, func() {})
	for _, text := range []string{
		"[DEBUG] memberlist: Stream connection from=127.0.0.1:4000",
		"[INFO] memberlist: Suspect web 1 has failed, no acks received",
		"[INFO] memberlist: Marking web2 as failed, suspect timeout reached (2 peer confirmations)",
		"[ERR] memberlist: Failed to send UDP ping: refused",
		"[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.9:8301",
		"[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.9:40000",
		"[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.8:8301",
	} {
		l.Print(text)
	}
	if got := log.String(); strings.Count(got, "\n") != 2 || strings.Count(got, "one of the two lacks") != 1 || strings.Count(got, "this host that lacks") != 1 || !strings.Contains(got, "10.0.0.9") || !strings.Contains(got, "10.0.0.8") {
		t.Errorf("got %q", got)
	}
	for i := range 1 << 12 { // strangers from many addresses do not fill the log
		l.Printf("[ERR] memberlist: no installed keys could decrypt the message from=10.1.%d.%d:8301", i>>8&255, i&255)
	}
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("strangers made %d lines", n)
	}
	if dead, ok := heard["web 1"]; !ok || dead || !heard["web2"] {
		t.Errorf("heard %v", heard)
	}
}

func TestMetrics_AreDescribedAndWhole(t *testing.T) {
	h := onLoopback(t, 1, func(c *Config) {})
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(h.Collector()); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 13 {
		t.Errorf("got %d families, %v", len(families), err)
	}
	for _, f := range families {
		if f.GetName() == "meibo_gossip_members" && len(f.GetMetric()) != int(membership.Left)+1 {
			t.Errorf("got %d series of %s", len(f.GetMetric()), f.GetName())
		}
	}
}
