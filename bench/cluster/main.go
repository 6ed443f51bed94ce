package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// options are the command's flags.
type options struct {
	Hosts, Services, Instances, Uses, Lookups int
	Changes                                   float64
	Duration, Window, Start, Latency          time.Duration
	Loss, Unknown, Forwarded                  float64
	Processes, Memory                         int
	OneServer, Image                          bool
	Last                                      string

	bin, json, folder string
	profile           string
	write, judge      bool
}

func main() {
	if os.Getenv(playEnv) != "" {
		exit(play())
	}
	var o options
	flag.IntVar(&o.Hosts, "hosts", 1000, "hosts that are played")
	flag.IntVar(&o.Services, "services", 2000, "services in the catalog")
	flag.IntVar(&o.Instances, "instances", 50_000, "instances of all services together, at most 64 of each")
	flag.IntVar(&o.Uses, "uses", 200, "services that a host uses")
	flag.IntVar(&o.Lookups, "lookups", 100, "lookups a second on each host")
	flag.Float64Var(&o.Changes, "changes", 10, "changes a second in all, spread evenly over the instances")
	flag.DurationVar(&o.Duration, "duration", time.Minute, "how long changes are measured")
	flag.DurationVar(&o.Window, "window", 10*time.Second, "how long each of the other phases is measured that doesn't end by itself")
	flag.DurationVar(&o.Start, "start", 30*time.Second, "within which the whole fleet starts")
	flag.DurationVar(&o.Latency, "latency", 0, "delay between hosts and servers, one way (simulated)")
	flag.Float64Var(&o.Loss, "loss", 0, "share of what goes between hosts and servers that must be sent again (simulated)")
	flag.Float64Var(&o.Unknown, "unknown", 0.02, "share of lookups for names that nobody has")
	flag.Float64Var(&o.Forwarded, "forwarded", 0.2, "share of lookups for names outside of the catalog")
	flag.IntVar(&o.Processes, "processes", 1, "processes that play hosts: more of them wait for each other's processors")
	flag.IntVar(&o.Memory, "memory", 18, "GiB that those processes are to do with")
	flag.BoolVar(&o.OneServer, "one-server", false, "all hosts have their stream with the leader")
	flag.BoolVar(&o.Image, "image", false, "hosts begin with a file, as if made of an image of a running one: of many, the first start takes this machine a third of the time")
	flag.StringVar(&o.Last, "last", "", "the last phase that is wanted, by the name that it prints; \"\" for all")
	flag.StringVar(&o.bin, "bin", os.Getenv("MEIBO_BIN"), "meibo's binary ($MEIBO_BIN)")
	flag.StringVar(&o.json, "json", "", "file for the figures")
	flag.BoolVar(&o.write, "write", false, "write the report into the folder's RESULTS.md, with plots and figures beside it")
	flag.StringVar(&o.folder, "folder", "bench", "where that is")
	flag.StringVar(&o.profile, "profile", "", "folder for profiles of all processes, made while the catalog is filled, while the fleet starts, at rest and during changes (such a run is slower)")
	flag.BoolVar(&o.judge, "judge", false, "exit with 1 if a bar is missed")
	flag.Parse()
	if err := o.check(); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(2)
	}
	exit(run(o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (o options) fleet() fleet {
	return fleet{Hosts: o.Hosts, Services: o.Services, Each: o.Instances / max(1, o.Services), Uses: min(o.Uses, o.Services)}
}

func phaseNames() (names []string) {
	for _, p := range new(measurement).phases() {
		names = append(names, p.name)
	}
	return names
}

func (o options) check() error {
	f := o.fleet()
	switch {
	case flag.NArg() > 0:
		return fmt.Errorf("unknown argument %q: -help lists the flags", flag.Arg(0))
	case o.Hosts < 1, o.Hosts > 50_000:
		return fmt.Errorf("-hosts %d: want 1 to 50000", o.Hosts)
	case o.Services < 1, o.Services > 9999:
		return fmt.Errorf("-services %d: want 1 to 9999", o.Services)
	case f.Each < 2, f.Each > maxInstances, f.Each > o.Hosts:
		return fmt.Errorf("-instances %d: want 2 to %d for each of %d services, and no more than hosts", o.Instances, maxInstances, o.Services)
	case o.Uses < 1, o.Lookups < 1, !(o.Changes > 0), o.Start < 0, o.Duration < time.Second, o.Window < time.Second, o.Processes < 1, o.Memory < 1, o.Latency < 0:
		return fmt.Errorf("-uses, -lookups, -changes, -processes and -memory must be above zero, -latency and -start not below, -duration and -window at least 1s")
	case !(o.Unknown >= 0), !(o.Forwarded >= 0), !(o.Unknown+o.Forwarded <= 1), !(o.Loss >= 0 && o.Loss < 1): // NaN is none either
		return fmt.Errorf("-unknown, -forwarded and -loss are shares, 0 to 1")
	case o.Last != "" && !slices.Contains(phaseNames(), o.Last):
		return fmt.Errorf("-last %q: want one of %q", o.Last, phaseNames())
	case o.bin == "":
		return fmt.Errorf("where is meibo's binary? -bin FILE, or make bench-cluster")
	}
	return nil
}

// run measures and reports.
func run(o options) error {
	dir, err := os.MkdirTemp("", "meibo-cluster")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m := &measurement{o: o, f: o.fleet(), dir: dir, began: time.Now()}
	if err := m.run(); err != nil {
		if m.servers != nil {
			fmt.Fprint(os.Stderr, m.servers.Logs())
		}
		return err
	}
	r := &m.result
	r.Void = r.Lag > maxLag
	fmt.Println(r.table())
	if o.json != "" {
		if err := r.save(o.json); err != nil {
			return err
		}
	}
	if o.write {
		if err := r.save(filepath.Join(o.folder, fmt.Sprintf("cluster-%d.json", o.Hosts))); err != nil {
			return err
		}
		if err := writeReport(o.folder); err != nil {
			return err
		}
	}
	return r.verdict(o.judge)
}
