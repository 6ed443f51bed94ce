package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// TestMetrics_AreThereAndWellFormed walks all that a host with everything on it exports.
func TestMetrics_AreThereAndWellFormed(t *testing.T) {
	s := newSite(t, `
		server = true  bootstrap = true  encrypt = "b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2w="
		http_config { operator = "open" }
		check { id = "due" name = "due" ttl = "1h" status = "warning" }`)
	s.start(t)
	s.led(t)
	s.up(t)
	s.mustCall(t, "PUT", "/v1/agent/reload", "")
	writeFile(t, s.dir, "conf/bad.hcl", "servise {}")
	if status, _, _ := s.call("PUT", "/v1/agent/reload", ""); status == 200 {
		t.Error("a bad file was taken")
	}

	for _, series := range []string{
		`meibo_build_info{api_level="1.21.0",go_version="go[^"]*",version="[^"]+"} 1`,
		`meibo_config_reloads_total{result="taken"} 1`, `meibo_config_reloads_total{result="refused"} 1`,
		`meibo_dns_answers_total{rcode="NOERROR",type="A"} [1-9]`, `meibo_dns_request_duration_seconds_bucket{le="0.0001"} [0-9]+`,
		`meibo_agent_checks{status="warning"} 1`, `meibo_agent_syncs_total{result="failed"} [0-9]+`,
		`meibo_raft_commit_duration_seconds_count [1-9][0-9]*`, `meibo_autopilot_healthy 1`, `meibo_autopilot_failure_tolerance 0`,
		`meibo_view_confirmed_age_seconds [0-9.e-]+`, `meibo_gossip_members{status="never_seen"} 0`,
		`meibo_cache_bytes [0-9]+`, `meibo_catalog_up 1`, `meibo_feed_streams 1`, `meibo_http_connections [0-9]+`, `meibo_link_accepted_total [0-9]+`,
		`meibo_resolver_in_flight 0`, `meibo_upstream_up{upstream="127.0.0.1:9"} [01]`, `meibo_log_lost_lines_total{to="stderr"} 0`,
	} {
		pattern := regexp.MustCompile("(?m)^" + strings.NewReplacer("{", `\{`, "}", `\}`).Replace(series))
		eventually(t, series, func() error {
			if body := s.metrics(t); !pattern.MatchString(body) {
				return fmt.Errorf("it is not among %q", regexp.MustCompile("(?m)^meibo_"+strings.Split(series, "_")[1]+".*").FindAllString(body, -1))
			}
			return nil
		})
	}
	for _, fault := range malformed(s.metrics(t)) {
		t.Error(fault)
	}
}

func (s *site) metrics(t *testing.T) string {
	_, body, err := s.call("GET", "/metrics", "")
	must(t, err)
	return body
}

var (
	typeLine  = regexp.MustCompile(`^# TYPE (\S+) (\S+)$`)
	helpLine  = regexp.MustCompile(`^# HELP (\S+) (.+)$`)
	labelPair = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
)

// malformed says what is wrong with metrics of ours in Prometheus' text format: no help, a counter that isn't called so, a
// label value that is hard to write in a query, a time that doesn't say what it is.
func malformed(text string) (faults []string) {
	helped := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if m := helpLine.FindStringSubmatch(line); m != nil {
			helped[m[1]] = true
			continue
		}
		m := typeLine.FindStringSubmatch(line)
		if m == nil && strings.HasPrefix(line, "meibo_") {
			for _, l := range labelPair.FindAllStringSubmatch(line, -1) {
				if l[2] == "" || strings.ContainsAny(l[2], " \t\\") {
					faults = append(faults, fmt.Sprintf("the value of %s in %s", l[1], line))
				}
			}
		}
		if m == nil || !strings.HasPrefix(m[1], "meibo_") {
			continue
		}
		name, kind := m[1], m[2]
		if !helped[name] {
			faults = append(faults, name+" has no help")
		}
		if (kind == "counter") != strings.HasSuffix(name, "_total") {
			faults = append(faults, name+" is a "+kind)
		}
		if strings.HasSuffix(name, "_seconds") && !regexp.MustCompile(`_(age|duration|srtt)_seconds$`).MatchString(name) {
			faults = append(faults, name+" does not say what time it is")
		}
	}
	return faults
}

func TestMalformedMetricsAreFound(t *testing.T) {
	for _, text := range []string{
		"# TYPE meibo_a gauge\nmeibo_a 1\n", "# HELP meibo_a x\n# TYPE meibo_a counter\n", "# HELP meibo_a_total x\n# TYPE meibo_a_total gauge\n",
		"meibo_a{status=\"never seen\"} 1\n", "# HELP meibo_seen_seconds x\n# TYPE meibo_seen_seconds gauge\n",
	} {
		if len(malformed(text)) != 1 {
			t.Errorf("%q: %v", text, malformed(text))
		}
	}
}
