package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"meibo/resolver/resolvertest/consulcases"
)

// TestConsulsOwnDNSTests puts the rows of Consul's own DNS tests to the built binary over real sockets, what they register
// going in through the HTTP API. Rows that differ from Consul on purpose say why in the table.
func TestConsulsOwnDNSTests(t *testing.T) {
	inHost(t, func(t *testing.T) {
		// A row without a recursor must find none in this machine's resolv.conf either.
		must(t, os.WriteFile("/etc/resolv.conf", nil, 0o644))
		consulcases.Run(t, startForCases)
		differences := 0
		for _, c := range consulcases.All() {
			if c.Difference != "" {
				differences++
			}
		}
		t.Logf("%d rows, %d of them different from Consul on purpose", len(consulcases.All()), differences)
	})
}

// caseServer is the binary as the table drives it.
type caseServer struct{ *site }

func startForCases(t testing.TB, config string, upstream []string) consulcases.Server {
	tt := t.(*testing.T)
	s := &site{dir: t.TempDir(), dnsPort: freePort(tt), httpPort: freePort(tt)}
	s.dns, s.http = fmt.Sprintf("127.0.0.1:%d", s.dnsPort), fmt.Sprintf("127.0.0.1:%d", s.httpPort)
	base := map[string]any{
		"node_name": "server1", "datacenter": "dc1", "bind_addr": "127.0.0.1",
		"ports": map[string]int{"dns": s.dnsPort, "http": s.httpPort},
		"hosts": map[string]any{"files": []string{}},
	}
	if upstream != nil {
		base["recursors"] = []string{consulcases.ServeUpstream(t, upstream)}
	}
	text, err := json.Marshal(base)
	must(t, err)
	writeFile(t, s.dir, "conf/a.json", string(text))
	if config != "" {
		writeFile(t, s.dir, "conf/b.json", config)
	}
	s.start(tt)
	eventually(tt, "the catalog takes writes", func() error {
		code, body, err := s.call("GET", "/v1/health/service/consul?passing", "")
		if err == nil && (code != http.StatusOK || len(body) < 10) {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	})
	return caseServer{s}
}

func (s caseServer) Register(body string) error {
	code, out, err := s.call("PUT", "/v1/catalog/register", body)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%d %s", code, out)
	}
	return err
}

func (s caseServer) Exchange(network string, query []byte) ([]byte, error) {
	return consulcases.Dial(s.dns, network, query)
}

func (s caseServer) Patience() time.Duration { return 5 * time.Second }
