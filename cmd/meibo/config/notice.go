package config

import (
	"fmt"
	"slices"
	"strings"
)

// notice warns of keys that have no effect here, once for each block and reason.
func (b *builder) notice() {
	n := &notices{report: b.report, index: map[string]int{}}
	n.table("", tables[""], b.set)
	for _, name := range []string{"services", "checks", "forward"} {
		if s := b.set[name]; s != nil && !s.bad {
			n.blocks(s)
		}
	}
	n.say()
}

type notices struct {
	*report
	index map[string]int // of the block and reason
	found []noticed
}

type noticed struct {
	key  *Key
	at   position
	keys []string // as shown
}

func (n *notices) blocks(s *setting) {
	list, _ := s.value.([]*block)
	for _, b := range list {
		n.table(s.key.Of+".", tables[s.key.Of], b.set)
		if inner := b.set["checks"]; inner != nil && !inner.bad {
			n.blocks(inner)
		}
	}
}

func (n *notices) table(shown string, tab *table, set settings) {
	for _, k := range tab.keys {
		s := set[k.Path]
		if s == nil || s.bad || s.at.file == "" || k.Status < Planned || k.Status == Legacy || k.isQuiet(s.value) {
			continue
		}
		group := shown + k.block() + "|" + k.Note
		i, ok := n.index[group]
		if !ok {
			i = len(n.found)
			n.index[group] = i
			n.found = append(n.found, noticed{key: k, at: s.at})
		}
		if path := shown + k.Path; !slices.Contains(n.found[i].keys, path) {
			n.found[i].keys = append(n.found[i].keys, path)
		}
	}
}

// block is the part of a path that warnings are said once for.
func (k *Key) block() string {
	if i := strings.LastIndexByte(k.Path, '.'); i >= 0 {
		return k.Path[:i]
	}
	if k.Type == Any {
		return k.Path
	}
	return ""
}

// isQuiet says that a value leaves nothing to be said: it switches nothing on.
func (k *Key) isQuiet(v any) bool {
	if k.quiet != nil {
		return k.quiet(v)
	}
	switch v := v.(type) {
	case string:
		return v == ""
	case bool:
		return !v
	case int64:
		return v == 0
	case []*tree:
		return !slices.ContainsFunc(v, func(t *tree) bool { return t.says() })
	}
	return false
}

// says reports whether a part that is not there was meant to be on.
func (t *tree) says() bool {
	switch t.shape {
	case shapeString, shapeText:
		return t.text != "" && t.text != "default"
	case shapeObject:
		for _, f := range t.fields {
			if strings.EqualFold(f.key, "enabled") {
				return f.tree.says()
			}
		}
		return len(t.fields) > 0
	case shapeBool:
		return t.text == "true"
	case shapeList:
		return slices.ContainsFunc(t.list, (*tree).says)
	}
	return t.shape == shapeNumber
}

func (n *notices) say() {
	for _, f := range n.found {
		w := Warning{File: f.at.file, Line: f.at.line, Key: f.keys[0], Text: f.key.verdict()}
		if len(f.keys) > 1 {
			w.Text += fmt.Sprintf(" (also %s)", strings.Join(f.keys[1:], ", "))
		}
		w.Serious = f.key.Path == "acl.enabled"
		n.warn(w)
	}
}

func (k *Key) verdict() string {
	switch k.Status {
	case Planned:
		return "no effect yet: " + k.Note
	case Guard:
		return "guards nothing here: " + k.Note
	}
	return "no effect: " + k.Note
}

// joinable returns addresses to join without what a cloud's entry holds besides
// the name of its provider, or a program's besides the program: it may be a key.
func joinable(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = s
		if words := strings.Fields(s); len(words) > 1 && strings.HasPrefix(words[0], joinProgram) {
			out[i] = words[0] + " …"
		}
		for _, word := range strings.Fields(s) {
			if strings.HasPrefix(word, "provider=") {
				out[i] = word + " …"
			}
		}
	}
	return out
}
