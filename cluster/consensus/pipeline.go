package consensus

import (
	"sync"

	"github.com/hashicorp/raft"
)

// pipeline is Raft's, without a way to hang. When a follower rejects an entry
// Raft stops reading what is done, and may send once more before it closes the
// pipeline: then the sender waits for the decoder, which waits for a reader,
// and the follower gets heartbeats and nothing else for as long as the leader
// leads (hashicorp/raft issue 612). Here what is done always finds room.
type pipeline struct {
	raft.AppendPipeline
	done  chan raft.AppendFuture
	once  sync.Once
	close chan struct{}
}

// pipelineRoom is how much may be done that Raft hasn't read. Raft sees by
// chance, one to one for each entry that it sends, that it should stop.
const pipelineRoom = 64

// AppendEntriesPipeline implements raft.Transport.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, addr)
	if err != nil {
		return nil, err
	}
	p := &pipeline{AppendPipeline: inner, done: make(chan raft.AppendFuture, pipelineRoom), close: make(chan struct{})}
	t.pipelines.Go(p.drain)
	return p, nil
}

// drain hands on what is done until Raft closes the pipeline.
func (p *pipeline) drain() {
	for {
		select {
		case f := <-p.AppendPipeline.Consumer():
			select {
			case p.done <- f:
			default:
				_ = p.AppendPipeline.Close() // whoever sends is told
			}
		case <-p.close:
			return
		}
	}
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.done }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.close) })
	return p.AppendPipeline.Close()
}
