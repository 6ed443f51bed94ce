package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"meibo/bench/report"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// writeReport writes the section of RESULTS.md and the plots, from the results of all sizes that are in the folder.
func writeReport(folder string) error {
	list, err := loadResults(folder)
	if err != nil || len(list) == 0 {
		return err
	}
	slices.SortFunc(list, func(a, b result) int { return a.Hosts - b.Hosts })
	last := &list[len(list)-1]
	most := slices.MaxFunc(list, func(a, b result) int { return cmp.Compare(a.Hosts*a.Options.Lookups, b.Hosts*b.Options.Lookups) })
	var b strings.Builder
	fmt.Fprintf(&b, "%s. Everything runs on this one machine, servers included. Real: servers, disks, TLS, and each host's link, view, cache, resolver and zone. "+
		"Simulated: the upstream of forwarded names, caches that know TTLs alone. Computed: what is said to be. Hosts of a process share the records of the catalog, and keep what they knew over a restart in memory: what a host takes in memory is a process's.\n\n", last.Machine)
	head, rule := []string{"figure"}, "|---|"
	for _, r := range list {
		text := fmt.Sprintf("%d hosts", r.Hosts)
		if r.Void {
			text += " (void)"
		}
		head, rule = append(head, text), rule+"---|"
	}
	fmt.Fprintf(&b, "| %s |\n%s\n", strings.Join(head, " | "), rule)
	for i, row := range last.rows() {
		cells := []string{row[0]}
		for k := range list {
			cells = append(cells, list[k].rows()[i][1])
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	b.WriteString("\n| bar | want at most |" + strings.Join(head[1:], " | ") + " |\n|---|" + rule + "\n")
	for i, bar := range last.bars() {
		cells := []string{bar.what, fmt.Sprintf(bar.format, bar.most)}
		for k := range list {
			one := list[k].bars()[i]
			text := fmt.Sprintf(one.format, one.value)
			if one.value > one.most {
				text += " **missed**"
			}
			cells = append(cells, text)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	b.WriteString("\n![load against staleness](load-staleness.svg)\n\n![CPU of the servers by hosts](growth.svg)\n")
	m, err := fit(list)
	if err == nil {
		b.WriteString("\n" + m.String())
	}
	return errors.Join(
		report.Section(filepath.Join(folder, "RESULTS.md"), "make bench-cluster", b.String()),
		plotStaleness(&most, filepath.Join(folder, "load-staleness.svg")),
		plotGrowth(list, m, filepath.Join(folder, "growth.svg")),
	)
}

// plotStaleness shows what each way costs the servers, against how late it tells of a change.
func plotStaleness(r *result, file string) error {
	p := plot.New()
	p.Title.Text = fmt.Sprintf("%d hosts, %d lookups/s each, %.0f changes/s in all", r.Hosts, r.Options.Lookups, r.Options.Changes)
	p.X.Label.Text = "until a host answers with a change, p99 (s)"
	p.Y.Label.Text = "CPU of the servers (cores)"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = decades{}, decades{}
	var caches plotter.XYs
	var names []string
	for _, c := range r.TTLs {
		late := max(c.P99, 0.001) // with TTL 0 the next lookup has it: the scale has no zero
		caches = append(caches, plotter.XY{X: late, Y: max(c.Cores, 0.001)})
		names = append(names, fmt.Sprintf(" TTL %d", c.TTL))
	}
	ours := plotter.XYs{{X: max(r.ChangeP99/1000, 0.001), Y: max(r.Cores, 0.001)}}
	if err := plotutil.AddLinePoints(p, "TTL cache (computed)", caches); err != nil {
		return err
	}
	if err := plotutil.AddScatters(p, "meibo (measured)", ours); err != nil {
		return err
	}
	labels, err := plotter.NewLabels(plotter.XYLabels{XYs: append(caches, ours...), Labels: append(names, " meibo")})
	if err != nil {
		return err
	}
	p.Add(labels, plotter.NewGrid())
	p.Legend.Top, p.Legend.XOffs, p.Legend.YOffs = true, -vg.Centimeter, -vg.Centimeter
	p.X.Min, p.X.Max = 0.0005, 200
	p.Y.Min, p.Y.Max = floorDecade(p.Y.Min), 10*floorDecade(p.Y.Max)
	return p.Save(18*vg.Centimeter, 12*vg.Centimeter, file)
}

// decades has the powers of ten for ticks.
type decades struct{}

// Ticks implements plot.Ticker.
func (decades) Ticks(low, high float64) (ticks []plot.Tick) {
	for v := floorDecade(low); v <= high*1.001; v *= 10 {
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%g", v)})
	}
	return ticks
}

func floorDecade(v float64) float64 { return math.Pow(10, math.Floor(math.Log10(v))) }

// plotGrowth shows the servers' CPU by the number of hosts: idle, with lookups, with changes, and the model if there is one.
func plotGrowth(list []result, m *model, file string) error {
	p := plot.New()
	p.Title.Text = "CPU of the three servers together"
	p.X.Label.Text, p.Y.Label.Text = "hosts", "cores"
	var idle, rest, busy, line plotter.XYs
	for i := range list {
		r := &list[i]
		x := float64(r.Hosts)
		idle = append(idle, plotter.XY{X: x, Y: r.IdleCores})
		rest = append(rest, plotter.XY{X: x, Y: r.RestCores})
		busy = append(busy, plotter.XY{X: x, Y: r.Cores})
		if m != nil {
			line = append(line, plotter.XY{X: x, Y: m.terms[0].at(x)})
		}
	}
	err := plotutil.AddLinePoints(p, "nothing happens", idle, "lookups", rest,
		fmt.Sprintf("lookups and %.0f changes/s", list[0].Options.Changes), busy)
	if m != nil {
		err = errors.Join(err, plotutil.AddLines(p, "the model, nothing happens", line))
	}
	p.Add(plotter.NewGrid())
	p.Legend.Top, p.Legend.Left = true, true
	p.X.Min, p.Y.Min = 0, 0
	p.X.Max *= 1.05
	p.Y.Max *= 1.35 // room for the legend
	return errors.Join(err, p.Save(18*vg.Centimeter, 12*vg.Centimeter, file))
}
