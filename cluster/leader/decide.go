package leader

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// survey is what a leader knows of the servers at one moment.
type survey struct {
	now       time.Time
	self      string // this server's ID
	clusterID string // empty: not compared
	expect    int
	young     bool // the catalog has just begun: nobody has been healthy for long
	policy    Autopilot
	// ok says that the configuration may be changed: the last change is
	// committed, and gossip can be believed.
	ok     bool
	conf   []RaftServer       // by ID
	member map[string]*Member // by server ID
	// answers are of the servers that say of themselves how they are, those
	// that aren't in the configuration included; took is how long each took.
	answers map[string]ServerHealth
	took    map[string]time.Duration
	absent  map[string]time.Duration // by server ID: for how long it is no member
	states  map[string]ServerState
}

// decide returns the step to be taken next, if any, in this order:
//
//  1. A server whose host has come back under another server ID, or whose
//     address is another's now, is removed: the vote of its files is gone, and
//     nobody must be taken for it.
//  2. A server that left is removed.
//  3. A server that moved gets its new address.
//  4. A server that is new is added without a vote.
//  5. A server without a vote gets one when it has been healthy for the time
//     of stabilization; at once while the cluster begins, and has fewer voters
//     than it is to have.
//  6. A dead server is removed: one without a vote at once, one with a vote
//     when another is in its place. That is seen by the number of voters being
//     even: clusters are odd, and taking one out of an odd number buys nothing,
//     while out of an even number it makes a smaller majority do.
//
// A server is only removed if the voters that are left and answer are a
// majority of those that are left, and this one never.
func (s *survey) decide() (step, bool) {
	if !s.ok || !slices.ContainsFunc(s.conf, func(c RaftServer) bool { return c.ID == s.self }) {
		return step{}, false
	}
	for _, rule := range []func() (step, bool){s.removeReplaced, s.removeLeft, s.readdress, s.admit, s.promote, s.cleanUp} {
		if next, ok := rule(); ok {
			return next, true
		}
	}
	return step{}, false
}

// removal returns the first server, in order of IDs, that is to go, and may.
func (s *survey) removal(goes func(RaftServer) (why string)) (step, bool) {
	for _, c := range s.conf {
		if c.ID == s.self || !s.keepsQuorum(c) {
			continue
		}
		if why := goes(c); why != "" {
			return step{server: c, remove: true, why: why}, true
		}
	}
	return step{}, false
}

// removeReplaced removes a server in whose place there is another now. One that starts
// may be the same: it says under which ID it goes on when it has read that.
func (s *survey) removeReplaced() (step, bool) {
	return s.removal(func(c RaftServer) string {
		if m, ok := s.member[c.ID]; ok && m.Status == Alive {
			return ""
		}
		for _, id := range slices.Sorted(maps.Keys(s.member)) {
			m := s.member[id]
			switch {
			case m.Status != Alive || id == c.ID || m.Server.RaftID == "":
			case sameText(m.Node.ID, c.ID):
				return fmt.Sprintf("%s lost its Raft files and is server %s now", m.Node.Node, id)
			case m.Server.Addr == c.Addr:
				return fmt.Sprintf("its address is that of %s, server %s, now", m.Node.Node, id)
			}
		}
		return ""
	})
}

func (s *survey) removeLeft() (step, bool) {
	return s.removal(func(c RaftServer) string {
		if m, ok := s.member[c.ID]; ok && m.Status == Left {
			return m.Node.Node + " left"
		}
		return ""
	})
}

func (s *survey) readdress() (step, bool) {
	for _, c := range s.conf {
		m, ok := s.member[c.ID]
		if !ok || m.Status != Alive || m.Server.Addr == "" || m.Server.Addr == c.Addr || s.isUsed(m.Server.Addr) {
			continue
		}
		moved := c
		moved.Addr = m.Server.Addr
		return step{server: moved, why: m.Node.Node + " moved from " + c.Addr}, true
	}
	return step{}, false
}

// isUsed reports whether the configuration has the address.
func (s *survey) isUsed(addr string) bool {
	return slices.ContainsFunc(s.conf, func(c RaftServer) bool { return c.Addr == addr })
}

func (s *survey) admit() (step, bool) {
	for _, id := range slices.Sorted(maps.Keys(s.member)) {
		m := s.member[id]
		h, answers := s.answers[id]
		_, known := s.states[id]
		_, ours := s.states[h.Promised]
		if known || m.Status != Alive || !answers || s.isForeign(h) || s.isUsed(m.Server.Addr) || (h.Promised != "" && !ours) {
			continue
		}
		return step{server: RaftServer{ID: id, Addr: m.Server.Addr}, why: m.Node.Node + " is new"}, true
	}
	return step{}, false
}

// isForeign reports whether the server belongs to another cluster.
func (s *survey) isForeign(h ServerHealth) bool {
	return s.clusterID != "" && h.ClusterID != "" && h.ClusterID != s.clusterID
}

func (s *survey) promote() (step, bool) {
	for _, c := range s.conf {
		m, ok := s.member[c.ID]
		state := s.states[c.ID]
		if c.Voter || !ok || m.Server.NonVoter || !state.Healthy {
			continue
		}
		steady := s.now.Sub(state.StableSince)
		why := fmt.Sprintf("%s has caught up, healthy for %v", m.Node.Node, steady.Round(time.Second))
		if steady < s.policy.ServerStabilizationTime {
			if !s.young || s.voters() >= s.expect {
				continue
			}
			why = m.Node.Node + " has caught up, the cluster begins"
		}
		c.Voter = true
		return step{server: c, why: why}, true
	}
	return step{}, false
}

func (s *survey) cleanUp() (step, bool) {
	if !s.policy.CleanupDeadServers {
		return step{}, false
	}
	replaced := s.voters()%2 == 0 && s.voters() > s.policy.MinQuorum
	return s.removal(func(c RaftServer) string {
		if !s.isDead(c) || (c.Voter && !replaced) {
			return ""
		}
		if m, ok := s.member[c.ID]; ok {
			return m.Node.Node + " failed"
		}
		return fmt.Sprintf("no member for %v", s.absent[c.ID].Round(time.Second))
	})
}

// isDead reports whether the server is dead for all that is known: gossip says
// so, or has not heard of it for long, and it doesn't answer either.
func (s *survey) isDead(c RaftServer) bool {
	if _, answers := s.answers[c.ID]; answers {
		return false
	}
	if m, ok := s.member[c.ID]; ok {
		return m.Status == Failed
	}
	return s.absent[c.ID] >= absentSettle
}

// isHealthy reports whether a server of the configuration does what it should:
// it lives, has heard its leader lately, and has most of the log.
func (s *survey) isHealthy(id string) bool {
	h, answers := s.answers[id]
	if m, ok := s.member[id]; !ok || m.Status != Alive {
		return false
	}
	if id == s.self {
		return true
	}
	own, sure := s.answers[s.self]
	// What is far away hears everything late.
	late := s.policy.LastContactThreshold + 2*s.took[id]
	switch {
	case !answers || h.LastContact < 0 || h.LastContact > late:
		return false
	case sure && h.LastTerm != own.LastTerm:
		return false
	}
	return h.LastIndex+uint64(s.policy.MaxTrailingLogs) >= own.LastIndex
}

// voters is the number of those that vote.
func (s *survey) voters() int {
	n := 0
	for _, c := range s.conf {
		if c.Voter {
			n++
		}
	}
	return n
}

// keepsQuorum reports whether the voters that answer still are a majority when
// the server has gone.
func (s *survey) keepsQuorum(gone RaftServer) bool {
	voters, answer := 0, 0
	for _, c := range s.conf {
		if !c.Voter || c.ID == gone.ID {
			continue
		}
		voters++
		if _, ok := s.answers[c.ID]; ok || c.ID == s.self {
			answer++
		}
	}
	return answer >= majority(voters)
}

func majority(voters int) int { return voters/2 + 1 }
