package config

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// Fault is one thing wrong with a configuration.
type Fault struct {
	File     string // or "flag -x", "-hcl fragment 1"
	Line     int    // 0 when there is none
	Key      string // dotted path; "" when the whole file is meant
	Text     string // what is wrong, instead of Expected and Got
	Expected string
	Got      string // never the value of a secret
	Suggest  string // the nearest known key, quoted, or how the value is written
}

// Error returns `FILE:LINE: key "x": expected …, got …; did you mean "y"?`.
func (f *Fault) Error() string {
	var b strings.Builder
	b.WriteString(place(f.File, f.Line))
	b.WriteString(keyed(f.Key))
	b.WriteString(f.Text)
	if f.Expected != "" {
		fmt.Fprintf(&b, "expected %s, got %s", f.Expected, f.Got)
	}
	if f.Suggest != "" {
		b.WriteString("; did you mean " + f.Suggest + "?")
	}
	return b.String()
}

// Faults are all that was found wrong, in the order of the files.
type Faults []*Fault

// Error returns one line for each fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the faults one by one.
func (fs Faults) Unwrap() []error {
	errs := make([]error, len(fs))
	for i, f := range fs {
		errs[i] = f
	}
	return errs
}

// place returns "file:line: ", as far as it is known.
func place(file string, line int) string {
	switch {
	case file == "":
		return ""
	case line == 0:
		return file + ": "
	}
	return fmt.Sprintf("%s:%d: ", file, line)
}

func keyed(key string) string {
	if key == "" {
		return ""
	}
	if strings.ContainsRune(key, '"') { // forward "corp.example"
		return "key `" + key + "`: "
	}
	return fmt.Sprintf("key %q: ", key)
}

// report collects faults and warnings while a configuration is read.
type report struct {
	faults   Faults
	inside   *Faults // takes the faults of the definition that is being read; nil: none is
	found    int     // faults, those beyond maxFaults included
	warnings []Warning
	order    map[string]int // file to its place in the order of reading
}

// maxFaults and maxSuggestions bound the work on a file that is no
// configuration at all.
const (
	maxFaults      = 1000
	maxSuggestions = 50
)

func (r *report) fault(f *Fault) {
	r.found++
	list := &r.faults
	if r.inside != nil {
		list = r.inside
	}
	if r.found <= maxFaults || r.inside != nil && len(*list) == 0 {
		*list = append(*list, f)
	}
}

// within keeps the faults that read finds with the definition that they are in, so that
// it alone is left out. A check inside a service is part of the service.
func (r *report) within(b *block, read func()) {
	if r.inside != nil {
		read()
		return
	}
	r.inside = &b.faults
	defer func() { r.inside = nil }()
	read()
}

func (r *report) warn(w Warning) { r.warnings = append(r.warnings, w) }

// sorted returns faults in the order of files and lines, the same one once.
func (r *report) sorted(faults Faults) Faults {
	faults = slices.Clone(faults)
	sort.SliceStable(faults, func(i, j int) bool {
		a, b := faults[i], faults[j]
		return r.before(a.File, a.Line, b.File, b.Line)
	})
	faults = slices.CompactFunc(faults, func(a, b *Fault) bool { return *a == *b }) // an address is evaluated for each use
	if more := r.found - maxFaults; more > 0 && len(faults) > 0 {
		faults = append(faults[:min(len(faults), maxFaults)], &Fault{Text: fmt.Sprintf("and %d more", more)})
	}
	return faults
}

// sortWarnings puts the warnings in order; those that say the same of the same key become one.
func (r *report) sortWarnings() {
	sort.SliceStable(r.warnings, func(i, j int) bool {
		a, b := r.warnings[i], r.warnings[j]
		return r.before(a.File, a.Line, b.File, b.Line)
	})
	type said struct{ key, text string }
	places := make(map[said][]string)
	all := r.warnings
	r.warnings = nil
	for _, w := range all {
		is := said{w.Key, w.Text}
		if places[is] == nil || w.Key == "" { // without a key it is about a file
			r.warnings = append(r.warnings, w)
		}
		places[is] = append(places[is], strings.TrimSuffix(place(w.File, w.Line), ": "))
	}
	for i := range r.warnings {
		w := &r.warnings[i]
		if w.Key != "" {
			w.Text += alsoAt(places[said{w.Key, w.Text}][1:])
		}
	}
}

// alsoAt names further places that a warning is about, not all if there are many.
func alsoAt(places []string) string {
	const most = 3
	places = slices.DeleteFunc(slices.Compact(places), func(p string) bool { return p == "" })
	switch more := len(places) - most; {
	case len(places) == 0:
		return ""
	case more > 0:
		return fmt.Sprintf(" (also at %s and %d more)", strings.Join(places[:most], ", "), more)
	}
	return fmt.Sprintf(" (also at %s)", strings.Join(places, ", "))
}

func (r *report) before(fileA string, lineA int, fileB string, lineB int) bool {
	if a, b := r.rank(fileA), r.rank(fileB); a != b {
		return a < b
	}
	return fileA == fileB && lineA < lineB
}

// rank puts what comes from no file last.
func (r *report) rank(file string) int {
	if n, ok := r.order[file]; ok {
		return n
	}
	return len(r.order)
}
