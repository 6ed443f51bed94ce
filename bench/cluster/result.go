package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// result is what a run measured. Names of JSON are for scripts; what isn't said otherwise is real.
type result struct {
	Machine string  `json:"machine"`
	Options options `json:"options"`

	Hosts     int   `json:"hosts"`
	Services  int   `json:"services"`
	Instances int   `json:"instances"`
	Lookups   int64 `json:"lookups"`
	Failed    int64 `json:"failed_lookups"`
	Wrong     int64 `json:"wrong_answers"` // without a change that was acknowledged 3 s before
	Stale     int64 `json:"stale_answers"` // without a change that was acknowledged before

	Lag  float64 `json:"lag_p99_ms"` // how late lookups began while instances changed
	Void bool    `json:"void"`       // too late to believe

	ChangeCollections int64 `json:"change_collections"` // of garbage, of those who play hosts, while instances changed

	Streams    int     `json:"streams"`
	AloneCores float64 `json:"server_cpu_cores_alone"` // no host
	IdleCores  float64 `json:"server_cpu_cores_idle"`  // no lookups, no changes
	RestCores  float64 `json:"server_cpu_cores_rest"`  // lookups, no changes
	Cores      float64 `json:"server_cpu_cores"`       // lookups and changes
	RestBytes  float64 `json:"server_bytes_per_s_rest"`
	Bytes      float64 `json:"server_bytes_per_s"`
	LeaderMB   float64 `json:"server_rss_mb"` // the leader's
	ServersMB  float64 `json:"servers_rss_mb"`
	InstanceKB float64 `json:"server_rss_kb_per_instance"`
	Pushes     float64 `json:"pushes_per_s"`

	LookupMicros float64 `json:"host_us_per_lookup"`
	RealMB       float64 `json:"host_rss_mb"`              // of a process, gossip among four included
	RealIdle     float64 `json:"host_cpu_percent_process"` // the same
	HostMB       float64 `json:"played_host_heap_mb"`      // records are shared
	HostBytes    float64 `json:"host_bytes_per_s_idle"`
	HostIdle     float64 `json:"host_cpu_percent_idle"`

	Changes    int     `json:"changes"`
	Rate       float64 `json:"changes_per_s"`
	Users      float64 `json:"users_per_change"`
	Missing    int     `json:"changes_not_seen"` // by a user within 30 s
	ChangeP50  float64 `json:"change_p50_ms"`
	ChangeP99  float64 `json:"change_p99_ms"`
	ChangeMax  float64 `json:"change_max_ms"`
	WriteP50   float64 `json:"write_p50_ms"` // until it was acknowledged
	WriteP99   float64 `json:"write_p99_ms"`
	StaleShare float64 `json:"stale_share"`

	HotPushes float64 `json:"hot_pushes_per_s"`
	HotLast   float64 `json:"hot_last_ms"`
	HotCores  float64 `json:"hot_server_cpu_cores"`

	Install           float64 `json:"install_s"` // until every host knew what it uses, from nothing (or from a file), a few at a time
	FleetStart        event   `json:"fleet_start"`
	Restart           event   `json:"tenth_restarted"`
	LeaderKilled      event   `json:"leader_killed"`         // until the last user of a service had heard of a write
	LeaderKilledWrite float64 `json:"leader_killed_write_s"` // until that was acknowledged
	AllKilled         event   `json:"all_servers_killed"`
	AllKilledLeader   float64 `json:"all_servers_killed_leader_s"`
	AllKilledHalf     float64 `json:"all_servers_killed_half_s"`

	DirectOf     string     `json:"direct_server"`
	DirectMicros float64    `json:"direct_us_per_lookup"`
	TTLs         []TTLCache `json:"ttl_caches"`
}

// event is what followed something that happens to the whole fleet.
type event struct {
	Seconds     float64 `json:"seconds"`      // until all was as it should be
	RestSeconds float64 `json:"rest_seconds"` // until the servers took no more than before
	PeakCores   float64 `json:"peak_cores"`   // most of the servers in half a second
	Lookups     int64   `json:"lookups"`
	Failed      int64   `json:"failed_lookups"`
	Wrong       int64   `json:"wrong_answers"`
	Lag         float64 `json:"lag_p99_ms"`
	Unseen      int     `json:"unseen,omitempty"` // hosts that had not seen the write after half a minute
}

func (r *result) save(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	return errors.Join(err, os.WriteFile(file, append(text, '\n'), 0o644))
}

// load reads the results of all sizes in a folder, the smallest first.
func loadResults(folder string) (list []result, err error) {
	files, err := filepath.Glob(filepath.Join(folder, "cluster-*.json"))
	for _, file := range files {
		text, e := os.ReadFile(file)
		var r result
		if e == nil {
			e = json.Unmarshal(text, &r)
		}
		if e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", file, e))
			continue
		}
		list = append(list, r)
	}
	return list, err
}

// bar is a figure, what it is to be at most, and how it is told.
type bar struct {
	what   string
	value  float64
	most   float64
	format string
}

// mebi is a MiB in MB.
const mebi = float64(1<<20) / 1e6

// bars are what a fleet is to hold.
func (r *result) bars() []bar {
	list := []bar{
		{"CPU of the three servers, lookups and changes", r.Cores, 0.1, "%.3f cores"},
		{"a change at every host that uses the service, p99", r.ChangeP99 / 1000, 1, "%.3f s"},
		{"the same, at most", r.ChangeMax / 1000, 3, "%.3f s"},
		{"resident memory of the leader", r.LeaderMB * mebi, 500, "%.0f MB"},
		{"memory of a host, a process with all it has, beside three others", r.RealMB * mebi, 30, "%.1f MB"},
		{"octets of a host when nothing changes, apart from gossip", r.HostBytes, 1024, "%.0f B/s"},
		{"an idle host, the same process", r.RealIdle, 0.5, "%.2f %% of a core"},
		{"lookups that failed", float64(r.Failed), 0, "%.0f"},
		{"answers that were wrong", float64(r.Wrong), 0, "%.0f"},
		{"the whole fleet starts within half a minute: the servers at rest", r.FleetStart.RestSeconds, 60, "%.0f s"},
		{"the leader killed: a write again", r.LeaderKilledWrite, 1.5, "%.2f s"},
		{"the leader killed: the servers at rest", r.LeaderKilled.RestSeconds, 60, "%.0f s"},
		{"all servers killed and started: at rest", r.AllKilled.RestSeconds, 60, "%.0f s"},
	}
	return list
}

// verdict is the error of a run that can't be believed, or that missed a bar if that counts.
func (r *result) verdict(judge bool) error {
	if r.Void {
		return fmt.Errorf("the run is void: lookups began %.0f ms late at p99, more than %d ms: this machine can't play so much", r.Lag, maxLag)
	}
	var err error
	for _, b := range r.bars() {
		if judge && b.value > b.most {
			err = errors.Join(err, fmt.Errorf("missed: %s: "+b.format+", want "+b.format+" at most", b.what, b.value, b.most))
		}
	}
	return err
}

// maxLag is how late lookups may begin at p99, in milliseconds, for a run to count.
const maxLag = 50

// table is the result for people.
func (r *result) table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range r.rows() {
		fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
	}
	_ = w.Flush()
	return b.String()
}

func (r *result) rows() (rows [][2]string) {
	add := func(what, format string, args ...any) {
		rows = append(rows, [2]string{what, fmt.Sprintf(format, args...)})
	}
	add("hosts, services, instances", "%d, %d, %d", r.Hosts, r.Services, r.Instances)
	add("lookups; failed; wrong", "%d; %d; %d", r.Lookups, r.Failed, r.Wrong)
	add("CPU of the three servers: alone; idle hosts; with lookups; with changes too", "%.3f; %.3f; %.3f; %.3f cores", r.AloneCores, r.IdleCores, r.RestCores, r.Cores)
	add("sent by the servers: nothing changes; with changes", "%.1f; %.1f KiB/s", r.RestBytes/1024, r.Bytes/1024)
	add("resident: the leader; all three", "%.0f; %.0f MiB", r.LeaderMB, r.ServersMB)
	add("streams; pushes", "%d; %.0f/s", r.Streams, r.Pushes)
	add("a host: CPU of a lookup, without its socket", "%.2f µs", r.LookupMicros)
	add("the same with its socket (computed)", "%.2f µs", r.LookupMicros+socketMicros)
	add("a host that is a process, beside three others: memory; CPU when idle", "%.1f MiB; %.2f %%", r.RealMB, r.RealIdle)
	heap := "not measured"
	if r.HostMB > 0 {
		heap = fmt.Sprintf("%.1f MiB", r.HostMB)
	}
	add("a played host, without gossip: heap, records shared; octets and CPU when idle", "%s; %.0f B/s; %.3f %%", heap, r.HostBytes, r.HostIdle)
	add("a change to hosts that use the service: p50; p99; max", "%.1f; %.1f; %.1f ms (%d changes, %.0f users each, %d unseen)", r.ChangeP50, r.ChangeP99, r.ChangeMax, r.Changes, r.Users, r.Missing)
	add("of that, until the write is acknowledged: p50; p99", "%.1f; %.1f ms", r.WriteP50, r.WriteP99)
	add("lookups answered as before a change, until it arrived", "%.5f %%", 100*r.StaleShare)
	add("a service of all hosts, one change a second: last host; pushes; CPU", "%.1f ms; %.0f/s; %.3f cores", r.HotLast, r.HotPushes, r.HotCores)
	for _, e := range []struct {
		what string
		event
	}{
		{"the whole fleet starts, with what it kept, to its last host", r.FleetStart}, {"a tenth of the hosts restarts, to its last host", r.Restart},
		{"the leader is killed, to the last user of a service that is written", r.LeaderKilled}, {"all servers are killed and started, to the last host confirmed", r.AllKilled},
	} {
		rest := ""
		if e.RestSeconds > 0 {
			rest = fmt.Sprintf(", servers at rest after %.0f s", e.RestSeconds)
		}
		add(e.what, "%.2f s (at most %.2f cores%s; %d lookups failed, %d wrong)", e.Seconds, e.PeakCores, rest, e.Failed, e.Wrong)
	}
	add("the leader is killed, to a write", "%.2f s", r.LeaderKilledWrite)
	add("a lookup at a server, of "+r.DirectOf, "%.1f µs", r.DirectMicros)
	for _, c := range r.TTLs {
		add(fmt.Sprintf("caches of TTL %d: queries; CPU of servers (computed); p99 of a change; stale (simulated)", c.TTL), "%.0f/s; %.3f cores; %.1f s; %.4f %%", c.Queries, c.Cores, c.P99, 100*c.StaleShare)
	}
	add("lookups began late, p99", "%.1f ms", r.Lag)
	return rows
}

// socketMicros is what a UDP socket adds to a lookup: the kernel's part of a cached answer at full load, of `make bench-dns`.
const socketMicros = 2.5
