package feed_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"meibo/cluster/catalog"
	"meibo/cluster/feed"
)

// hosts opens n streams over loopback TCP that all subscribe to web, and counts
// the updates with something in them.
func hosts(b *testing.B, srv *server, n int) *atomic.Int64 {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { srv.Serve(ctx, conn, fmt.Sprint(i)) })
		}
	})
	told, known := new(atomic.Int64), new(atomic.Int64)
	for i := range n {
		c := feed.NewClient(feed.ClientConfig{
			Dial: func(ctx context.Context, addr string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", addr)
			},
			Servers: func() []string { return []string{ln.Addr().String()} },
			NodeID:  fmt.Sprint(i),
		})
		s, err := c.Open(ctx)
		if err != nil {
			b.Fatal(err)
		}
		s.Subscribe("web")
		wg.Go(func() {
			defer s.Close()
			for {
				u, err := s.Next(ctx)
				if err != nil {
					return
				}
				if len(u.Complete) > 0 {
					known.Add(1)
				} else if len(u.Parts) > 0 {
					told.Add(1)
				}
			}
		})
	}
	b.Cleanup(func() {
		cancel()
		ln.Close()
		wg.Wait()
	})
	for known.Load() < int64(n) {
		time.Sleep(time.Millisecond)
	}
	return told
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPushedChange pushes changes of one check to hosts that subscribe to
// its service; CPU is that of both ends.
func BenchmarkPushedChange(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n, " streams"), func(b *testing.B) {
			c := newCatalogue(b)
			c.begin(historyA, 1000)
			c.do(register("n1", "web", "w1", catalog.Passing))
			net := newNetwork(b)
			srv := net.start("s1", c.store, subscriptions)
			told := hosts(b, srv, n)
			began := cpu()
			pushed := int64(0)
			for b.Loop() {
				c.do(register("n1", "web", "w1", []string{catalog.Critical, catalog.Passing}[pushed%2]))
				pushed++
				for told.Load() < pushed*int64(n) {
					time.Sleep(50 * time.Microsecond)
				}
			}
			b.ReportMetric(float64((cpu()-began).Microseconds())/float64(pushed*int64(n)), "cpu-µs/host")
		})
	}
}

// BenchmarkIdleStream reports the memory of a server's stream that nothing
// happens on, half of what both ends hold of a connection without TLS included.
func BenchmarkIdleStream(b *testing.B) {
	const n = 1000
	for b.Loop() {
		c := newCatalogue(b)
		c.begin(historyA, 1000)
		c.do(register("n1", "web", "w1", catalog.Passing))
		srv := newNetwork(b).start("s1", c.store, subscriptions)
		held := func() uint64 {
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapInuse + m.StackInuse
		}
		before := held()
		hosts(b, srv, n)
		time.Sleep(1500 * time.Millisecond)
		b.ReportMetric(float64(held()-before)/n, "B/stream-both-ends")
	}
}

// BenchmarkFollow registers an instance on a node that has 500 others.
func BenchmarkFollow(b *testing.B) {
	c := newCatalogue(b)
	c.begin(historyA, 1000)
	for i := range 500 {
		c.do(register("n1", fmt.Sprintf("svc%03d", i), "s"+fmt.Sprint(i), catalog.Passing))
	}
	l := newNetwork(b).start("s1", c.store, nil).Local(nil)
	defer l.Close()
	told := func(index uint64) {
		for u := (catalog.Update{}); u.Index < index; {
			var err error
			if u, err = l.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	told(1000 + c.index)
	began, n := cpu(), 0
	for b.Loop() {
		c.do(register("n1", "svc000", "s0", []string{catalog.Critical, catalog.Passing}[n%2]))
		told(1000 + c.index)
		n++
	}
	b.ReportMetric(float64((cpu()-began).Microseconds())/float64(n), "cpu-µs/change")
}

// BenchmarkReset tells one host everything of a catalog of 5,000 nodes.
func BenchmarkReset(b *testing.B) {
	c := newCatalogue(b)
	c.begin(historyA, 1000)
	for i := range 5000 {
		c.do(register(fmt.Sprintf("n%04d", i), fmt.Sprintf("svc%03d", i%500), "s1", catalog.Passing))
	}
	srv := newNetwork(b).start("s1", c.store, nil)
	b.ReportAllocs()
	for b.Loop() {
		l := srv.Local(nil)
		for u := (catalog.Update{}); !u.Reset; {
			var err error
			if u, err = l.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		l.Close()
	}
}
