package main

import (
	"fmt"
	"math"
	"strings"

	"gonum.org/v1/gonum/mat"
)

// model is what servers take, as a function of the fleet: each a line through what was measured at several sizes.
type model struct {
	sizes []int // that it was fitted to
	check int   // that it was not
	terms []term
}

// term is one figure: a + b·x.
type term struct {
	what, unit string
	x          func(r *result) float64
	y          func(r *result) float64
	a, b       float64
	off        float64 // share by which it is off at the size that it was not fitted to
}

func terms() []term {
	hosts := func(r *result) float64 { return float64(r.Hosts) }
	users := func(r *result) float64 { return r.Users }
	return []term{
		{what: "CPU of the three servers, nothing changes", unit: "cores", x: hosts, y: func(r *result) float64 { return r.IdleCores }},
		{what: "CPU of a change, all servers", unit: "s", x: users, y: func(r *result) float64 { return max(0, r.Cores-r.RestCores) / r.Rate }},
		{what: "resident memory of a server", unit: "MiB", x: hosts, y: func(r *result) float64 { return r.ServersMB / 3 }},
		{what: "sent by all servers, nothing changes", unit: "B/s", x: hosts, y: func(r *result) float64 { return r.RestBytes }},
		{what: "sent for a change", unit: "B", x: users, y: func(r *result) float64 { return max(0, r.Bytes-r.RestBytes) / r.Rate }},
		{what: "users of a service that changes", unit: "hosts", x: hosts, y: users},
		{what: "all servers killed, to the last host confirmed", unit: "s", x: hosts, y: func(r *result) float64 { return r.AllKilled.Seconds }},
	}
}

// fit fits all sizes but the largest, and says how far off the model is there. It wants three sizes.
func fit(list []result) (*model, error) {
	if len(list) < 3 {
		return nil, fmt.Errorf("a model wants three sizes, two to fit and one to check; there are %d", len(list))
	}
	last := &list[len(list)-1]
	m := &model{check: last.Hosts, terms: terms()}
	for i := range list[:len(list)-1] {
		m.sizes = append(m.sizes, list[i].Hosts)
	}
	for i := range m.terms {
		t := &m.terms[i]
		a, b := mat.NewDense(len(m.sizes), 2, nil), mat.NewVecDense(len(m.sizes), nil)
		for k := range m.sizes {
			// Weighted by the reciprocal: a share of each figure counts, not its size.
			y := t.y(&list[k])
			w := 1 / max(y, 1e-9)
			a.Set(k, 0, w)
			a.Set(k, 1, w*t.x(&list[k]))
			b.SetVec(k, w*y)
		}
		var line mat.VecDense
		if err := line.SolveVec(a, b); err != nil {
			return nil, fmt.Errorf("fit %s: %w", t.what, err)
		}
		t.a, t.b = line.AtVec(0), line.AtVec(1)
		t.off = t.at(t.x(last))/t.y(last) - 1
	}
	return m, nil
}

func (t *term) at(x float64) float64 { return max(0, t.a+t.b*x) }

// beyond are the fleets that no machine at hand can play.
var beyond = []int{10_000, 50_000, 200_000}

// Limits of a server, as they stand in its defaults: streams (feed), handshakes a second (link).
const (
	mostStreams    = 10_000
	mostHandshakes = 100
)

// String tells the model, what it says of larger fleets, and which limit they meet first.
func (m *model) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Computed: lines fitted to %s hosts, and how far off they are at %d, which they were not fitted to.\n\n", join(m.sizes), m.check)
	b.WriteString("| figure | fixed | for each host, or user | off |\n|---|---|---|---|\n")
	for _, t := range m.terms {
		fmt.Fprintf(&b, "| %s | %.3g %s | %.3g %s | %+.0f %% |\n", t.what, t.a, t.unit, t.b, t.unit, 100*t.off)
	}
	b.WriteString("\n| hosts, 10 changes a second | CPU of three servers | memory of each | sent | streams of each | all back after all servers died, by handshakes alone | first limit |\n|---|---|---|---|---|---|---|\n")
	for _, n := range beyond {
		h := float64(n)
		users := m.terms[5].at(h)
		cores := m.terms[0].at(h) + 10*m.terms[1].at(users)
		sent := m.terms[3].at(h) + 10*m.terms[4].at(users)
		fmt.Fprintf(&b, "| %d | %.2f cores | %.1f GiB | %.1f MiB/s | %d | %.0f s | %s |\n", n, cores, m.terms[2].at(h)/1024, sent/(1<<20), n/3,
			h/3/mostHandshakes, limit(n, cores))
	}
	return b.String()
}

// limit says what a fleet of this size meets first, and what is to be done.
func limit(hosts int, cores float64) string {
	need := int(math.Ceil(float64(hosts) / mostStreams))
	switch {
	case need > 5:
		return fmt.Sprintf("streams: %d a server; %d servers would be wanted, more than Raft should have: relays, or segments of the fleet", mostStreams, need)
	case need > 3, hosts/2 > mostStreams:
		return fmt.Sprintf("streams: %d a server, with one of three gone %d on each: five servers, or read replicas", mostStreams, hosts/2)
	case cores > 1.5:
		return "CPU: half a core of each server: read replicas"
	}
	return "none"
}

func join(sizes []int) string {
	words := make([]string, len(sizes))
	for i, n := range sizes {
		words[i] = fmt.Sprint(n)
	}
	return strings.Join(words, ", ")
}
