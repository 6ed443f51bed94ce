package gossip

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Descriptions of the metrics. All have a fixed number of series.
var (
	descMembers   = prometheus.NewDesc("meibo_gossip_members", "Members by what answers go by.", []string{"status"}, nil)
	descTold      = prometheus.NewDesc("meibo_gossip_members_told", "Members by what gossip says at this moment.", []string{"status"}, nil)
	descClaims    = prometheus.NewDesc("meibo_gossip_claims_total", "Deaths told by gossip or by link.", nil, nil)
	descIgnored   = prometheus.NewDesc("meibo_gossip_claims_ignored_total", "Claims put off: this process was held up, or the accuser was itself dead lately.", nil, nil)
	descRefuted   = prometheus.NewDesc("meibo_gossip_claims_refuted_total", "Claims about a member that answered.", nil, nil)
	descConfirmed = prometheus.NewDesc("meibo_gossip_claims_confirmed_total", "Claims found true.", nil, nil)
	descBrakes    = prometheus.NewDesc("meibo_gossip_brakes_total", "Times that this host suspected itself because half of the others died.", nil, nil)
	descBraking   = prometheus.NewDesc("meibo_gossip_braking", "1 while this host suspects itself and takes out nobody.", nil, nil)
	descFlaps     = prometheus.NewDesc("meibo_gossip_flaps_total", "Members taken out, and returns that didn't last.", nil, nil)
	descPings     = prometheus.NewDesc("meibo_gossip_pings_total", "Pings of our own beside memberlist's.", nil, nil)
	descConflicts = prometheus.NewDesc("meibo_gossip_conflicts_total", "Conflicts of names or node IDs.", nil, nil)
	descDropped   = prometheus.NewDesc("meibo_gossip_dropped_total", "Messages dropped because too many waited.", nil, nil)
	descHealth    = prometheus.NewDesc("meibo_gossip_health_score", "memberlist's opinion of this host: 0 is healthy.", nil, nil)
)

// Collector returns the metrics. memberlist's own go nowhere.
func (g *Gossip) Collector() prometheus.Collector { return collector{g} }

type collector struct{ g *Gossip }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descMembers, descTold, descClaims, descIgnored, descRefuted, descConfirmed, descBrakes,
		descBraking, descFlaps, descPings, descConflicts, descDropped, descHealth,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	var status, told [len(statusNames)]int
	c.g.mu.Lock()
	n, braking := c.g.ledger.counts, c.g.ledger.brake.on
	for _, m := range c.g.ledger.members() {
		status[m.Status]++
		told[m.Told]++
	}
	c.g.mu.Unlock()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	total := func(d *prometheus.Desc, v uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	for s, name := range statusNames {
		name = strings.ReplaceAll(name, " ", "_")
		gauge(descMembers, float64(status[s]), name)
		gauge(descTold, float64(told[s]), name)
	}
	total(descClaims, n.claims)
	total(descIgnored, n.ignored)
	total(descRefuted, n.refuted)
	total(descConfirmed, n.confirmed)
	total(descBrakes, n.brakes)
	total(descFlaps, n.flaps)
	total(descPings, n.pings)
	total(descConflicts, n.conflicts)
	total(descDropped, c.g.mail.lost())
	held := 0.0
	if braking {
		held = 1
	}
	gauge(descBraking, held)
	score := 0
	if ml := c.g.ml.Load(); ml != nil {
		score = ml.GetHealthScore()
	}
	gauge(descHealth, float64(score))
}
