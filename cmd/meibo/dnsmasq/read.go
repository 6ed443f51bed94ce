// Package dnsmasq turns a configuration of dnsmasq into one of meibo. It knows the
// options of dnsmasq 2.92 by their names; what they do is dnsmasq(8)'s to say.
package dnsmasq

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// option is one line of a file.
type option struct {
	file  string
	line  int
	name  string
	value string // quoted characters hidden, see hide
}

// maxDepth bounds files that name files; dnsmasq finds loops by inode.
const maxDepth = 16

// reader collects the options of files and of those that they name.
type reader struct {
	options []option
	reading []string // files being read, outermost first
}

func (r *reader) file(path string) error {
	if slices.Contains(r.reading, path) || len(r.reading) >= maxDepth {
		return fmt.Errorf("read %s: it names itself: %s", path, strings.Join(append(r.reading, path), " names "))
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read dnsmasq's configuration: %w", err)
	}
	defer f.Close()
	r.reading = append(r.reading, path)
	defer func() { r.reading = r.reading[:len(r.reading)-1] }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		o, ok := parseLine(lines.Text())
		if !ok {
			continue
		}
		o.file, o.line = path, n
		switch o.name {
		case "conf-file":
			err = r.file(o.plain())
		case "servers-file":
			r.options = append(r.options, o)
			err = r.file(o.plain())
		case "conf-dir":
			err = r.dir(o)
		default:
			r.options = append(r.options, o)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w", path, n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// dir reads the files of conf-dir=DIR[,PATTERN…]: *SUFFIX takes those that end so and no
// others, SUFFIX leaves those out.
func (r *reader) dir(o option) error {
	fields := o.fields(",")
	entries, err := os.ReadDir(fields[0])
	if err != nil {
		return fmt.Errorf("read dnsmasq's configuration: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if name[0] == '.' || strings.HasSuffix(name, "~") || name[0] == '#' && strings.HasSuffix(name, "#") || !wanted(name, fields[1:]) {
			continue
		}
		path := filepath.Join(fields[0], name)
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if err := r.file(path); err != nil {
			return err
		}
	}
	return nil
}

func wanted(name string, patterns []string) bool {
	only, isOne := false, false
	for _, p := range patterns {
		suffix, isOnly := strings.CutPrefix(p, "*")
		switch {
		case p == "":
		case isOnly:
			only = true
			isOne = isOne || strings.HasSuffix(name, suffix)
		case strings.HasSuffix(name, suffix):
			return false
		}
	}
	return isOne || !only
}

// hidden is where characters within quotes are kept while a value is taken apart.
const hidden = '\ue000'

// parseLine reads "name=value # comment"; false: there is nothing in it.
func parseLine(line string) (option, bool) {
	var b strings.Builder
	quoted, blank := false, true
	runes := []rune(line)
scan:
	for i := 0; i < len(runes); i++ {
		c := runes[i]
		switch {
		case c == '"':
			quoted = !quoted
			continue
		case quoted && c == '\\' && i+1 < len(runes):
			i++
			if at := strings.IndexRune(`tnbr`, runes[i]); at >= 0 {
				runes[i] = rune("\t\n\b\r"[at])
			}
			b.WriteRune(hide(runes[i]))
		case quoted:
			b.WriteRune(hide(c))
		case c == '#' && blank:
			break scan
		default:
			b.WriteRune(c)
		}
		blank = !quoted && (c == ' ' || c == '\t')
	}
	name, value, _ := strings.Cut(strings.TrimSpace(b.String()), "=")
	o := option{name: strings.TrimLeft(strings.TrimSpace(name), "-"), value: strings.TrimSpace(value)}
	return o, o.name != ""
}

func hide(c rune) rune {
	if c < 0x80 {
		return hidden + c
	}
	return c
}

func shown(s string) string {
	return strings.Map(func(c rune) rune {
		if c >= hidden && c < hidden+0x80 {
			return c - hidden
		}
		return c
	}, s)
}

// plain is the whole value.
func (o *option) plain() string { return shown(o.value) }

// fields are the parts of the value, blanks around them gone.
func (o *option) fields(sep string) []string {
	parts := strings.Split(o.value, sep)
	for i, p := range parts {
		parts[i] = shown(strings.TrimSpace(p))
	}
	return parts
}

// text is the line as it is told.
func (o *option) text() string {
	if o.value == "" {
		return o.name
	}
	return o.name + "=" + o.plain()
}
