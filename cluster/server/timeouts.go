package server

import (
	"context"
	"slices"
	"time"

	"meibo/cluster/consensus"
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

// isTuned reports whether the configuration says what the timeouts are.
func (s *Server) isTuned() bool { return s.cfg.Consensus.Heartbeat > 0 }

// setTimeouts makes the timeouts of a server that is about to start those that
// suit the round trip. The lease can't be changed later, so it waits a little to
// learn how far the others are.
func (s *Server) setTimeouts(ctx context.Context, cfg *consensus.Config) {
	if s.isTuned() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, roundTripWait)
	defer cancel()
	rtt, known := s.roundTrip()
	for !known && retry.Wait(ctx, catchUpLook) {
		s.measure(ctx)
		rtt, known = s.roundTrip()
	}
	cfg.Heartbeat, cfg.Lease = timeoutsFor(rtt)
	cfg.Election = cfg.Heartbeat
}

// livingPeers are the other servers that gossip has for alive.
func (s *Server) livingPeers() []Peer {
	peers, _ := s.cfg.Network.Peers()
	return slices.DeleteFunc(peers, func(p Peer) bool { return !p.Alive })
}

// ping asks a server for a sign of life.
func (s *Server) ping(ctx context.Context, p Peer) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, roundTripTry)
	defer cancel()
	return s.cfg.Network.Ping(ctx, p.Name)
}

// measure asks the servers to which the round trip isn't known yet for a sign of
// life: gossip's own probes come to them by and by only, the later the more hosts
// there are, and until then a server that restarts is missing from the quorum.
func (s *Server) measure(ctx context.Context) {
	for _, p := range s.livingPeers() {
		if p.RTT > 0 {
			continue
		}
		if _, err := s.ping(ctx, p); err != nil {
			s.logger.Debug("round trip to a server not measured", "node", p.Name, "err", err)
		}
	}
}

// shortest asks every living server several times and returns the longest round
// trip to any by the best answer of each; those that don't answer count as known.
func (s *Server) shortest(ctx context.Context, known time.Duration) time.Duration {
	var longest time.Duration
	for _, p := range s.livingPeers() {
		best := known
		for range roundTripTries {
			if rtt, err := s.ping(ctx, p); err == nil && rtt > 0 {
				best = min(best, rtt)
			}
		}
		longest = max(longest, best)
	}
	return longest
}

// roundTrip is the longest to any living server, and whether those to all of
// them that are expected are known.
func (s *Server) roundTrip() (longest time.Duration, known bool) {
	measured := 0
	for _, p := range s.livingPeers() {
		if p.RTT > 0 {
			measured++
			longest = max(longest, p.RTT)
		}
	}
	if measured == 0 {
		return 0, s.cfg.Begins // it needs nobody, and may be the only one
	}
	return longest, measured+1 >= s.cfg.Expect
}

// followRoundTrip keeps the timeouts as they should be. A lease that is too
// short for the distance asks for another life of this server.
func (s *Server) followRoundTrip(ctx context.Context) error {
	if s.isTuned() {
		return nil
	}
	for retry.Wait(ctx, roundTripLook) {
		rtt, known := s.roundTrip()
		if !known {
			continue
		}
		heartbeat, lease := timeoutsFor(rtt)
		if lease > 2*s.lease { // one late answer is no distance
			rtt = s.shortest(ctx, rtt)
			heartbeat, lease = timeoutsFor(rtt)
		}
		if lease > 2*s.lease {
			s.logger.Warn("servers are further apart than when this one started: it starts again with longer timeouts", "rtt", rtt, "heartbeat", heartbeat)
			s.end(ErrRestart)
			return nil
		}
		heartbeat = max(heartbeat, s.lease)
		if err := s.replica.SetTimeouts(heartbeat, heartbeat); err != nil {
			s.logger.Debug("raft timeouts not set", "err", err)
		}
	}
	return nil
}
