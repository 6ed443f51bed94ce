package cluster

import (
	"slices"
	"testing"

	"meibo/cluster/leader"
)

// A leader of thousands of members is told of each change anew: who hasn't changed
// isn't made again.
func TestServerNetwork_ToldOfAChangeMakesWhatHasChanged(t *testing.T) {
	cfgs := triplets(t)
	nodes := make([]*running, len(cfgs))
	for i, cfg := range cfgs {
		nodes[i] = run(t, cfg)
	}
	awaitServers(t, nodes, len(nodes))
	s := &serverNetwork{n: nodes[0].Node}
	s.Members()
	w, _ := nodes[2].network()
	if err := w.gossip.SetTags(map[string]string{tagRaft: "another"}); err != nil {
		t.Fatal(err)
	}
	for told := false; !told; {
		before := s.known
		members, _, changed := s.Members()
		for m, made := range s.known {
			if old := before[m]; old != nil && old != made && m.ID != nodes[0].cfg.NodeID {
				t.Errorf("%s hasn't changed and is made again", m.Name)
			}
		}
		told = slices.ContainsFunc(members, func(m *leader.Member) bool { return m.Server.RaftID == "another" })
		if !told {
			<-changed
		}
	}
}
