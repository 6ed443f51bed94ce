package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"meibo/cluster/clustertest/logtest"

	"github.com/hashicorp/memberlist"
)

// TestConsul_IsNamedOnceWithWhatIsPossible: Serf's versions of the delegate, on both sides of a join, with the cluster's key
// and without any.
func TestConsul_IsNamedOnceWithWhatIsPossible(t *testing.T) {
	for name, key := range map[string][]byte{"with the same key": bytes.Repeat([]byte{1}, 32), "without a key": nil} {
		for version := uint8(4); version <= 5; version++ {
			t.Run(fmt.Sprintf("%s, version %d", name, version), func(t *testing.T) {
				consul := consulOnLoopback(t, version, key)
				var log logtest.Text
				keyring := func() *Keyring {
					if key == nil {
						return nil
					}
					return keyed(t, "", key[0])
				}
				host := onLoopback(t, 1, func(c *Config) {
					c.Keyring, c.Logger = keyring(), slog.New(slog.NewTextHandler(&log, nil))
					c.RetryJoin, c.RetryInterval = []string{consul.LocalNode().Address()}, 10*time.Millisecond
				})
				within(t, 10*time.Second, "it says who that is", func() bool { return strings.Contains(log.String(), "is a Consul server or agent") })

				_, err := host.Join(t.Context(), []string{consul.LocalNode().Address()})
				for _, want := range []string{consul.LocalNode().Address(), `"consul-1" is a Consul server or agent`, "forward block"} {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("join: got %v, want %s", err, want)
					}
				}
				for range 3 { // and the other way round
					if _, err := consul.Join([]string{host.self.At().String()}); err == nil {
						t.Error("Consul joined")
					}
				}
				if got := log.String(); strings.Count(got, "delegate protocol") != 1 || strings.Count(got, "nobody was reached") != 0 {
					t.Errorf("said:\n%s", got)
				}
				if m := host.Members().Members(); len(m) != 1 || consul.NumMembers() != 1 {
					t.Errorf("members %v, of Consul %d", m, consul.NumMembers())
				}
			})
		}
	}
}

func TestConsul_OthersThatAreNotReachedAreStillTold(t *testing.T) {
	consul := consulOnLoopback(t, 5, nil)
	nobody, err := net.Listen("tcp", "127.81.3.8:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	var log logtest.Text
	onLoopback(t, 1, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		c.RetryJoin, c.RetryInterval = []string{consul.LocalNode().Address(), nobody.Addr().String()}, 10*time.Millisecond
	})
	within(t, 10*time.Second, "the other is named", func() bool {
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "nobody was reached") {
				return strings.Contains(line, nobody.Addr().String()) && !strings.Contains(line, "Consul")
			}
		}
		return false
	})
}

// consulOnLoopback is memberlist as Serf sets it up for Consul.
func consulOnLoopback(t *testing.T, version uint8, key []byte) *memberlist.Memberlist {
	t.Helper()
	cfg := memberlist.DefaultLANConfig()
	cfg.Name, cfg.BindAddr, cfg.BindPort, cfg.SecretKey = "consul-1", "127.81.3.7", 0, key
	cfg.Delegate, cfg.LogOutput = serfDelegate{}, t.Output()
	cfg.DelegateProtocolMin, cfg.DelegateProtocolMax, cfg.DelegateProtocolVersion = 2, 5, version
	ml, err := memberlist.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ml.Shutdown() })
	return ml
}

// serfDelegate tells tags as Serf does: a type, then a map in MessagePack.
type serfDelegate struct{}

func (serfDelegate) NodeMeta(int) []byte             { return []byte("\xff\x82\xa4role\xa6consul\xa2dc\xa3dc1") }
func (serfDelegate) NotifyMsg([]byte)                {}
func (serfDelegate) GetBroadcasts(_, _ int) [][]byte { return nil }
func (serfDelegate) LocalState(bool) []byte          { return nil }
func (serfDelegate) MergeRemoteState([]byte, bool)   {}
