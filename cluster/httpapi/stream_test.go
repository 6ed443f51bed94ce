package httpapi_test

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"meibo/cluster/httpapi"
)

// Lines come as they are written, and the stream ends with the client.
func TestStreams_FlushEachLineAndAreCounted(t *testing.T) {
	for _, tt := range []struct{ path, contentType, want string }{
		{"/v1/agent/monitor", "text/plain", "from INFO json=false"},
		{"/v1/agent/monitor?loglevel=TRACE", "text/plain", "from DEBUG-4 json=false"},
		{"/v1/agent/monitor?loglevel=err&logjson", "application/json", "from ERROR json=true"},
		{"/v1/agent/metrics/stream", "application/json", `{"Timestamp":`},
	} {
		t.Run(tt.path, func(t *testing.T) {
			srv := httptest.NewServer(newFixture(t, func(c *httpapi.Config) { c.MaxBlocking = 1 }).api)
			defer srv.Close() // returns once all has been answered
			get := func() *http.Response {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+tt.path, nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := srv.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				return resp
			}
			resp := get()
			defer resp.Body.Close()
			line, err := bufio.NewReader(resp.Body).ReadString('\n')
			if err != nil || resp.StatusCode != 200 || !strings.HasPrefix(line, tt.want) || !strings.HasPrefix(resp.Header.Get("Content-Type"), tt.contentType) {
				t.Errorf("got %d %q %q, %v", resp.StatusCode, resp.Header.Get("Content-Type"), line, err)
			}
			more := get()
			defer more.Body.Close()
			if more.StatusCode != http.StatusTooManyRequests {
				t.Errorf("one more than there may be: %d", more.StatusCode)
			}
		})
	}
}
