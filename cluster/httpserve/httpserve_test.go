package httpserve

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// A request under way at the end hears of it by its context and is still answered; one that
// goes on is cut.
func TestRun_EndsWithItsContext(t *testing.T) {
	for name, heeds := range map[string]bool{"answered": true, "cut": false} {
		t.Run(name, func(t *testing.T) {
			entered, release := make(chan struct{}), make(chan struct{})
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(entered)
				<-r.Context().Done()
				if !heeds {
					<-release
				}
				_, _ = io.WriteString(w, "answered")
			})}
			ctx, cancel := context.WithCancel(t.Context())
			l, drain := listen(t), time.Minute
			if !heeds {
				drain = 10 * time.Millisecond
			}
			ended := make(chan error, 1)
			go func() { ended <- Run(ctx, srv, drain, l, listen(t)) }()
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			answer := make(chan string, 1)
			go func() {
				res, err := client.Get("http://" + l.Addr().String())
				if err != nil {
					answer <- "cut"
					return
				}
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				answer <- string(body)
			}()
			<-entered
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			close(release)
			if got := <-answer; got != name {
				t.Errorf("request is %s, want %s", got, name)
			}
		})
	}
}

func TestRun_ReturnsWhyAListenerFailed(t *testing.T) {
	l := listen(t)
	l.Close()
	if err := Run(t.Context(), new(http.Server), time.Second, listen(t), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want that it is closed", err)
	}
}
