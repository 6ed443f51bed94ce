package config

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Change is one key that two configurations differ in.
type Change struct {
	Key     string
	Restart bool // takes effect only with a restart
}

// Diff returns the keys whose effective values differ, in the order of the
// manual. A change written down with the default value is none.
func Diff(old, new *Config) []Change {
	var changes []Change
	for _, k := range tables[""].keys {
		if k.Status != Legacy && !reflect.DeepEqual(old.effective(k), new.effective(k)) {
			changes = append(changes, Change{Key: k.Path, Restart: !k.Reload && k.Status == Used})
		}
	}
	return changes
}

func (c *Config) effective(k *Key) any {
	if s := c.settings[k.Path]; s != nil {
		return plain(s.value)
	}
	return plain(k.defaultValue())
}

// plain strips positions, so that moving a line is no change. Empty is nil.
func plain(v any) any {
	if r := reflect.ValueOf(v); (r.Kind() == reflect.Slice || r.Kind() == reflect.Map) && r.Len() == 0 {
		return nil
	}
	switch v := v.(type) {
	case []entry:
		return texts(v)
	case []*tree:
		out := make([]any, len(v))
		for i, t := range v {
			out[i] = t.value()
		}
		return out
	case []*block:
		out := make([]any, len(v))
		for i, b := range v {
			m := map[string]any{"": b.label}
			for path, s := range b.set {
				m[path] = plain(s.value)
			}
			out[i] = m
		}
		return out
	}
	return v
}

// Redacted returns what is set, one "key = value" to a line in the order of the
// manual, defaults left out and secrets hidden.
func (c *Config) Redacted() string {
	var b strings.Builder
	for _, k := range tables[""].keys {
		if s := c.settings[k.Path]; s != nil {
			fmt.Fprintf(&b, "%s = %s\n", k.Path, shown(k, s.value))
		}
	}
	return b.String()
}

// String is Redacted: a Config printed by accident shows no secret.
func (c *Config) String() string { return c.Redacted() }

// GoString is Redacted too.
func (c *Config) GoString() string { return c.Redacted() }

func shown(k *Key, v any) string {
	if k.Secret {
		return hidden
	}
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case time.Duration:
		return fmt.Sprintf("%q", v)
	case []entry:
		return fmt.Sprintf("%q", joinable(texts(v)))
	case []*block:
		list := make([]string, len(v))
		for i, bl := range v {
			list[i] = shownBlock(k, bl)
		}
		return "[" + strings.Join(list, ", ") + "]"
	case []*tree:
		return fmt.Sprintf("(%d)", len(v)) // free form: may hold anything
	}
	return fmt.Sprint(v)
}

func shownBlock(k *Key, bl *block) string {
	var parts []string
	if bl.label != "" {
		parts = append(parts, fmt.Sprintf("%q", bl.label))
	}
	for _, inner := range tables[k.Of].keys {
		if s := bl.set[inner.Path]; s != nil {
			parts = append(parts, inner.Path+" = "+shown(inner, s.value))
		}
	}
	return "{ " + strings.Join(parts, ", ") + " }"
}
