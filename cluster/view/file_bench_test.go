package view

import (
	"fmt"
	"path/filepath"
	"testing"

	"meibo/cluster/catalog"
)

// BenchmarkFileWrite writes the file of a server with 50,000 instances on 1,000 nodes.
func BenchmarkFileWrite(b *testing.B) {
	const services, nodes, instances = 2000, 1000, 50_000
	v := mustNew(b, Config{})
	records := make([]Record, nodes)
	for i := range records {
		records[i] = node(fmt.Sprintf("node-%04d", i), fmt.Sprintf("10.0.%d.%d", i/250, i%250), check("serfHealth", catalog.Passing, ""))
	}
	for i := range instances {
		name, id := fmt.Sprintf("service-%04d", i%services), fmt.Sprintf("service-%04d-%d", i%services, i/services)
		s := service(name, 8000, "v1", "primary")
		s.ID = id
		r := &records[(i/services*41+i%services)%nodes]
		r.Services = append(r.Services, s)
		r.Checks = append(r.Checks, check("service:"+id, catalog.Passing, id))
	}
	mustTake(b, v, confirmed(whole(5, records...)))
	f, err := NewFile(FileConfig{Path: filepath.Join(b.TempDir(), "view"), NodeID: hostID, Datacenter: "dc1"})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.save(v.Export(), true); err != nil {
			b.Fatal(err)
		}
	}
}
