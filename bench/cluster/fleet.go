package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sort"
)

// maxInstances is how many instances a service can have: an answer is judged as a set of bits.
const maxInstances = 64

// hot is the service that every host uses.
const hot = 0

// fleet is who offers what and who uses what: the same in every process.
type fleet struct {
	Hosts, Services int
	Each            int // instances of a service
	Uses            int // services that a host uses
}

// node is which host an instance runs on. Hosts have as many instances as each other, and no service twice.
func (f fleet) node(service, instance int) int { return (service*f.Each + instance) % f.Hosts }

// instance is the one of a service that runs on a host.
func (f fleet) instance(service int, node int) (int, bool) {
	i := ((node-service*f.Each)%f.Hosts + f.Hosts) % f.Hosts
	return i, i < f.Each
}

// all is the set of all instances of a service.
func (f fleet) all() uint64 { return ^uint64(0) >> (maxInstances - f.Each) }

func nodeName(n int) string { return fmt.Sprintf("host-%05d", n) }

func nodeAddr(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

func serviceName(s int) string { return fmt.Sprintf("svc-%04d", s) }

// register is the registration of an instance, with a check that has a status, as the catalog's API takes it.
func (f fleet) register(service, instance int, status string) string {
	n, name := f.node(service, instance), serviceName(service)
	return fmt.Sprintf(`{"Node":%q,"Address":%q,"Service":{"Service":%q,"Port":%d,"Tags":["v1","prod"],"Meta":{"version":"1.2.3"}},`+
		`"Check":{"CheckID":"service:%s","Name":"Service '%s' check","ServiceID":%q,"Status":%q,"Output":"HTTP GET http://%s:80/health: 200 OK"}}`,
		nodeName(n), nodeAddr(n), name, 8000+service, name, name, name, status, nodeAddr(n))
}

// passing is the registration of the i-th instance of all.
func (f fleet) passing(i int) string { return f.register(i/f.Each, i%f.Each, "passing") }

// uses are the services that a host uses, the one it asks for most first: drawn by Zipf's law, so that hosts agree on
// what is in demand, and the hot one.
func (f fleet) uses(host int, z *zipf) []int {
	random := rand.New(rand.NewPCG(1, uint64(host)))
	taken := map[int]bool{hot: true}
	list := []int{hot}
	for len(list) < min(f.Uses, f.Services) {
		s := z.draw(random.Float64())
		for taken[s] { // the most wanted are had by all soon: the next one
			s = (s + 1) % f.Services
		}
		taken[s] = true
		list = append(list, s)
	}
	slices.Sort(list[1:]) // services are numbered by demand
	return list
}

// zipf draws ranks 0 to n-1, the k-th with a weight of 1/k.
type zipf struct{ upTo []float64 }

func newZipf(n int) *zipf {
	z := &zipf{make([]float64, n)}
	sum := 0.0
	for k := range n {
		sum += 1 / float64(k+1)
		z.upTo[k] = sum
	}
	for k := range n {
		z.upTo[k] /= sum
	}
	return z
}

// draw is the rank at a place in [0, 1).
func (z *zipf) draw(at float64) int { return min(sort.SearchFloat64s(z.upTo, at), len(z.upTo)-1) }
