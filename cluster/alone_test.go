package cluster

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"meibo/cluster/gossip"
)

// TestRule29_AHostThatWasAloneBecomesAServer: what it began for itself is no part of the catalog that it begins with others,
// and does not keep it from beginning that. A catalog that somebody asked for is not touched.
func TestRule29_AHostThatWasAloneBecomesAServer(t *testing.T) {
	for name, tt := range map[string]struct {
		before []Config // its lives, one after the other
		aside  bool
	}{
		"alone":                    {[]Config{{}}, true},
		"alone, twice":             {[]Config{{}, {}}, true},
		"alone, then an agent":     {[]Config{{}, {Gossip: gossip.Config{RetryJoin: []string{"192.0.2.1"}}}}, true},
		"a server with a catalog":  {[]Config{{Server: true, BootstrapExpect: 1}}, false},
		"a server with bootstrap":  {[]Config{{Server: true, Bootstrap: true}}, false},
		"alone, then a server":     {[]Config{{}, {Server: true, BootstrapExpect: 1}}, false},
		"a server, then alone":     {[]Config{{Server: true, BootstrapExpect: 1}, {}}, false},
		"nothing":                  {[]Config{{Server: true, BootstrapExpect: 3}}, false},
		"an agent with no catalog": {[]Config{{Gossip: gossip.Config{RetryJoin: []string{"192.0.2.1"}}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			id, served := "", false
			for _, cfg := range tt.before {
				cfg.DataDir = dir
				n := run(t, cfg)
				served = served || cfg.Server
				if id = n.Record().ID; n.begins() {
					<-n.Ready()
					s, _, _ := n.running()
					if _, h := s.Read().History(nil); h.Provisional == served {
						t.Errorf("history %+v, a server: %v", h, served)
					}
				}
				n.end()
			}
			_, err := os.Stat(filepath.Join(dir, raftDir, "raft.db"))
			had := err == nil

			after := Config{DataDir: dir, Server: true, BootstrapExpect: 3, ServerPort: 1}
			after.Gossip.Bind = netip.MustParseAddrPort("127.0.0.1:0")
			after.InTheClear = true
			m := mustNew(t, after)
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // it doesn't wait for the others
			s, err := m.newServer(ctx)
			if err != nil {
				t.Fatal(err)
			}
			aside, _ := filepath.Glob(filepath.Join(dir, raftDir+".alone-*"))
			_, err = os.Stat(filepath.Join(dir, raftDir, "raft.db"))
			if tt.aside != (len(aside) == 1) || (had && !tt.aside) != (err == nil) {
				t.Errorf("put aside: %v; Raft's files: %v (before: %v)", aside, err, had)
			}
			if got := s.ID(); tt.aside && got != id {
				t.Errorf("server ID %q; want the node's, %s", got, id)
			}
		})
	}
}
