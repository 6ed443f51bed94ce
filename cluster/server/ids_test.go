package server

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"meibo/cluster/catalog"
)

// A server goes by its node's ID as long as nobody can have had a vote of it under that
// ID with files that are gone.
func TestIDs(t *testing.T) {
	node, kept := catalog.NewUUID(), catalog.NewUUID()
	for name, tt := range map[string]struct {
		ids  IDs
		file string // of the ID
		raft bool   // Raft has files
		want string // "": a new one
	}{
		"begins":                         {ids: IDs{Fresh: true}, want: node},
		"had files, which are gone":      {},
		"has files":                      {raft: true, want: node},
		"has files under another ID":     {file: kept, raft: true, want: kept},
		"lost those under another ID":    {file: kept},
		"is no server to others":         {ids: IDs{Fixed: true}, file: kept, want: node},
		"begins in a folder of before":   {ids: IDs{Fresh: true}, file: kept},
		"is new in a folder with a raft": {ids: IDs{Fresh: true}, raft: true, want: node},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.file != "" {
				if err := writeID(filepath.Join(dir, serverIDFile), tt.file); err != nil {
					t.Fatal(err)
				}
			}
			if tt.raft {
				if err := os.WriteFile(filepath.Join(dir, raftFile), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			tt.ids.NodeID, tt.ids.Logger = node, slog.New(slog.DiscardHandler)
			id, err := tt.ids.current(dir)
			if err != nil || tt.want != "" && id != tt.want || tt.want == "" && (id == node || id == kept || !catalog.IsUUID(id)) {
				t.Fatalf("got %s, %v, want %q (node %s, kept %s)", id, err, tt.want, node, kept)
			}
			if again, err := tt.ids.current(dir); err != nil || again != id {
				t.Errorf("asked again: %s, %v, was %s", again, err, id)
			}
			if err := tt.ids.Retire(dir); err != nil {
				t.Fatal(err)
			}
			if next, err := tt.ids.current(dir); !tt.ids.Fixed && !tt.raft && (err != nil || next == id) {
				t.Errorf("retired, and still %s, %v", next, err)
			}
		})
	}
}

func TestIDs_InMemory(t *testing.T) {
	ids := IDs{NodeID: catalog.NewUUID(), Logger: slog.New(slog.DiscardHandler)}
	if id, err := ids.current(""); err != nil || id != ids.NodeID {
		t.Errorf("got %s, %v", id, err)
	}
	if err := ids.Retire(""); err != nil {
		t.Fatal(err)
	}
	if id, err := ids.current(""); err != nil || id == ids.NodeID {
		t.Errorf("retired: got %s, %v", id, err)
	}
}
