package config

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func BenchmarkLoad_Full(b *testing.B) {
	src := Sources{Paths: []string{filepath.Join("testdata", "full", "full.hcl")}, Host: host}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Load(src); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad_Services10000(b *testing.B) {
	var text strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&text, "service { name = \"s%d\" port = %d tags = [\"a\"] check { tcp = \"127.0.0.1:%d\" interval = \"10s\" } }\n", i, i, i)
	}
	src := Sources{Paths: []string{write(b, "a.hcl", text.String())}, Host: host, Partial: true}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Load(src); err != nil {
			b.Fatal(err)
		}
	}
}
