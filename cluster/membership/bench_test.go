package membership

import (
	"testing"
	"time"
)

// What a change costs among 5,000 members, and what it costs to meet them one by one.
func BenchmarkPublish(b *testing.B) {
	now := time.Unix(1e9, 0)
	var book book
	meet := func() *Machine {
		m := New(now, standard)
		for i := range 5000 {
			m.Alive(now, book.node(i))
			m.Publish()
		}
		return m
	}
	b.Run("a change", func(b *testing.B) {
		m := meet()
		b.ReportAllocs()
		for b.Loop() {
			m.touch(m.byName["n2500"])
			m.Publish()
		}
	})
	b.Run("5,000 arrivals", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			meet()
		}
	})
}
