package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// hostFacts tells of memory, processors, system and the disk of dir what the kernel tells, under the names that
// /v1/agent/host has in Consul; errs is what could not be known.
func hostFacts(dir string) (found map[string]any, errs []string) {
	found = make(map[string]any)
	for what, read := range map[string]func() (any, error){
		"Memory": memoryFacts, "CPU": cpuFacts, "Host": systemFacts,
		"Disk": func() (any, error) { return diskFacts(cmp.Or(dir, "/")) },
	} {
		v, err := read()
		if err != nil {
			errs = append(errs, fmt.Sprintf("%s: %v", strings.ToLower(what), err))
			continue
		}
		found[what] = v
	}
	return found, errs
}

func percent(part, whole uint64) float64 { return 100 * float64(part) / float64(max(whole, 1)) }

func memoryFacts() (any, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, err
	}
	has := make(map[string]uint64)
	for line := range bytes.Lines(data) {
		if f := strings.Fields(string(line)); len(f) >= 2 {
			kib, _ := strconv.ParseUint(f[1], 10, 64)
			has[strings.TrimSuffix(f[0], ":")] = kib << 10
		}
	}
	total := has["MemTotal"]
	used := total - min(total, has["MemAvailable"])
	return map[string]any{
		"total": total, "available": has["MemAvailable"], "used": used, "usedPercent": percent(used, total), "free": has["MemFree"],
		"buffers": has["Buffers"], "cached": has["Cached"], "swapTotal": has["SwapTotal"], "swapFree": has["SwapFree"],
	}, nil
}

func cpuFacts() (any, error) {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, err
	}
	cpus := []map[string]any{}
	for line := range bytes.Lines(data) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if key == "processor" {
			n, _ := strconv.Atoi(value)
			cpus = append(cpus, map[string]any{"cpu": n})
		}
		name := map[string]string{"vendor_id": "vendorId", "cpu family": "family", "model": "model", "model name": "modelName"}[key]
		if len(cpus) == 0 {
			continue
		}
		switch last := cpus[len(cpus)-1]; {
		case name != "":
			last[name] = value
		case key == "cpu MHz":
			last["mhz"], _ = strconv.ParseFloat(value, 64)
		case key == "flags":
			last["flags"] = strings.Fields(value)
		}
	}
	return cpus, nil
}

func systemFacts() (any, error) {
	system := make(map[string]any)
	data, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return nil, err
	}
	if f := strings.Fields(string(data)); len(f) > 0 {
		up, _ := strconv.ParseFloat(f[0], 64)
		system["uptime"] = uint64(up)
	}
	if data, err = os.ReadFile("/proc/stat"); err != nil {
		return nil, err
	}
	for line := range bytes.Lines(data) {
		if f := strings.Fields(string(line)); len(f) == 2 && f[0] == "btime" {
			system["bootTime"], _ = strconv.ParseUint(f[1], 10, 64)
		}
	}
	if data, err = os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		system["kernelVersion"] = strings.TrimSpace(string(data))
	}
	if data, err = os.ReadFile("/proc/loadavg"); err == nil {
		if _, procs, ok := strings.Cut(strings.Fields(string(data))[3], "/"); ok {
			system["procs"], _ = strconv.ParseUint(procs, 10, 64)
		}
	}
	if f, err := os.Open("/etc/os-release"); err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), "=")
			if name := map[string]string{"ID": "platform", "VERSION_ID": "platformVersion", "ID_LIKE": "platformFamily"}[key]; name != "" {
				system[name] = strings.Trim(value, `"`)
			}
		}
	}
	return system, nil
}

func diskFacts(dir string) (any, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return nil, fmt.Errorf("look at %s: %w", dir, err)
	}
	block := uint64(s.Bsize)
	total, free := s.Blocks*block, s.Bavail*block
	used := (s.Blocks - s.Bfree) * block
	return map[string]any{
		"path": dir, "total": total, "free": free, "used": used, "usedPercent": percent(used, used+free),
		"inodesTotal": s.Files, "inodesFree": s.Ffree, "inodesUsed": s.Files - s.Ffree, "inodesUsedPercent": percent(s.Files-s.Ffree, s.Files),
	}, nil
}
