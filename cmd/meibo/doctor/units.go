package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	serviceUnit = "meibo.service"
	socketUnit  = "meibo.socket"
)

// unitFolders are where systemd looks for units, the first wins (systemd.unit(5)).
var unitFolders = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// onPort53 are services that take port 53 by default.
var onPort53 = map[string]string{
	"dnsmasq.service": "`meibo migrate` reads its files, and -apply has meibo take its place",
	"named.service":   "", "bind9.service": "", "unbound.service": "", "pdns-recursor.service": "", "pdns.service": "", "knot.service": "",
	"kresd@1.service": "", "coredns.service": "", "dnsdist.service": "", "nsd.service": "", "AdGuardHome.service": "", "pihole-FTL.service": "",
}

// units looks what systemd will start, now and at the next boot.
func units(_ context.Context, e *exam) []Finding {
	if !e.installed(serviceUnit) {
		return []Finding{ok("there is no %s on this host: whoever starts meibo sees to that", serviceUnit)}
	}
	var out []Finding
	for _, unit := range []string{serviceUnit, socketUnit} {
		switch {
		case e.masked(unit):
			out = append(out, critical(unit+" is masked: nothing can start it", fmt.Sprintf("`systemctl unmask %s && systemctl enable --now %[1]s`", unit)))
		case unit == serviceUnit && !e.enabled(unit): // the socket comes with it
			out = append(out, warning(unit+" is disabled: nobody starts it at the next boot", "`systemctl enable --now "+unit+"`"))
		}
	}
	for _, unit := range e.startsOnPort53() {
		if e.masked(unit) {
			continue
		}
		mend := onPort53[unit]
		if mend == "" {
			mend = "`systemctl disable --now " + unit + "`, or give it another port"
		}
		out = append(out, critical(unit+" is started at boot and takes port 53, as meibo does", mend))
	}
	return orOK(out, "%s is enabled, and no other unit takes port 53", serviceUnit)
}

// startsOnPort53 are enabled units of others that take the port.
func (e *exam) startsOnPort53() (units []string) {
	for unit := range onPort53 {
		if e.enabled(unit) && !e.leavesPort53(unit) {
			units = append(units, unit)
		}
	}
	sockets, _ := filepath.Glob(filepath.Join(e.Root, unitFolders[0], "*.wants", "*.socket"))
	for _, at := range sockets {
		unit := filepath.Base(at)
		if unit != socketUnit && !slices.Contains(units, unit) && e.socketTakes53(unit) {
			units = append(units, unit)
		}
	}
	slices.Sort(units)
	return units
}

// leavesPort53 reports whether dnsmasq's main file gives it another port.
func (e *exam) leavesPort53(unit string) bool {
	text, err := e.read("/etc/dnsmasq.conf")
	if unit != "dnsmasq.service" || err != nil {
		return false
	}
	for line := range strings.Lines(text) {
		if port, is := strings.CutPrefix(strings.ReplaceAll(strings.TrimSpace(line), " ", ""), "port="); is {
			port, _, _ = strings.Cut(port, "#")
			return port != "53"
		}
	}
	return false
}

// socketTakes53 reports whether a socket unit listens on port 53 of loopback or of all addresses.
func (e *exam) socketTakes53(unit string) bool {
	for _, dir := range unitFolders {
		text, err := e.read(filepath.Join(dir, unit))
		if err != nil {
			continue
		}
		for line := range strings.Lines(text) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if key != "ListenDatagram" && key != "ListenStream" {
				continue
			}
			for _, taken := range []string{"53", "0.0.0.0:53", "[::]:53", "127.0.0.1:53"} {
				if strings.TrimSpace(value) == taken {
					return true
				}
			}
		}
		return false
	}
	return false
}

func (e *exam) installed(unit string) bool {
	return slices.ContainsFunc(unitFolders, func(dir string) bool {
		_, err := os.Lstat(filepath.Join(e.Root, dir, unit))
		return err == nil
	})
}

func (e *exam) masked(unit string) bool {
	to, err := os.Readlink(filepath.Join(e.Root, unitFolders[0], unit))
	return err == nil && to == os.DevNull
}

// enabled reports whether some unit wants this one; a link of another name (an alias) counts for itself.
func (e *exam) enabled(unit string) bool {
	for _, kind := range []string{"*.wants", "*.requires"} {
		if found, _ := filepath.Glob(filepath.Join(e.Root, unitFolders[0], kind, unit)); len(found) > 0 {
			return true
		}
	}
	return false
}
