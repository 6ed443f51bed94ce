package httpapi_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"meibo/cluster/httpapi"
)

func TestGuard_RefusesHostsThatAreNotThisOne(t *testing.T) {
	f := newFixture(t, func(c *httpapi.Config) {
		c.Names = []string{"n1.corp.example"}
		c.Domain, c.AltDomain = "consul.", "alt.example."
		c.AllowedHosts = []string{"consul.corp.example", "*.lb.example"}
	})
	tests := []struct {
		host string
		ok   bool
	}{
		{"127.0.0.1:8500", true}, {"127.0.0.1", true}, {"10.1.2.3:8500", true}, {"[::1]:8500", true}, {"[::1]", true},
		{"[fe80::1%25eth0]:8500", true},
		{"localhost:8500", true}, {"LOCALHOST", true}, {"localhost.", true}, {"api.localhost:8500", true},
		{"n1", true}, {"N1.corp.example:8500", true}, {"n1.node.consul:8500", true}, {"consul.service.consul", true},
		{"x.alt.example", true}, {"consul.corp.example", true}, {"a.lb.example", true}, {"", true},
		{"attacker.example", false}, {"attacker.example:8500", false}, {"consul", true}, {"consul:8500", true}, {"my_app-1:8500", true},
		{"xconsul.corp.example", false}, {"lb.example", false}, {"localhost.attacker.example", false},
		{"127.0.0.1.attacker.example", false}, {"n1.node.consul.attacker.example", false},
		{"localhost:8500@attacker.example", false}, {"0x7f000001", false}, {"2130706433", false}, {"017700000001", false}, {"a@b", false}, {"a/b", false}, {"ä", false}, {"127.1", false}, {" ", false},
		{"consul:8500:8500", false}, {"localhost\x00", false},
	}
	for _, tc := range tests {
		for _, path := range []string{"/v1/catalog/nodes", "/metrics", "/v1/agent/self", "/v1/nope"} {
			w := f.do(t, "GET", path, "", "Host", tc.host)
			if refused := w.Code == http.StatusForbidden; refused == tc.ok {
				t.Errorf("Host %q %s: %d %s", tc.host, path, w.Code, w.Body)
			}
		}
	}
	w := f.do(t, "GET", "/v1/agent/self", "", "Host", "attacker.example")
	if !strings.Contains(w.Body.String(), "http_config.allowed_hosts") {
		t.Errorf("the refusal does not say what to do: %s", w.Body)
	}
}

func TestGuard_RefusesPagesOfOtherSites(t *testing.T) {
	f := newFixture(t, func(c *httpapi.Config) { c.AllowedHosts = []string{"ui.example"} })
	tests := []struct {
		name   string
		header []string
		ok     bool
	}{
		{"no page", nil, true},
		{"same origin", []string{"Origin", "http://127.0.0.1:8500", "Sec-Fetch-Site", "same-origin"}, true},
		{"page on localhost", []string{"Origin", "http://localhost:3000", "Sec-Fetch-Site", "same-site"}, true},
		{"allowed page", []string{"Origin", "https://ui.example", "Sec-Fetch-Site", "cross-site"}, true},
		{"typed in", []string{"Sec-Fetch-Site", "none"}, true},
		{"foreign page", []string{"Origin", "https://attacker.example"}, false},
		{"page at an address", []string{"Origin", "http://203.0.113.9"}, false},
		{"page of a host on this network", []string{"Origin", "http://consul"}, true},
		{"page at a number", []string{"Origin", "http://3405803785"}, false},
		{"sandboxed page", []string{"Origin", "null"}, false},
		{"image of a foreign page", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, false},
		{"garbage", []string{"Origin", "://"}, false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			for _, method := range []string{"GET", "PUT", "POST", "DELETE", "OPTIONS"} {
				w := f.do(t, method, "/v1/agent/reload", "", tc.header...)
				if refused := w.Code == http.StatusForbidden; refused == tc.ok {
					t.Errorf("%s: %d %s", method, w.Code, w.Body)
				}
			}
		})
	}
}

func TestGuard_HoldsHTTPConfig(t *testing.T) {
	f := newFixture(t, func(c *httpapi.Config) {
		c.BlockEndpoints = []string{"/v1/agent/self", "/v1/health/"}
		c.AllowWriteFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		c.ResponseHeaders = map[string]string{"Access-Control-Allow-Origin": "*"}
	})
	// httptest's requests come from 192.0.2.1.
	for target, want := range map[string]int{
		"GET /v1/agent/self": 403, "GET /v1/health/service/web": 403, "GET /v1/catalog/nodes": 200, "PUT /v1/agent/reload": 403,
	} {
		method, path, _ := strings.Cut(target, " ")
		w := f.do(t, method, path, "")
		if w.Code != want {
			t.Errorf("%s: %d, want %d: %s", target, w.Code, want, w.Body)
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "*" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", target, w.Header())
		}
	}
	if _, err := httpapi.New(httpapi.Config{Agent: f.host, Backend: f.store, AllowedHosts: []string{"http://x"}}); err == nil {
		t.Error("a URL as allowed host was taken")
	}
}

func TestRoutes_MethodsAndPaths(t *testing.T) {
	f := newFixture(t)
	tests := []struct {
		method, path string
		code         int
		allow        string
	}{
		{"POST", "/v1/agent/service/register", 405, "PUT"},
		{"DELETE", "/v1/catalog/nodes", 405, "GET"},
		{"OPTIONS", "/v1/catalog/register", 200, "OPTIONS,PUT"},
		{"OPTIONS", "/v1/catalog/nodes", 200, "OPTIONS,GET"},
		{"HEAD", "/v1/catalog/nodes", 200, ""},
		{"GET", "/v1/agent/self/x", 404, ""},
		{"GET", "/v1", 404, ""},
		{"GET", "//v1/agent/self", 301, ""},
		{"PUT", "///v1/agent/reload", 308, ""},
		{"GET", "/v1//agent/self", 301, ""},
		{"PUT", "//v1///agent/reload", 308, ""},
		{"GET", "/", 200, ""},
		{"GET", "/v1/agent/service/a//b", 404, ""},
		{"GET", "/v1/agent/service/%2Fa", 404, ""},
		{"GET", "/v1/catalog/nodes?filter=%zz", 400, ""},
		{"GET", "/v1/catalog/nodes?filter=a;b", 400, ""},
		{"GET", "/v1/catalog/nodes?ns=default", 400, ""},
		{"GET", "/v1/catalog/nodes?partition=x", 400, ""},
		{"GET", "/v1/health/service/a%00b", 400, ""},
		{"GET", "/v1/health/service/a%0d%0ab", 400, ""},
		{"GET", "/v1/health/service/", 400, ""},
		{"GET", "/v1/session/list", 501, ""},
		{"PUT", "/v1/txn", 501, ""},
	}
	for _, tc := range tests {
		w := f.do(t, tc.method, tc.path, "")
		if w.Code != tc.code || w.Header().Get("Allow") != tc.allow {
			t.Errorf("%s %s: %d, Allow %q; want %d, %q", tc.method, tc.path, w.Code, w.Header().Get("Allow"), tc.code, tc.allow)
		}
	}
	if w := f.do(t, "GET", "//v1/agent/self?a=b%20c", ""); w.Header().Get("Location") != "/v1/agent/self?a=b%20c" {
		t.Errorf("sent to %s", w.Header().Get("Location"))
	}
	if w := f.do(t, "GET", "//evil.example/x", ""); w.Header().Get("Location") != "/evil.example/x" {
		t.Errorf("sent to %s", w.Header().Get("Location"))
	}
	if w := f.do(t, "HEAD", "/v1/catalog/nodes", ""); w.Body.Len() != 0 || w.Header().Get("X-Consul-Index") == "" {
		t.Errorf("HEAD: %d bytes, headers %v", w.Body.Len(), w.Header())
	}
}

func FuzzHost(f *testing.F) {
	for _, s := range []string{"127.0.0.1:8500", "[::1]:8500", "localhost", "n1.node.consul", "attacker.example", "a:b:c", "[", "]:1", ".consul", "consul..", "\xff"} {
		f.Add(s, "http://"+s)
	}
	fx := newFixture(f)
	f.Fuzz(func(t *testing.T, host, origin string) {
		w := fx.do(t, "GET", "/v1/status/leader", "", "Host", host, "Origin", origin)
		name := strings.ToLower(strings.TrimSuffix(host, "."))
		if strings.HasSuffix(name, ".example") && w.Code != http.StatusForbidden {
			t.Errorf("Host %q was let in", host)
		}
		if w.Code != http.StatusOK && w.Code != http.StatusForbidden {
			t.Errorf("Host %q Origin %q: %d", host, origin, w.Code)
		}
	})
}
