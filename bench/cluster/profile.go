package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"time"
)

// Profile says where to write profiles, and for how long processor time is measured.
type Profile struct {
	File string // without its suffix
	Time time.Duration
}

// Profile writes what the process holds in memory and where its processor time goes.
func (p *Player) Profile(a Profile, _ *None) error {
	a.File = fmt.Sprintf("%s-%d", a.File, p.cfg.First)
	heap, err := os.Create(a.File + ".heap")
	if err != nil {
		return err
	}
	runtime.GC()
	err = errors.Join(pprof.WriteHeapProfile(heap), heap.Close())
	cpu, e := os.Create(a.File + ".cpu")
	if e != nil {
		return errors.Join(err, e)
	}
	err = errors.Join(err, pprof.StartCPUProfile(cpu))
	time.Sleep(a.Time)
	pprof.StopCPUProfile()
	return errors.Join(err, cpu.Close())
}

// debug is what the configuration of a process has more if it is to be profiled.
func (m *measurement) debug() string {
	if m.o.profile == "" {
		return ""
	}
	return "enable_debug = true\n"
}

// profile writes profiles of all processes that there are while f runs, if they are asked for.
// Figures of that time are no measure.
func (m *measurement) profile(phase string, f func() error) error {
	if m.o.profile == "" {
		return f()
	}
	if err := os.MkdirAll(m.o.profile, 0o755); err != nil {
		return err
	}
	var wg sync.WaitGroup
	processes := slices.Clone(m.servers)
	if m.real != nil {
		processes = append(processes, m.real)
	}
	errs := make([]error, len(processes)+2)
	a := Profile{File: filepath.Join(m.o.profile, phase+"-hosts"), Time: m.o.Window}
	if crowd := m.crowd; crowd != nil {
		wg.Go(func() { errs[0] = crowd.tell("Profile", a) })
	}
	for i, s := range processes {
		wg.Go(func() {
			for path, file := range map[string]string{"heap?gc=1": "heap", fmt.Sprintf("profile?seconds=%d", int(m.o.Window.Seconds())): "cpu"} {
				file = filepath.Join(m.o.profile, fmt.Sprintf("%s-process-%d.%s", phase, i+1, file))
				errs[i+1] = errors.Join(errs[i+1], fetch("http://"+s.Addr+":8500/debug/pprof/"+path, file))
			}
		})
	}
	errs[len(errs)-1] = f()
	wg.Wait()
	return errors.Join(errs...)
}

func fetch(url, file string) error {
	res, err := http.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, res.Status)
	}
	to, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, res.Body)
	return errors.Join(err, to.Close())
}
