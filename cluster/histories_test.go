package cluster

import (
	"reflect"
	"testing"

	"meibo/cluster/membership"
)

// The histories that meet are those of servers that live.
func TestHistories_OfTheDeadDoNotMeetOthers(t *testing.T) {
	server := func(id, history string, status membership.Status) *Member {
		return &Member{Status: status, Node: membership.Node{ID: id, Tags: map[string]string{tagRole: roleServer, tagHistory: history}}}
	}
	agent := &Member{Status: membership.Alive, Node: membership.Node{ID: "a", Tags: map[string]string{tagRole: roleAgent, tagHistory: "z"}}}
	two := []*Member{server("1", "new", membership.Alive), server("2", "old", membership.Alive), agent}
	for _, tt := range []struct {
		name    string
		members []*Member
		answers map[string]bool
		want    []string
	}{
		{"two", two, nil, []string{"new", "old"}},
		{"two that answer", two, map[string]bool{"1": true, "2": true}, []string{"new", "old"}},
		{"one is dead, and gossip doubts it", two, map[string]bool{"1": true}, []string{"new"}},
		{"one has failed", []*Member{two[0], server("2", "old", membership.Failed)}, nil, []string{"new"}},
		{"one has not begun", []*Member{two[0], server("2", "", membership.Alive)}, nil, []string{"new"}},
	} {
		if got := historiesOf(tt.members, tt.answers); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
