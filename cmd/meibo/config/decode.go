package config

import (
	"fmt"
	"strconv"
	"strings"
)

// setting is a key's value and where it was written.
type setting struct {
	key *Key
	at  position // no file for a default
	bad bool     // a fault has been reported; the value is not there
	// value is by Type: string, bool, int64 (Int, Size), float64, time.Duration,
	// []entry (Strings), map[string]string, map[string]time.Duration,
	// map[string][]string, []*tree (Any), []*block (Blocks, Named).
	value any
}

// settings holds what is set, by path.
type settings map[string]*setting

// entry is one element of a list.
type entry struct {
	text string
	at   position
}

// block is one block of a sub-table.
type block struct {
	label  string // of Named, and what a block that takes no label was given
	at     position
	set    settings
	bad    bool   // a fault has been reported of something in it
	faults Faults // of a definition: all that is wrong with it
}

// decoder turns one source into settings.
type decoder struct {
	*report
}

// source decodes the whole tree of a file or of flags.
func (d decoder) source(t *tree) settings {
	out := settings{}
	d.block(tables[""], "", "", t, out)
	d.modernize(tables[""], "", out)
	return out
}

// block decodes the fields of one block. Names are compared without regard to
// case, as Consul does; shown is the path of the sub-table, for messages.
func (d decoder) block(tab *table, shown, prefix string, t *tree, out settings) {
	for _, f := range t.fields {
		path := prefix + strings.ToLower(f.key)
		if k := tab.byPath[path]; k != nil {
			d.set(k, shown, f, out)
			continue
		}
		if !tab.groups[path] {
			d.unknown(tab, shown, prefix, f)
			continue
		}
		objects, ok := f.tree.objects()
		if !ok && f.tree.shape != shapeNull {
			d.fault(&Fault{File: f.at.file, Line: f.at.line, Key: shown + path, Expected: "a block", Got: f.tree.describe(true)})
		}
		for _, o := range objects {
			d.block(tab, shown, path+".", o, out)
		}
	}
}

func (d decoder) unknown(tab *table, shown, prefix string, f field) {
	fault := &Fault{File: f.at.file, Line: f.at.line, Key: shorten(shown + prefix + f.key), Text: "unknown key"}
	if d.found >= maxSuggestions {
		d.fault(fault)
		return
	}
	if near := tab.nearest(prefix + strings.ToLower(f.key)); near != "" {
		fault.Suggest = strconv.Quote(shown + near)
	}
	d.fault(fault)
}

// set decodes one key and merges it with what the source said of it before.
func (d decoder) set(k *Key, shown string, f field, out settings) {
	if f.tree.shape == shapeNull {
		return
	}
	c := conversion{decoder: d, key: k, path: shown + k.Path, at: f.at}
	s := &setting{key: k, at: f.at}
	var ok bool
	if s.value, ok = c.convert(f.tree); !ok {
		s.bad = true
	}
	out.merge(s)
}

// merge adds what a later source says of a key: scalars win, lists append,
// maps merge.
func (out settings) merge(s *setting) {
	old := out[s.key.Path]
	if old == nil || old.bad || s.bad {
		out[s.key.Path] = s
		return
	}
	joined := &setting{key: s.key, at: old.at, value: join(old.value, s.value)}
	if joined.value == nil {
		joined = s
	}
	out[s.key.Path] = joined
}

// prepend adds what flags say of a key: as merge, but lists come first.
func (out settings) prepend(s *setting) {
	old := out[s.key.Path]
	if list, ok := s.value.([]entry); ok && old != nil && !old.bad && !s.bad {
		out[s.key.Path] = &setting{key: s.key, at: s.at, value: join(list, old.value)}
		return
	}
	out.merge(s)
}

// join returns both values together, nil where the later one wins. It may grow
// a in place: nobody uses a afterwards.
func join(a, b any) any {
	switch a := a.(type) {
	case []entry:
		return append(a, b.([]entry)...)
	case []*tree:
		return append(a, b.([]*tree)...)
	case []*block:
		return append(a, b.([]*block)...)
	case map[string]string:
		return joinMaps(a, b)
	case map[string][]string:
		return joinMaps(a, b)
	}
	return joinDurations(a, b)
}

func joinMaps[V any](a map[string]V, b any) any {
	m := make(map[string]V, len(a))
	for k, v := range a {
		m[k] = v
	}
	for k, v := range b.(map[string]V) {
		m[k] = v
	}
	return m
}

// modernize moves what legacy keys say to the keys that they stand for, unless
// the same source sets those too.
func (d decoder) modernize(tab *table, shown string, out settings) {
	for _, k := range tab.keys {
		s := out[k.Path]
		if s == nil || k.Status != Legacy {
			continue
		}
		delete(out, k.Path)
		now := tab.byPath[k.Goes]
		d.warn(Warning{File: s.at.file, Line: s.at.line, Key: shown + k.Path, Text: fmt.Sprintf("old name; use %q", shown+now.Path)})
		moved := &setting{key: now, at: s.at, bad: s.bad, value: legacyValue(s)}
		if _, list := moved.value.([]entry); list || out[now.Path] == nil {
			out.merge(moved)
		}
		d.implied(k, s.at, tab, out)
	}
}

// legacyValue converts a legacy value to the type of the key it stands for.
func legacyValue(s *setting) any {
	text, ok := s.value.(string)
	switch {
	case !ok:
		return s.value
	case s.key.Path == "recursor":
		return []entry{{text, s.at}}
	case s.key.Path == "script":
		return []entry{{"/bin/sh", s.at}, {"-c", s.at}, {text, s.at}}
	}
	return text
}

// implied sets what two legacy keys switch on besides.
func (d decoder) implied(k *Key, at position, tab *table, out settings) {
	also := map[string]string{"acl_datacenter": "acl.enabled", "acl_replication_token": "acl.enable_token_replication"}[k.Path]
	if also != "" {
		out.merge(&setting{key: tab.byPath[also], at: at, value: true})
	}
}
