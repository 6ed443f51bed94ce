package link

import (
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"
)

// BenchmarkIdle reports what an idle connection holds in memory, both ends of it
// in this process: bare TLS, and HTTP/2 with one request that waits.
func BenchmarkIdle(b *testing.B) {
	const conns = 300
	quiet := func(c *Config) {
		c.Logger, c.HandshakeRate = nil, 10_000
		c.ConnsPerMember = 2 * conns
	}
	b.Run("tls", func(b *testing.B) {
		for b.Loop() {
			srv, cli := start(b, "srv", nil, quiet), start(b, "cli", nil, quiet)
			l := srv.Listener("bench/1")
			before := heldBytes()
			held := make([]net.Conn, 0, 2*conns)
			for range conns {
				nc, err := cli.Dial(b.Context(), srv.addr(), "bench/1", "")
				if err != nil {
					b.Fatal(err)
				}
				in, err := l.Accept()
				if err != nil {
					b.Fatal(err)
				}
				if _, err := in.Write(make([]byte, 100)); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(nc, make([]byte, 100)); err != nil {
					b.Fatal(err)
				}
				held = append(held, nc, in)
			}
			time.Sleep(100 * time.Millisecond) // handshakes' goroutines end
			b.ReportMetric(float64(heldBytes()-before)/conns, "B/conn")
			for _, nc := range held {
				nc.Close()
			}
			srv.stop()
			cli.stop()
		}
	})
	b.Run("http2-waiting", func(b *testing.B) {
		for b.Loop() {
			srv := start(b, "srv", nil, quiet)
			asked := make(chan struct{}, conns)
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = srv.Serve(ctx, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					asked <- struct{}{}
					<-r.Context().Done()
				}))
			}()
			until(b, "h2 is served", func() bool { return srv.handler(HTTP) != nil })
			clients := make([]*host, 0, conns)
			for range conns {
				clients = append(clients, start(b, "cli", nil, quiet))
			}
			before := heldBytes()
			for _, c := range clients {
				go func() { _ = get(b, c, srv.addr()) }()
				<-asked
			}
			time.Sleep(100 * time.Millisecond)
			b.ReportMetric(float64(heldBytes()-before)/conns, "B/conn")
			cancel()
			<-done
			for _, c := range clients {
				c.stop()
			}
			srv.stop()
		}
	})
}

func heldBytes() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
