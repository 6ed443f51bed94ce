package consensus

import (
	"log/slog"
	"strings"
	"testing"

	"meibo/cluster/clustertest/logtest"
)

// What Raft says of each try, of servers without a vote and of the end of a term in
// order is no warning; what it says otherwise is, once a minute.
func TestLogger_WarnsOfWhatIsNotAsItShouldBe(t *testing.T) {
	for msg, want := range map[string]int{
		"peer has newer term, stopping replication":                                                                      0,
		"not part of stable configuration, aborting election":                                                            0,
		"rejecting vote request since node is not in configuration":                                                      0,
		"heartbeat timeout reached, not part of a stable configuration or a non-voter, not triggering a leader election": 0,
		"failed to heartbeat to":  0,
		"failed to take snapshot": 1,
	} {
		said := new(logtest.Text)
		l := newLogger(slog.New(slog.NewTextHandler(said, nil)), func() bool { return false })
		l.Error(msg)
		l.Error(msg)
		if got := strings.Count(said.String(), "\n"); got != want {
			t.Errorf("%s: %d lines, want %d", msg, got, want)
		}
	}
}

func TestStart_OfAClusterOfOneWarnsOfNothing(t *testing.T) {
	for name, dir := range map[string]string{"memory": "", "new": t.TempDir(), "old": filled(t, 3, 0)} {
		said := new(logtest.Text)
		p := run(t, dir, func(c *Config, _ *Replica) { c.Logger = slog.New(slog.NewTextHandler(said, nil)) })
		p.awaitLeader()
		if text := said.String(); strings.Contains(text, "WARN") || strings.Contains(text, "ERROR") {
			t.Errorf("%s: the log says\n%s", name, text)
		}
	}
}
