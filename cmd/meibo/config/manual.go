//go:build docs

package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Manual writes meibo.d(5) in Markdown: every key of the table, with an example out of the configuration at path, which sets
// them all.
func Manual(path string) (string, error) {
	c, _, err := Load(Sources{Paths: []string{path}})
	if err != nil {
		return "", err
	}
	examples := map[string]string{}
	for key, s := range c.settings {
		if s.at.file != "" {
			examples[key] = written(key, s)
		}
		blocks, _ := s.value.([]*block)
		for _, b := range blocks {
			for inner, s := range b.set {
				if name := s.key.Path; s.at.file != "" {
					examples[tableOf(key)+"."+name] = written(inner, s)
				}
			}
		}
	}
	var b strings.Builder
	for _, part := range []struct {
		title, intro string
		is           func(Key) bool
	}{
		{"KEYS OF MEIBO", "What Consul has no key for.", func(k Key) bool { return k.Own && isInForce(k) }},
		{"KEYS OF CONSUL", "The names, types and defaults are those of Consul's agent.", func(k Key) bool { return !k.Own && isInForce(k) }},
		{"KEYS THAT WAIT", "Read and checked; the part that they are of is not there yet, and a warning says so where that matters.",
			func(k Key) bool { return k.Status == Planned || k.Status == Waiting }},
		{"KEYS WITHOUT EFFECT", "Accepted, so that a configuration of Consul's can stay as it is; a warning says so where one would expect an effect.",
			func(k Key) bool { return k.Status == Moot || k.Status == Ignored || k.Status == Guard }},
		{"OLD NAMES", "Each stands for another key.", func(k Key) bool { return k.Status == Legacy }},
	} {
		fmt.Fprintf(&b, "# %s\n%s\n\n", part.title, part.intro)
		keys := slices.DeleteFunc(Keys(), func(k Key) bool { return !part.is(k) })
		slices.SortStableFunc(keys, func(x, y Key) int { return cmp.Compare(x.Path, y.Path) })
		for _, k := range keys {
			entryOf(&b, k, examples[k.Path])
		}
	}
	return b.String(), nil
}

func isInForce(k Key) bool { return k.Status == Used }

// tableOf is the table that the blocks of a key are read by: services are each a service.
func tableOf(key string) string {
	if k := tables[""].byPath[key]; k != nil && k.Of != "" {
		return k.Of
	}
	return key
}

func entryOf(b *strings.Builder, k Key, example string) {
	fmt.Fprintf(b, "**%s**\n: ", k.Path)
	if k.Status == Legacy {
		fmt.Fprintf(b, "The older name of **%s**. %s\n\n", k.Goes, k.Note)
		return
	}
	text := cmp.Or(k.Doc, "No description.")
	if k.Note != "" && k.Status != Used {
		text += " " + strings.ToUpper(k.Note[:1]) + strings.TrimSuffix(k.Note[1:], ".") + "."
	}
	facts := []string{k.Type.named()}
	if k.Range != "" {
		facts = append(facts, "range `"+k.Range+"`")
	}
	if len(k.Choices) > 0 {
		facts = append(facts, "one of `"+strings.Join(k.Choices, "`, `")+"`")
	}
	if k.Default != "" {
		facts = append(facts, "default `"+k.Default+"`")
	} else {
		facts = append(facts, "no default")
	}
	if k.Flag != "" {
		facts = append(facts, "flag `-"+k.Flag+"`")
	}
	if k.Reload {
		facts = append(facts, "taken by a reload")
	}
	if len(k.Aliases) > 0 {
		facts = append(facts, "also `"+strings.Join(k.Aliases, "`, `")+"`")
	}
	fmt.Fprintf(b, "%s (%s)\n\n", text, strings.Join(facts, "; "))
	if example != "" {
		fmt.Fprintf(b, "    %s\n\n", strings.ReplaceAll(example, "\n", "\n    "))
	}
}

// named is what the manual calls the type.
func (t Type) named() string {
	if t == String {
		return "a string"
	}
	if t == Any {
		return "anything"
	}
	return strings.ReplaceAll(t.expected(), "\"", "`")
}

// written is a setting as a file has it.
func written(path string, s *setting) string {
	name, close := path, ""
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		name, close = strings.ReplaceAll(path[:i], ".", " { ")+" { "+path[i+1:], strings.Repeat(" }", 1+strings.Count(path[:i], "."))
	}
	if blocks, ok := s.value.([]*block); ok {
		if len(blocks) == 0 {
			return ""
		}
		label := ""
		if blocks[0].label != "" {
			label = " " + strconv.Quote(blocks[0].label)
		}
		return name + label + " { ... }" + close
	}
	return name + " = " + value(s.value) + close
}

func value(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case time.Duration:
		return strconv.Quote(brief(v))
	case []entry:
		var all []string
		for _, e := range v {
			all = append(all, strconv.Quote(e.text))
		}
		return "[" + strings.Join(all, ", ") + "]"
	case map[string]string:
		return pairs(v, strconv.Quote)
	case map[string]time.Duration:
		return pairs(v, func(d time.Duration) string { return strconv.Quote(brief(d)) })
	case map[string][]string:
		return pairs(v, func(list []string) string {
			var all []string
			for _, s := range list {
				all = append(all, strconv.Quote(s))
			}
			return "[" + strings.Join(all, ", ") + "]"
		})
	case []*tree:
		return "..."
	}
	return fmt.Sprint(v)
}

// brief is a duration without what is zero.
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func pairs[V any](m map[string]V, text func(V) string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, strconv.Quote(k)+" = "+text(m[k]))
	}
	return "{ " + strings.Join(all, ", ") + " }"
}
