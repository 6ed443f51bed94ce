package state_test

import (
	"fmt"
	"testing"

	"meibo/cluster/catalog"
)

// BenchmarkApply registers a service with its checks again and again, each time
// changed, in a catalog of 5,000 nodes. What of it is decoding the command stands
// beside it: a leader decodes the commands of other hosts twice, to see who may
// write what, and from the log.
func BenchmarkApply(b *testing.B) {
	l := newLog(b)
	l.must(&catalog.BeginHistory{ID: history1, Base: 1000})
	id := func(i int) string { return fmt.Sprintf("aaaaaaaa-0000-4000-8000-%012d", i) }
	for i := range 5000 {
		l.must(&catalog.Register{
			Node:    node(fmt.Sprint("n", i), id(i)),
			Service: &catalog.Service{ID: "web", Service: "web", Port: 80},
		})
	}
	commands := make([][]byte, 2000)
	for i := range commands {
		n := node(fmt.Sprint("n", i%1000), id(i%1000))
		status := []string{catalog.Passing, catalog.Critical}[i/1000]
		body := &catalog.Register{
			Node:    n,
			Service: &catalog.Service{ID: "web", Service: "web", Port: 80, Tags: []string{"v1", "canary"}, Meta: map[string]string{"version": "1.2.3"}},
			Checks: []*catalog.Check{
				{CheckID: "c1", Name: "HTTP", Status: status, ServiceID: "web", Output: "HTTP GET http://192.0.2.1/health: 200 OK"},
				{CheckID: "c2", Name: "disk", Status: status, Output: "42 % full"},
			},
		}
		var err error
		if commands[i], err = (catalog.Command{Time: epoch, Body: body}).Encode(); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := catalog.Decode(commands[i%len(commands)]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			l.index++
			if reply := l.store.Apply(l.index, commands[i%len(commands)]); reply != nil {
				b.Fatal(reply)
			}
		}
	})
}
