package consensus

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// spaceInterval is how often the free space is looked at: a disk that is
	// written at 30 MB/s fills no more than DefaultMinFree between two looks.
	spaceInterval = 2 * time.Second
	// handOverAgain is how long a leader on a full disk waits after it failed
	// to find another, who may have as little space.
	handOverAgain = 30 * time.Second
	// minFreePart bounds MinFree to this part of the disk, for small ones.
	minFreePart = 16
)

// watchSpace looks at the free space until ctx ends. While there is too little
// this server takes no writes, and leads only if nobody else can.
func (r *Replica) watchSpace(ctx context.Context, rf *raft.Raft) {
	if r.cfg.Dir == "" || r.cfg.MinFree < 0 {
		return
	}
	tick := time.NewTicker(spaceInterval)
	defer tick.Stop()
	var handedOver time.Time
	for {
		full := r.checkSpace()
		if full && rf.State() == raft.Leader && time.Since(handedOver) > handOverAgain {
			handedOver = time.Now()
			r.handOver(rf)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// checkSpace takes down whether there is too little space, and says so when
// that changes.
func (r *Replica) checkSpace() bool {
	free, total, err := r.space(r.cfg.Dir)
	if err != nil {
		return false // a disk that can't be asked says more when it is written
	}
	var problem error
	if least := min(uint64(r.cfg.MinFree), total/minFreePart); free < least {
		problem = fmt.Errorf("%w: %s has %d MiB free, at least %d are needed", ErrDiskFull, r.cfg.Dir, free>>20, least>>20)
	}
	was := r.full.Swap(&problem)
	switch {
	case problem != nil && (was == nil || *was == nil):
		r.logger.Error("raft takes no writes", "err", problem)
	case problem == nil && was != nil && *was != nil:
		r.logger.Info("raft takes writes again", "free", free)
	}
	return problem != nil
}

// lacksSpace is the error of writes while there is too little space.
func (r *Replica) lacksSpace() error {
	if problem := r.full.Load(); problem != nil {
		return *problem
	}
	return nil
}
