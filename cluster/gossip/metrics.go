package gossip

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"meibo/cluster/membership"
)

// Descriptions of the metrics. All have a fixed number of series.
var (
	descMembers = prometheus.NewDesc("meibo_gossip_members", "Members by what answers go by.", []string{"status"}, nil)
	descTold    = prometheus.NewDesc("meibo_gossip_members_told", "Members by what gossip says at this moment.", []string{"status"}, nil)
	descGuarded = prometheus.NewDesc("meibo_gossip_mass_failure_guard", "1 while this host suspects itself because half of the others died, and takes out nobody.", nil, nil)
	descDropped = prometheus.NewDesc("meibo_gossip_dropped_total", "Messages dropped because too many waited.", nil, nil)
	descHealth  = prometheus.NewDesc("meibo_gossip_health_score", "memberlist's opinion of this host: 0 is healthy.", nil, nil)
)

// totals are the counts of the members' rules.
var totals = []struct {
	desc *prometheus.Desc
	of   func(membership.Counts) uint64
}{
	{total("suspicions", "Deaths told by gossip or by link."), func(c membership.Counts) uint64 { return c.Suspicions }},
	{total("suspicions_ignored", "Suspicions put off: this process was held up, or the accuser was itself dead lately."), func(c membership.Counts) uint64 { return c.Ignored }},
	{total("suspicions_refuted", "Suspicions about a member that answered."), func(c membership.Counts) uint64 { return c.Refuted }},
	{total("suspicions_confirmed", "Suspicions found true."), func(c membership.Counts) uint64 { return c.Confirmed }},
	{total("mass_failures", "Times that this host suspected itself because half of the others died."), func(c membership.Counts) uint64 { return c.Guards }},
	{total("flaps", "Members taken out, and returns that didn't last."), func(c membership.Counts) uint64 { return c.Flaps }},
	{total("pings", "Pings of our own beside memberlist's."), func(c membership.Counts) uint64 { return c.Pings }},
	{total("conflicts", "Conflicts of names or node IDs."), func(c membership.Counts) uint64 { return c.Conflicts }},
}

func total(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("meibo_gossip_"+name+"_total", help, nil, nil)
}

// Collector returns the metrics. memberlist's own go nowhere.
func (g *Gossip) Collector() prometheus.Collector { return collector{g} }

type collector struct{ g *Gossip }

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	counter := func(d *prometheus.Desc, v uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	table := c.g.Members()
	var status, told [membership.Left + 1]int
	for _, m := range table.Members() {
		status[m.Status]++
		told[m.Told]++
	}
	for s := range membership.Left + 1 {
		name := strings.ReplaceAll(s.String(), " ", "_")
		gauge(descMembers, status[s], name)
		gauge(descTold, told[s], name)
	}
	c.g.mu.Lock()
	counts := c.g.machine.Counts()
	c.g.mu.Unlock()
	for _, t := range totals {
		counter(t.desc, t.of(counts))
	}
	counter(descDropped, c.g.inbox.lost())
	guarded, score := 0, 0
	if table.Guarded() {
		guarded = 1
	}
	if ml := c.g.ml.Load(); ml != nil {
		score = ml.GetHealthScore()
	}
	gauge(descGuarded, guarded)
	gauge(descHealth, score)
}
