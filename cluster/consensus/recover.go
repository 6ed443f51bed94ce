package consensus

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// recover replaces the configuration by cfg.Recover: all that is in the log
// counts as committed and becomes a snapshot that carries the new one. A
// recovery that has been done, and after which nothing was written, isn't done
// again, so that it may be asked for until somebody leads.
func (r *Replica) recover(conf *raft.Config, g *guarded, snapshots raft.SnapshotStore, t raft.Transport) error {
	if s, ok := find(r.cfg.Recover, r.cfg.ID); !ok {
		return fmt.Errorf("recover raft: the new list of servers doesn't name this one, %s", r.cfg.ID)
	} else if s.Addr == "" {
		return fmt.Errorf("recover raft: the new list of servers gives no address for %s", s.ID)
	}
	r.mu.Lock()
	r.recovered = true
	r.mu.Unlock()
	print := fingerprint(r.cfg.Recover)
	last, err := g.LastIndex()
	if err != nil {
		return err
	}
	if last == 0 && r.identity.recovery() == print {
		return nil
	}
	if err := raft.RecoverCluster(conf, r.fsm, g, g, snapshots, t, configurationOf(r.cfg.Recover)); err != nil {
		return fmt.Errorf("recover raft: %w", err)
	}
	r.applied.Store(0) // the state machine begins again, with the snapshot
	r.logger.Warn("raft goes on with another list of servers, as it was told to; entries may be lost", "servers", fmt.Sprint(r.cfg.Recover))
	return r.identity.recovered(print)
}

func configurationOf(servers []Server) (c raft.Configuration) {
	for _, s := range servers {
		suffrage := raft.Nonvoter
		if s.Voter {
			suffrage = raft.Voter
		}
		c.Servers = append(c.Servers, raft.Server{Suffrage: suffrage, ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Addr)})
	}
	return c
}
