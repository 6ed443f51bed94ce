package config

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
)

// maxFile bounds one file; a larger one is no configuration.
const maxFile = 16 << 20

// Sources says what a configuration is read from.
type Sources struct {
	Paths     []string // files and directories, in the order of the command line
	Format    string   // "hcl" or "json" for every file; "" goes by the extension
	Flags     *Flags   // nil for none
	Fragments []string // HCL texts, read last
	Dev       bool
	// Partial leaves out what a whole configuration needs (data_dir), for
	// looking at a part of one.
	Partial bool
	// Look has the host looked at too, for what would keep the daemon from its
	// sockets: that is no fault of the files, and may be over when it starts.
	Look bool
	// Registered tells which services the API registered, for checks of them; nil:
	// those that data_dir keeps.
	Registered func(id string) bool
	Host       Host
}

// Load reads, merges and checks a configuration. A service or check with a fault in it
// is left out of it, and named in Agent.LeftOut. A fault anywhere else is an error, a
// [Faults]: every fault found, those of definitions too, in the order of the files.
// Warnings come with or without it.
func Load(src Sources) (cfg *Config, warnings []Warning, err error) {
	l := &loader{src: src, report: &report{order: map[string]int{}}}
	defer func() {
		if p := recover(); p != nil { // a daemon that runs reads files, too, and must live on
			cfg, err = nil, l.sorted(append(l.faults, &Fault{Text: fmt.Sprintf("reading the configuration hit a bug in meibo: %v; look for what is unusual in the files\n%s", p, debug.Stack())}))
		}
	}()
	if src.Format != "" && src.Format != "hcl" && src.Format != "json" {
		l.fault(&Fault{File: "flag -config-format", Expected: "one of hcl, json", Got: fmt.Sprintf("%q", src.Format)})
	}
	set := settings{}
	if src.Dev {
		set.add(l.defaults(devKeys))
	}
	for _, s := range l.files() {
		set.add(s)
	}
	if src.Flags != nil {
		for _, s := range l.flags(src.Flags) {
			set.prepend(s)
		}
	}
	for i, text := range src.Fragments {
		if t := l.parse(fmt.Sprintf("-hcl fragment %d", i+1), "hcl", []byte(text)); t != nil {
			set.add(decoder{l.report}.source(t))
		}
	}
	b := &builder{loader: l, set: set}
	b.notice()
	c := b.build()
	l.sortWarnings()
	if len(l.faults) > 0 {
		return nil, l.warnings, l.sorted(append(l.faults, c.Agent.Faults()...))
	}
	return c, l.warnings, nil
}

func (out settings) add(s settings) {
	for _, k := range slices.Sorted(maps.Keys(s)) {
		out.merge(s[k])
	}
}

// devKeys are what -dev sets under everything else.
var devKeys = map[string]any{
	"server": true, "bind_addr": "127.0.0.1", "log_level": "DEBUG", "enable_debug": true, "disable_keyring_file": true,
}

type loader struct {
	*report
	src  Sources
	read []string // files read, in order
}

func (l *loader) defaults(values map[string]any) settings {
	set := settings{}
	for path, v := range values {
		set[path] = &setting{key: tables[""].byPath[path], value: v}
	}
	return set
}

// files reads what the paths name.
func (l *loader) files() []settings {
	var all []settings
	for _, path := range l.src.Paths {
		for _, file := range l.expand(path) {
			data, err := readFile(file, file == path)
			if err != nil {
				l.fault(&Fault{File: file, Text: "read configuration: " + unread(file, err)})
				continue
			}
			l.order[file] = len(l.order)
			l.read = append(l.read, file)
			if t := l.parse(file, l.format(file), data); t != nil {
				all = append(all, decoder{l.report}.source(t))
			}
		}
	}
	return all
}

// expand returns the files of a path: itself, or those of a directory, sorted
// by name, subdirectories left out.
func (l *loader) expand(path string) []string {
	info, err := os.Stat(path)
	if err != nil {
		l.fault(&Fault{File: path, Text: "read configuration: " + unread(path, err)})
		return nil
	}
	if !info.IsDir() {
		return l.known(path, true)
	}
	entries, err := os.ReadDir(path) // sorted
	if err != nil {
		l.fault(&Fault{File: path, Text: "read directory: " + reason(err)})
		return nil
	}
	var files []string
	for _, e := range entries {
		file := filepath.Join(path, e.Name())
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			continue
		}
		files = append(files, l.known(file, false)...)
	}
	return files
}

// known leaves out files of an unknown format. For one that was named by itself that is
// hardly what was meant.
func (l *loader) known(file string, named bool) []string {
	if l.format(file) != "" {
		return []string{file}
	}
	l.order[file] = len(l.order)
	l.warn(Warning{Serious: named, File: file,
		Text: "skipped: the name does not end in .hcl or .json (-config-format hcl, or json, reads every file as that, whatever its name)"})
	return nil
}

func (l *loader) format(file string) string {
	if l.src.Format != "" {
		return l.src.Format
	}
	switch ext := filepath.Ext(file); ext {
	case ".hcl", ".json":
		return ext[1:]
	}
	return ""
}

func (l *loader) parse(file, format string, data []byte) *tree {
	if _, ok := l.order[file]; !ok {
		l.order[file] = len(l.order)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if len(bytes.TrimSpace(data)) == 0 {
		l.warn(Warning{File: file, Text: "empty, and passed over"})
		return nil
	}
	parse := parseHCL
	if format == "json" {
		parse = parseJSON
	}
	t, fault := parse(file, data)
	if fault != nil {
		l.fault(fault)
		return nil
	}
	return t
}

// readFile reads at most maxFile bytes, and never waits for a device, nor for who
// writes a pipe, unless that was named itself as the shell does for <(…).
func readFile(name string, named bool) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() && !(named && info.Mode()&os.ModeNamedPipe != 0) {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		return nil, fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	return data, err
}

// reason cuts the path off an error of os, which the fault names already.
func reason(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// unread is reason, which says more of a link to nowhere: the file that is not there
// is another than the one that is named.
func unread(file string, err error) string {
	if to, e := os.Readlink(file); e == nil && errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("a dangling symbolic link: %s, which it points to, is not there: mend or remove the link", to)
	}
	return reason(err)
}

// flags decodes the flags that were given.
func (l *loader) flags(f *Flags) []*setting {
	var all []*setting
	for _, name := range slices.Sorted(maps.Keys(f.values)) {
		k := byFlag[name]
		file := "flag -" + name
		l.order[file] = len(l.order)
		for _, text := range f.values[name] {
			out := settings{}
			d := decoder{l.report}
			d.set(k, "", field{key: k.Path, at: position{file: file}, tree: flagTree(k, file, text)}, out)
			d.modernize(tables[""], "", out)
			for _, path := range slices.Sorted(maps.Keys(out)) {
				all = appendFlag(all, out[path])
			}
		}
	}
	return all
}

// appendFlag joins the values of a flag given several times.
func appendFlag(all []*setting, s *setting) []*setting {
	for i, old := range all {
		if old.key == s.key {
			joined := settings{old.key.Path: old}
			joined.merge(s)
			all[i] = joined[s.key.Path]
			return all
		}
	}
	return append(all, s)
}

func flagTree(k *Key, file, text string) *tree {
	at := position{file: file}
	t := &tree{shape: shapeText, at: at, text: text}
	if k.Type != StringMap {
		return t
	}
	name, value, _ := strings.Cut(text, ":")
	return &tree{shape: shapeObject, at: at, fields: []field{{key: name, at: at, tree: &tree{shape: shapeText, at: at, text: value}}}}
}

// Digest tells one state of the files and directories from another, without
// judging them. A file that can't be read counts as its error; what is no
// regular file is not read: a pipe could be read only once.
func (src Sources) Digest() [sha256.Size]byte {
	l := &loader{src: src, report: &report{order: map[string]int{}}}
	sum := sha256.New()
	for _, path := range src.Paths {
		for _, file := range l.expand(path) {
			info, err := os.Stat(file)
			if err == nil && !info.Mode().IsRegular() {
				continue
			}
			data, err := readFile(file, false)
			fmt.Fprintf(sum, "%q %d %v\n", file, len(data), err)
			sum.Write(data)
		}
	}
	fmt.Fprintln(sum, l.faults)
	return [sha256.Size]byte(sum.Sum(nil))
}
