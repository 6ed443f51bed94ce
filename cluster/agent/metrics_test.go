package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func TestCollect_ShowsChecksByStatus(t *testing.T) {
	a := mustNew(t, Config{})
	must(t, a.AddService(web(), SourceAPI, false))
	registry := prometheus.NewPedanticRegistry()
	must(t, registry.Register(a))
	families, err := registry.Gather()
	must(t, err)
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "meibo_agent_checks" {
			continue
		}
		for _, m := range f.GetMetric() {
			got[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
		}
	}
	if diff := cmp.Diff(map[string]float64{"critical": 1, "passing": 0, "warning": 0}, got); diff != "" {
		t.Error(diff)
	}
}
