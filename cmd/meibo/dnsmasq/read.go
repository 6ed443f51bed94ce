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
	at    int // its place among all
	name  string
	value string // quoted characters hidden, see hide
	again string // a file that it names and that was read before
}

// reader collects the options of files and of those that they name.
type reader struct {
	root    string // the host's files are below it
	options []option
	read    []os.FileInfo // files that were read, or are being read
}

// add takes an option as the next one.
func (r *reader) add(o option) {
	o.at = len(r.options) + 1
	r.options = append(r.options, o)
}

// named reads a file that an option names, once: what was read before is skipped, as
// dnsmasq does it, so that files may name one another.
func (r *reader) named(o option, path string) error {
	info, err := os.Stat(r.root + path)
	if err == nil && slices.ContainsFunc(r.read, func(other os.FileInfo) bool { return os.SameFile(info, other) }) {
		o.again = path
		r.add(o)
		return nil
	}
	return r.file(path)
}

func (r *reader) file(path string) error {
	f, err := os.Open(r.root + path)
	if err != nil {
		return fmt.Errorf("read dnsmasq's configuration: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read dnsmasq's configuration: %w", err)
	}
	r.read = append(r.read, info)
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
			err = r.named(o, o.plain())
		case "servers-file":
			r.add(o)
			err = r.named(o, o.plain())
		case "conf-dir":
			err = r.dir(o)
		default:
			r.add(o)
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
	entries, err := os.ReadDir(r.root + fields[0])
	if err != nil {
		return fmt.Errorf("read dnsmasq's configuration: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if name[0] == '.' || strings.HasSuffix(name, "~") || name[0] == '#' && strings.HasSuffix(name, "#") || !wanted(name, fields[1:]) {
			continue
		}
		path := filepath.Join(fields[0], name)
		if info, err := os.Stat(r.root + path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if err := r.named(o, path); err != nil {
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

// parseLine reads "name=value # comment"; false: there is nothing in it. Only within
// quotes is a backslash more than itself, and there before certain characters only.
func parseLine(line string) (option, bool) {
	var b strings.Builder
	quoted, blank := false, true
scan:
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '"':
			quoted = !quoted
			continue
		case quoted:
			if c == '\\' && i+1 < len(line) {
				if at := strings.IndexByte(`"\tnbre`, line[i+1]); at >= 0 {
					i, c = i+1, "\"\\\t\n\b\r\x1b"[at]
				}
			}
			hide(&b, c)
		case c == '#' && blank:
			break scan
		default:
			b.WriteByte(c)
		}
		blank = !quoted && (c == ' ' || c == '\t')
	}
	name, value, _ := strings.Cut(strings.TrimSpace(b.String()), "=")
	o := option{name: strings.TrimLeft(strings.TrimSpace(name), "-"), value: strings.TrimSpace(value)}
	return o, o.name != ""
}

func hide(b *strings.Builder, c byte) {
	if c < 0x80 {
		b.WriteRune(hidden + rune(c))
	} else {
		b.WriteByte(c)
	}
}

// shown undoes hide: U+E000 to U+E07F are three octets each.
func shown(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if i+2 < len(s) && s[i] == 0xee && s[i+1]&^1 == 0x80 {
			b.WriteByte(s[i+1]&1<<6 | s[i+2]&0x3f)
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
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
