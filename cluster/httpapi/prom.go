package httpapi

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"meibo/cluster/acl"
)

// metricsText is /metrics, in Prometheus' formats.
func (a *agentSet) metricsText(r *request) (any, error) {
	if err := r.authorize(acl.Agent, a.cfg.Node, acl.Read); err != nil {
		return nil, err
	}
	scrape := &scrape{ResponseWriter: r.w, endpoints: a.endpoints}
	promhttp.HandlerFor(a.cfg.Gatherer, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, // one broken collector must not hide the others
		ErrorLog:      scrape,
	}).ServeHTTP(scrape, r.Request)
	return written, nil
}

// scrape is one answer in Prometheus' text, and the log of what went wrong in it: promhttp
// goes on with the next family when the client is gone, and says so for each.
type scrape struct {
	http.ResponseWriter
	*endpoints
	gone bool
}

// Write implements http.ResponseWriter.
func (s *scrape) Write(p []byte) (int, error) {
	n, err := s.ResponseWriter.Write(p)
	s.gone = s.gone || err != nil
	return n, err
}

// Unwrap lets http.ResponseController reach flushing and deadlines.
func (s *scrape) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Println implements promhttp.Logger. A client that goes away is no fault of ours.
func (s *scrape) Println(v ...any) {
	if !s.gone {
		s.log.Warn("gather metrics", "err", strings.TrimSpace(fmt.Sprintln(v...)))
	}
}

// renamed has the metrics of a gatherer whose names begin with "meibo" begin with prefix.
func renamed(from prometheus.Gatherer, prefix string) prometheus.Gatherer {
	prefix = strings.Map(func(c rune) rune {
		if c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			return c
		}
		return '_'
	}, prefix)
	if prefix == "" || prefix == "meibo" {
		return from
	}
	if prefix[0] <= '9' {
		prefix = "_" + prefix
	}
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		families, err := from.Gather()
		for _, f := range families {
			if rest, ok := strings.CutPrefix(f.GetName(), "meibo_"); ok {
				f.Name = new(prefix + "_" + rest)
			}
		}
		slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
		return families, err
	})
}

// metricsShape is Consul's JSON of /v1/agent/metrics.
type metricsShape struct {
	Timestamp string
	Gauges    []gaugeShape
	Points    []struct{}
	Counters  []sampleShape
	Samples   []sampleShape
}

type gaugeShape struct {
	Name   string
	Value  float64
	Labels map[string]string
}

type sampleShape struct {
	Name   string
	Count  uint64
	Rate   float64
	Sum    float64
	Min    float64
	Max    float64
	Mean   float64
	Stddev float64
	Labels map[string]string
}

// metricsJSON shows the same metrics in Consul's form, or as Prometheus' text when asked.
// Counters count since the start, not over the last ten seconds as Consul's do.
func (a *agentSet) metricsJSON(r *request) (any, error) {
	if r.query.Get("format") == "prometheus" {
		if a.cfg.NoPrometheus {
			return nil, errorf(http.StatusUnsupportedMediaType, "Prometheus is not enabled since its retention time is not positive")
		}
		return a.metricsText(r)
	}
	if err := r.authorize(acl.Agent, a.cfg.Node, acl.Read); err != nil {
		return nil, err
	}
	return a.gather()
}

// gather reads all metrics in Consul's form.
func (a *agentSet) gather() (any, error) {
	families, err := a.cfg.Gatherer.Gather()
	if err != nil && len(families) == 0 {
		return nil, errorf(http.StatusInternalServerError, "gather metrics: %v", err)
	}
	out := metricsShape{
		Timestamp: time.Now().UTC().Truncate(10 * time.Second).Format("2006-01-02 15:04:05 -0700 MST"),
		Gauges:    []gaugeShape{}, Points: []struct{}{}, Counters: []sampleShape{}, Samples: []sampleShape{},
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := make(map[string]string, len(m.GetLabel()))
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			name := f.GetName()
			switch {
			case m.GetCounter() != nil:
				out.Counters = append(out.Counters, total(name, 1, m.GetCounter().GetValue(), labels))
			case m.GetHistogram() != nil:
				h := m.GetHistogram()
				out.Samples = append(out.Samples, total(name, h.GetSampleCount(), h.GetSampleSum(), labels))
			case m.GetSummary() != nil:
				s := m.GetSummary()
				out.Samples = append(out.Samples, total(name, s.GetSampleCount(), s.GetSampleSum(), labels))
			case m.GetGauge() != nil:
				out.Gauges = append(out.Gauges, gaugeShape{name, finite(m.GetGauge().GetValue()), labels})
			case m.GetUntyped() != nil:
				out.Gauges = append(out.Gauges, gaugeShape{name, finite(m.GetUntyped().GetValue()), labels})
			}
		}
	}
	return out, nil
}

func total(name string, count uint64, sum float64, labels map[string]string) sampleShape {
	sum = finite(sum)
	s := sampleShape{Name: name, Count: count, Sum: sum, Labels: labels}
	if count > 0 {
		s.Mean = sum / float64(count)
		s.Min, s.Max = s.Mean, s.Mean
	}
	return s
}

// finite replaces what JSON cannot say.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}
