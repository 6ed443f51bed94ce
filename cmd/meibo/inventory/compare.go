package inventory

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// Node is a node of the catalog.
type Node struct {
	Name    string
	Address string   // of the catalog's: mostly an IP address
	Others  []string // addresses within its network beside this one
}

// Kind is in what the two differ.
type Kind string

// The differences there are, in the order in which they are told.
const (
	NotInCatalog   Kind = "not in the catalog"
	NotInInventory Kind = "not in the inventory"
	OtherAddress   Kind = "other address"
	OtherName      Kind = "other name" // and the same address
)

var order = []Kind{NotInCatalog, NotInInventory, OtherAddress, OtherName}

// Difference is about one host, as the inventory and as the catalog have it; the one that lacks it is empty.
type Difference struct {
	Kind        Kind
	Host        string
	Addresses   []netip.Addr
	Line        int // of the inventory
	Node        string
	NodeAddress string
}

// Result is what a comparison found.
type Result struct {
	Differences []Difference // by kind, then by name
	ByName      []string     // hosts whose address the inventory doesn't say
}

// Compare pairs the hosts with the nodes and tells what is left, and which pairs differ. A
// pair has the same name, letter case apart; or, where one of the two has no domain and only
// these two begin so, the same first label. What is left then and has the same address is one
// host of two names.
func Compare(hosts []Host, nodes []Node) Result {
	p := pairing{hosts: hosts, nodes: nodes, nodeOf: make([]int, len(hosts)), taken: make([]bool, len(nodes))}
	for i := range p.nodeOf {
		p.nodeOf[i] = -1
	}
	p.byName()
	p.byLabel()
	named := slices.Clone(p.nodeOf)
	p.byAddress()
	return p.result(named)
}

// pairing is which host is which node, so far.
type pairing struct {
	hosts  []Host
	nodes  []Node
	nodeOf []int // of each host; -1: none
	taken  []bool
}

func (p *pairing) pair(host, node int) { p.nodeOf[host], p.taken[node] = node, true }

func (p *pairing) byName() {
	at := map[string]int{}
	for i, n := range p.nodes {
		at[fold(n.Name)] = i
	}
	for i, h := range p.hosts {
		for _, name := range append([]string{h.Name}, h.Aliases...) {
			if node, ok := at[fold(name)]; ok && !p.taken[node] {
				p.pair(i, node)
				break
			}
		}
	}
}

// label is the first one of a name; that of an address is all of it.
func label(name string) string {
	if _, err := netip.ParseAddr(name); err == nil {
		return name
	}
	first, _, _ := strings.Cut(fold(name), ".")
	return first
}

func (p *pairing) byLabel() {
	hosts, nodes := map[string][]int{}, map[string][]int{}
	for i, h := range p.hosts {
		if p.nodeOf[i] < 0 {
			hosts[label(h.Name)] = append(hosts[label(h.Name)], i)
		}
	}
	for i, n := range p.nodes {
		if !p.taken[i] {
			nodes[label(n.Name)] = append(nodes[label(n.Name)], i)
		}
	}
	for first, h := range hosts {
		n := nodes[first]
		if len(h) == 1 && len(n) == 1 && (fold(p.hosts[h[0]].Name) == first || fold(p.nodes[n[0]].Name) == first) {
			p.pair(h[0], n[0])
		}
	}
}

func (p *pairing) byAddress() {
	at := map[netip.Addr]int{}
	for i, n := range p.nodes {
		if addr, err := netip.ParseAddr(n.Address); err == nil && !p.taken[i] {
			at[addr.Unmap()] = i
		}
	}
	for i, h := range p.hosts {
		for _, addr := range h.Addresses {
			if node, ok := at[addr]; ok && p.nodeOf[i] < 0 && !p.taken[node] {
				p.pair(i, node)
			}
		}
	}
}

// result tells the differences; named are the pairs that have one name.
func (p *pairing) result(named []int) Result {
	r := Result{Differences: []Difference{}, ByName: []string{}}
	for i, h := range p.hosts {
		d := Difference{Host: h.Name, Addresses: h.Addresses, Line: h.Line}
		if p.nodeOf[i] < 0 {
			d.Kind = NotInCatalog
			r.Differences = append(r.Differences, d)
			continue
		}
		n := p.nodes[p.nodeOf[i]]
		d.Node, d.NodeAddress = n.Name, n.Address
		switch _, err := netip.ParseAddr(h.Name); {
		case named[i] < 0 && err == nil: // it is called by its address, and is there
		case named[i] < 0:
			d.Kind = OtherName
			r.Differences = append(r.Differences, d)
		case len(h.Addresses) == 0:
			r.ByName = append(r.ByName, h.Name)
		case !h.isAt(n):
			d.Kind = OtherAddress
			r.Differences = append(r.Differences, d)
		}
	}
	for i, n := range p.nodes {
		if !p.taken[i] {
			r.Differences = append(r.Differences, Difference{Kind: NotInInventory, Node: n.Name, NodeAddress: n.Address})
		}
	}
	slices.SortStableFunc(r.Differences, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)), cmp.Compare(fold(cmp.Or(a.Host, a.Node)), fold(cmp.Or(b.Host, b.Node))))
	})
	return r
}

// isAt reports whether one of the node's addresses is the host's.
func (h Host) isAt(n Node) bool {
	for _, text := range append([]string{n.Address}, n.Others...) {
		if addr, err := netip.ParseAddr(text); err == nil && slices.Contains(h.Addresses, addr.Unmap()) {
			return true
		}
		if slices.ContainsFunc(h.Aliases, func(alias string) bool { return fold(alias) == fold(text) }) { // a node's address may be a name
			return true
		}
	}
	return false
}
