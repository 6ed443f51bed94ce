package resolver_test

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"meibo/resolver"
)

func TestLatencyOfWhatIsWaitedForIsMeasuredAndTheRestIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		r, _ := newResolver(t, resolver.Table{Mounts: []resolver.Mount{
			mount("consul", resolver.RankOwn, says("x")), mount("slow", resolver.RankOwn, blocked(open)),
		}})
		<-send(r, "web.consul", 1) // made in place
		for range 3 {
			<-send(r, "web.consul", 2) // from the cache
		}
		first := send(r, "a.slow", 3)
		time.Sleep(100 * time.Millisecond)
		second := send(r, "a.slow", 4)
		time.Sleep(200 * time.Millisecond)
		close(open)
		<-first
		<-second
		h := latency(t, r)
		if got := h.GetSampleCount(); got != 6 {
			t.Errorf("%d answers, want 6", got)
		}
		if got := h.GetSampleSum(); got < 0.4999 || got > 0.5001 { // 300 ms and 200 ms
			t.Errorf("%v s in all", got)
		}
		got := map[float64]uint64{}
		for _, b := range h.GetBucket() {
			got[b.GetUpperBound()] = b.GetCumulativeCount()
		}
		want := map[float64]uint64{0.0001: 4, 0.001: 4, 0.005: 4, 0.01: 4, 0.025: 4, 0.05: 4, 0.1: 4, 0.25: 5, 0.5: 6, 1: 6, 2.5: 6, 5: 6}
		if !maps.Equal(got, want) {
			t.Errorf("buckets %v, want %v", got, want)
		}
	})
}

func latency(t *testing.T, r *resolver.Resolver) *dto.Histogram {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(r.Collector())
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "meibo_dns_request_duration_seconds" {
			return f.Metric[0].GetHistogram()
		}
	}
	t.Fatal("no histogram")
	return nil
}
