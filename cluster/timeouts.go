package cluster

import (
	"context"
	"time"

	"meibo/cluster/consensus"
	"meibo/cluster/membership"
	"meibo/cluster/retry"
)

const (
	// nearby is the round trip up to which the shortest timeouts do.
	nearby = 20 * time.Millisecond
	// perRoundTrip is by how much of a round trip beyond that they are longer:
	// a heartbeat, its answer, and as much again for one that was lost.
	perRoundTrip = 4
	// roundTripLook is how often the round trip is looked at, and
	// roundTripWait how long a server that starts waits to learn it.
	roundTripLook = 10 * time.Second
	roundTripWait = 3 * time.Second
	// roundTripTry is how long one server is asked for a sign of life, and
	// roundTripTries how often to make sure.
	roundTripTry   = 500 * time.Millisecond
	roundTripTries = 5
)

// timeoutsFor are Raft's timeouts for servers so far apart.
func timeoutsFor(rtt time.Duration) (heartbeat, lease time.Duration) {
	extra := perRoundTrip * max(0, rtt-nearby)
	return consensus.DefaultHeartbeat + extra, consensus.DefaultLease + extra*3/4
}

// tunedByHand reports whether the configuration says what the timeouts are.
func (n *Node) tunedByHand() bool { return n.cfg.Consensus.Heartbeat > 0 }

// setTimeouts makes the timeouts of a server that is about to start those that
// suit the round trip. The lease can't be changed later, so it waits a little to
// learn how far the others are.
func (n *Node) setTimeouts(ctx context.Context, cfg *consensus.Config) {
	if n.tunedByHand() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, roundTripWait)
	defer cancel()
	rtt, known := n.roundTrip()
	for !known && retry.Wait(ctx, catchUpLook) {
		n.measure(ctx)
		rtt, known = n.roundTrip()
	}
	cfg.Heartbeat, cfg.Lease = timeoutsFor(rtt)
	cfg.Election = cfg.Heartbeat
}

// measure asks the servers to which the round trip isn't known yet for a sign of
// life: gossip's own probes come to them by and by only, the later the more hosts
// there are, and until then a server that restarts is missing from the quorum.
func (n *Node) measure(ctx context.Context) {
	w, _ := n.network()
	if w == nil {
		return
	}
	for _, m := range w.gossip.Members().Role(roleServer) {
		if m.ID != n.cfg.NodeID && m.Status == membership.Alive && m.RTT == 0 {
			try, cancel := context.WithTimeout(ctx, roundTripTry)
			if _, err := w.gossip.Ping(try, m.Name); err != nil {
				n.logger.Debug("round trip to a server not measured", "node", m.Name, "err", err)
			}
			cancel()
		}
	}
}

// shortest asks every living server several times and returns the longest round
// trip to any by the best answer of each; those that don't answer count as known.
func (n *Node) shortest(ctx context.Context, known time.Duration) time.Duration {
	w, _ := n.network()
	if w == nil {
		return known
	}
	var longest time.Duration
	for _, m := range w.gossip.Members().Role(roleServer) {
		if m.ID == n.cfg.NodeID || m.Status != membership.Alive {
			continue
		}
		best := known
		for range roundTripTries {
			try, cancel := context.WithTimeout(ctx, roundTripTry)
			if rtt, err := w.gossip.Ping(try, m.Name); err == nil && rtt > 0 {
				best = min(best, rtt)
			}
			cancel()
		}
		longest = max(longest, best)
	}
	return longest
}

// roundTrip is the longest to any living server, and whether those to all of
// them that are expected are known.
func (n *Node) roundTrip() (longest time.Duration, known bool) {
	w, _ := n.network()
	if w == nil {
		return 0, false
	}
	measured := 0
	for _, m := range w.gossip.Members().Role(roleServer) {
		if m.ID == n.cfg.NodeID || m.Status != membership.Alive || m.RTT == 0 {
			continue
		}
		measured++
		longest = max(longest, m.RTT)
	}
	if measured == 0 {
		return 0, n.begins() // it needs nobody, and may be the only one
	}
	return longest, measured+1 >= n.cfg.BootstrapExpect
}

// followRoundTrip keeps the timeouts as they should be. A lease that is too
// short for the distance asks for another life of this server.
func (s *server) followRoundTrip(ctx context.Context) error {
	if s.node.tunedByHand() {
		return nil
	}
	for retry.Wait(ctx, roundTripLook) {
		rtt, known := s.node.roundTrip()
		if !known {
			continue
		}
		heartbeat, lease := timeoutsFor(rtt)
		if lease > 2*s.lease { // one late answer is no distance
			rtt = s.node.shortest(ctx, rtt)
			heartbeat, lease = timeoutsFor(rtt)
		}
		if lease > 2*s.lease {
			s.logger.Warn("servers are further apart than when this one started: it starts again with longer timeouts", "rtt", rtt, "heartbeat", heartbeat)
			s.end(errAgain)
			return nil
		}
		heartbeat = max(heartbeat, s.lease)
		if err := s.replica.SetTimeouts(heartbeat, heartbeat); err != nil {
			s.logger.Debug("raft timeouts not set", "err", err)
		}
	}
	return nil
}
