package main

import (
	"os"
	"slices"
	"strings"

	"meibo/resolver/resolvconf"
)

// hostNames are what others may call this host: its host name, as the kernel has it and within the domains of resolv.conf,
// and what the hosts file says beside it, where most hosts have their full name. It asks nobody: the answer would come from
// whom a page could be.
func hostNames(hostname, hostsFile, resolvFile string) []string {
	if hostname == "" {
		return nil
	}
	names := []string{hostname}
	data, _ := os.ReadFile(resolvFile) // without it there is one domain less
	if !strings.Contains(hostname, ".") {
		for _, domain := range resolvconf.Parse(string(data)).Search {
			if domain = strings.Trim(domain, "."); domain != "" {
				names = append(names, hostname+"."+domain)
			}
		}
	}
	data, _ = os.ReadFile(hostsFile)
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) > 1 && slices.ContainsFunc(fields[1:], func(name string) bool { return strings.EqualFold(name, hostname) }) {
			names = append(names, fields[1:]...)
		}
	}
	return names
}
