package main

import (
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// newBuildInfo is the metric that tells which binary runs.
func newBuildInfo() prometheus.Collector {
	goVersion, _, _ := strings.Cut(runtime.Version(), " ") // experiments follow
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "meibo_build_info", Help: "Always 1; the labels tell which binary runs.",
		ConstLabels: prometheus.Labels{"version": version, "api_level": apiLevel, "go_version": goVersion},
	}, func() float64 { return 1 })
}

// reloads counts how often the configuration was read again.
type reloads struct{ taken, refused prometheus.Counter }

func newReloads() reloads {
	count := func(result string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Name: "meibo_config_reloads_total", Help: "Times that the configuration was read again, by what became of it.",
			ConstLabels: prometheus.Labels{"result": result},
		})
	}
	return reloads{count("taken"), count("refused")}
}

func (r reloads) note(err error) {
	if err != nil {
		r.refused.Inc()
		return
	}
	r.taken.Inc()
}
