// Package report writes what a benchmark measured into RESULTS.md.
package report

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Table is a table of figures, row by row; the first row is its head.
type Table struct{ rows [][]string }

// Row adds a row: what was measured, and the figures.
func (r *Table) Row(what string, cells ...string) {
	r.rows = append(r.rows, append([]string{what}, cells...))
}

// Write prints the tables and writes them into the file, in the place of what the command wrote before.
func Write(t testing.TB, file, command string, tables ...Table) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%s. Everything runs on this one machine.\n", Machine())
	for _, r := range tables {
		b.WriteByte('\n')
		for i, row := range r.rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
			if i == 0 {
				fmt.Fprintf(&b, "|%s\n", strings.Repeat("---|", len(row)))
			}
		}
	}
	t.Logf("\n## %s\n\n%s", command, b.String())
	if err := Section(file, command, b.String()); err != nil {
		t.Error(err)
	}
}

// Section writes text under a command's name into the file, in the place of what it wrote before.
func Section(file, command, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		old = []byte("# Measurements\n\nEach section is written by the command that it is named after.\n")
	}
	section := regexp.MustCompile(`(?ms)^## ` + regexp.QuoteMeta(command) + `\n.*?(^## |\z)`)
	rest := bytes.TrimRight(section.ReplaceAll(old, []byte("$1")), "\n")
	return os.WriteFile(file, fmt.Appendf(rest, "\n\n## %s\n\n%s", command, text), 0o644)
}

// Machine is when, on what and of which commit something was measured.
func Machine() string {
	version, _ := exec.Command("git", "describe", "--always", "--dirty").Output()
	return fmt.Sprintf("%s, %s, %d CPUs, %s %s/%s, Linux %s, commit %s", time.Now().Format("2 January 2006"),
		cpuModel(), runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, kernel(), strings.TrimSpace(string(version)))
}

func kernel() string {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(release))
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, "\t :\n")
		}
	}
	return runtime.GOARCH
}
