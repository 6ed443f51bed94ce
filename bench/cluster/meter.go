package main

import (
	"time"

	"meibo/bench/servers"
)

// meter is what the servers have used and sent at a moment.
type meter struct {
	at              time.Time
	cpu             time.Duration
	bytes, pushes   float64
	streams         float64
	resident, first float64 // octets: of all, of the leader
}

// readMeter reads it. A server that is down counts for nothing.
func readMeter(c servers.Cluster, leader *servers.Server) (m meter) {
	m.at, m.cpu = time.Now(), c.CPU()
	for _, s := range c {
		values, err := s.Metrics()
		if err != nil {
			continue
		}
		m.bytes += values["meibo_feed_sent_bytes_total"]
		m.pushes += values["meibo_feed_updates_total"]
		m.streams += values["meibo_feed_streams"]
		m.resident += float64(s.Resident())
	}
	m.first = float64(leader.Resident())
	return m
}
