package cluster

import (
	"errors"
	"testing"

	"meibo/cluster/catalog"
	"meibo/cluster/link"
)

func TestMayApply_AgentWritesItsOwnNodeAlone(t *testing.T) {
	own := link.Peer{ID: catalog.NewUUID(), Name: "agent"}
	other := link.Peer{ID: catalog.NewUUID(), Name: "s2"}
	node := func(p link.Peer) catalog.Node {
		return catalog.Node{ID: p.ID, Node: p.Name, Address: "192.0.2.1"}
	}
	agentless := node(own)
	agentless.Agentless = true
	history := catalog.NewUUID()
	for _, tt := range []struct {
		name string
		body catalog.Body
		may  bool
	}{
		{"own node", &catalog.Register{Node: node(own)}, true},
		{"own service", &catalog.Register{Node: node(own), Service: &catalog.Service{ID: "web", Service: "web"}}, true},
		{"own removal", &catalog.Deregister{Node: own.Name, ServiceID: "web"}, true},
		{"own sync", &catalog.MarkSynced{NodeID: own.ID, History: history}, true},
		{"another node", &catalog.Register{Node: node(other)}, false},
		{"own name, another ID", &catalog.Register{Node: catalog.Node{ID: other.ID, Node: own.Name, Address: "192.0.2.1"}}, false},
		{"own ID, another name", &catalog.Register{Node: catalog.Node{ID: own.ID, Node: other.Name, Address: "192.0.2.1"}}, false},
		{"no ID", &catalog.Register{Node: catalog.Node{Node: own.Name, Address: "192.0.2.1"}}, false},
		{"no agent", &catalog.Register{Node: agentless}, false},
		{"removal of another", &catalog.Deregister{Node: other.Name}, false},
		{"sync of another", &catalog.MarkSynced{NodeID: other.ID, History: history}, false},
		{"forget", &catalog.Forget{Node: own.Name}, false},
		{"history", &catalog.BeginHistory{ID: history, Base: 1}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := mayApply(own, tt.body); tt.may != (err == nil) || err != nil && !errors.Is(err, catalog.ErrNotAllowed) {
				t.Errorf("got %v, may: %v", err, tt.may)
			}
		})
	}
}
