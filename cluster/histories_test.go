package cluster

import (
	"reflect"
	"testing"

	"meibo/cluster/gossip"
)

// The histories that meet are those of servers that live.
func TestHistories_OfTheDeadDoNotMeetOthers(t *testing.T) {
	server := func(id, history string, status gossip.Status) Member {
		return Member{ID: id, Status: status, Tags: map[string]string{tagRole: roleServer, tagHistory: history}}
	}
	agent := Member{ID: "a", Status: gossip.Alive, Tags: map[string]string{tagRole: roleAgent, tagHistory: "z"}}
	two := []Member{server("1", "new", gossip.Alive), server("2", "old", gossip.Alive), agent}
	for _, tt := range []struct {
		name    string
		members []Member
		answers map[string]bool
		want    []string
	}{
		{"two", two, nil, []string{"new", "old"}},
		{"two that answer", two, map[string]bool{"1": true, "2": true}, []string{"new", "old"}},
		{"one is dead, and gossip doubts it", two, map[string]bool{"1": true}, []string{"new"}},
		{"one has failed", []Member{two[0], server("2", "old", gossip.Failed)}, nil, []string{"new"}},
		{"one has not begun", []Member{two[0], server("2", "", gossip.Alive)}, nil, []string{"new"}},
	} {
		if got := historiesOf(tt.members, tt.answers); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
