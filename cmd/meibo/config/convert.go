package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// conversion turns one tree into the value of one key, and reports what is
// wrong with it.
type conversion struct {
	decoder
	key  *Key
	path string
	at   position
	// element is set within a map, where path names the element.
	element bool
}

// wrong reports t and returns false.
func (c conversion) wrong(t *tree, expected, suggest string) bool {
	at := t.at
	if at.line == 0 || at.file == "" {
		at = c.at
	}
	c.fault(&Fault{File: at.file, Line: at.line, Key: c.path, Expected: expected, Got: t.describe(c.key.Secret), Suggest: suggest})
	return false
}

// expected says what the key takes, of a map's element what the element takes.
func (c conversion) expected() string {
	if c.element {
		return map[Type]string{StringMap: "a string", DurationMap: (&Key{Type: Duration, Range: c.key.Range}).expected(), ListMap: Strings.expected()}[c.key.Type]
	}
	return c.key.expected()
}

func (c conversion) convert(t *tree) (any, bool) {
	v, ok := c.typed(t)
	if !ok || c.key.check == nil {
		return v, ok
	}
	list, isList := v.([]entry)
	if !isList {
		if expected := c.key.check(v); expected != "" {
			return nil, c.wrong(t.only(), expected, "")
		}
		return v, true
	}
	for i, e := range list {
		if expected := c.key.check(e.text); expected != "" {
			ok = c.wrong(&tree{shape: shapeString, text: e.text, at: list[i].at}, expected, "")
		}
	}
	return v, ok
}

func (c conversion) typed(t *tree) (any, bool) {
	switch c.key.Type {
	case Any:
		return []*tree{t}, true
	case Strings:
		return c.strings(t)
	case StringMap:
		return convertMap(c, t, conversion.text)
	case DurationMap:
		return convertMap(c, t, conversion.duration)
	case ListMap:
		return convertMap(c, t, conversion.plainStrings)
	case Blocks:
		return c.blocks(t)
	case Named:
		return c.named(t)
	}
	return c.scalar(t.only())
}

func (c conversion) scalar(t *tree) (any, bool) {
	switch c.key.Type {
	case Bool:
		return c.boolean(t)
	case Int:
		return c.integer(t)
	case Number:
		return c.number(t)
	case Duration:
		return c.duration(t)
	case Size:
		return c.size(t)
	}
	s, ok := c.text(t)
	if !ok || len(c.key.Choices) == 0 {
		return s, ok
	}
	return c.choice(t, s)
}

func (c conversion) text(t *tree) (string, bool) {
	if t.shape != shapeString && t.shape != shapeText {
		return "", c.wrong(t, c.expected(), "")
	}
	return t.text, true
}

// choice returns the table's spelling of s. Consul takes "" for unset.
func (c conversion) choice(t *tree, s string) (any, bool) {
	if s == "" {
		return c.key.Default, true
	}
	word := s
	if o, ok := c.key.spellings[strings.ToUpper(s)]; ok {
		word = o
	}
	for _, choice := range c.key.Choices {
		if strings.EqualFold(word, choice) {
			return choice, true
		}
	}
	return nil, c.wrong(t, c.expected(), "")
}

func (c conversion) boolean(t *tree) (any, bool) {
	switch t.shape {
	case shapeBool:
		return t.text == "true", true
	case shapeText:
		if b, err := strconv.ParseBool(t.text); err == nil {
			return b, true
		}
	}
	return nil, c.wrong(t, c.expected(), "")
}

func (c conversion) integer(t *tree) (any, bool) {
	n, ok := t.integer()
	if !ok || !c.inRange(float64(n), func(s string) float64 { f, _ := strconv.ParseFloat(s, 64); return f }) {
		suggest := ""
		if n, ok := (&tree{shape: shapeNumber, text: t.text}).integer(); ok && t.shape == shapeString && !c.key.Secret {
			suggest = strconv.FormatInt(n, 10)
		}
		return nil, c.wrong(t, c.expected(), suggest)
	}
	return n, true
}

// integer returns a whole number, however it is written.
func (t *tree) integer() (int64, bool) {
	if t.shape != shapeNumber && t.shape != shapeText {
		return 0, false
	}
	if n, err := strconv.ParseInt(t.text, 0, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(t.text, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

func (t *tree) number() (float64, bool) {
	if t.shape != shapeNumber && t.shape != shapeText {
		return 0, false
	}
	if n, err := strconv.ParseInt(t.text, 0, 64); err == nil {
		return float64(n), true
	}
	f, err := strconv.ParseFloat(t.text, 64)
	return f, err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
}

func (c conversion) number(t *tree) (any, bool) {
	f, ok := t.number()
	if !ok {
		return nil, c.wrong(t, c.expected(), "")
	}
	return f, true
}

// duration parses Go's form; Consul's files hold no other. An empty string is
// taken for zero, as Consul does.
func (c conversion) duration(t *tree) (time.Duration, bool) {
	if t.shape == shapeNumber {
		suggest := ""
		if n, ok := t.integer(); ok && n > 0 {
			suggest = fmt.Sprintf(`"%ds"`, n)
		}
		return 0, c.wrong(t, Duration.expected(), suggest)
	}
	if t.shape != shapeString && t.shape != shapeText {
		return 0, c.wrong(t, c.expected(), "")
	}
	if t.text == "" {
		return 0, true
	}
	v, err := time.ParseDuration(t.text)
	if err != nil {
		return 0, c.wrong(t, Duration.expected(), "")
	}
	if !c.inRange(float64(v), parseBoundDuration) {
		return 0, c.wrong(t, c.expected(), "")
	}
	return v, true
}

func parseBoundDuration(s string) float64 {
	v, _ := time.ParseDuration(s)
	return float64(v)
}

// inRange compares with the bounds of the key's Range.
func (c conversion) inRange(v float64, bound func(string) float64) bool {
	low, high, ok := strings.Cut(c.key.Range, "..")
	if !ok {
		return true
	}
	return v >= bound(low) && (high == "" || v <= bound(high))
}

func (c conversion) size(t *tree) (any, bool) {
	n, ok := t.integer()
	if !ok && (t.shape == shapeString || t.shape == shapeText) {
		n, ok = parseSize(t.text)
	}
	if !ok || n < 0 || !c.inRange(float64(n), func(s string) float64 { n, _ := parseSize(s); return float64(n) }) {
		return nil, c.wrong(t, c.expected(), "")
	}
	return n, true
}

var units = []struct {
	name   string
	factor int64
}{{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"kb", 1000}, {"mb", 1000_000}, {"gb", 1000_000_000}, {"b", 1}, {"", 1}}

// parseSize reads "16MiB", "500 kB" or "4096".
func parseSize(s string) (int64, bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.factor {
			return 0, false
		}
		return n * u.factor, true
	}
	return 0, false
}

func (c conversion) strings(t *tree) (any, bool) {
	if t.shape == shapeText {
		return []entry{{t.text, t.at}}, true
	}
	if t.shape != shapeList {
		suggest := ""
		if t.shape == shapeString && !c.key.Secret {
			suggest = fmt.Sprintf("[%q]", shorten(t.text))
		}
		c.fault(&Fault{File: t.at.file, Line: t.at.line, Key: c.path, Expected: c.expected(), Got: t.describe(c.key.Secret), Suggest: suggest})
		return nil, false
	}
	list := make([]entry, 0, len(t.list))
	for _, e := range t.list {
		e = e.only()
		if e.shape != shapeString && e.shape != shapeText {
			return nil, c.wrong(e, "a list of strings", "")
		}
		list = append(list, entry{e.text, e.at})
	}
	return list, true
}

func (c conversion) plainStrings(t *tree) ([]string, bool) {
	v, ok := c.strings(t)
	if !ok {
		return nil, false
	}
	return texts(v.([]entry)), true
}

func texts(list []entry) []string {
	if list == nil {
		return nil
	}
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = e.text
	}
	return out
}

// convertMap reads a block whose keys are free.
func convertMap[V any](c conversion, t *tree, each func(conversion, *tree) (V, bool)) (any, bool) {
	objects, ok := t.objects()
	if !ok {
		return nil, c.wrong(t, c.expected(), "")
	}
	m := map[string]V{}
	for _, o := range objects {
		for _, f := range o.fields {
			inner := c
			inner.path, inner.at, inner.element = c.path+"."+f.key, f.at, true
			value := f.tree
			if c.key.Type != ListMap {
				value = value.only()
			}
			v, good := each(inner, value)
			ok = ok && good
			m[f.key] = v
		}
	}
	return m, ok
}

// blocks reads one block or a list of them. Each is a definition, which is left out by
// itself if it is no block at all.
func (c conversion) blocks(t *tree) (any, bool) {
	elements := t.list
	if t.shape != shapeList {
		elements = []*tree{t}
	}
	list := make([]*block, 0, len(elements))
	for _, e := range elements {
		b := &block{at: e.at, set: settings{}}
		list = append(list, b)
		c.within(b, func() {
			if e.shape == shapeObject {
				c.inner(b, e)
				return
			}
			if b.at.line == 0 {
				b.at = c.at
			}
			b.bad = !c.wrong(e, "a block or a list of blocks", "")
		})
	}
	return list, true
}

// named reads blocks that have a label each.
func (c conversion) named(t *tree) (any, bool) {
	expected := fmt.Sprintf("a block with a label, %s \"…\" { … }", c.key.Path)
	objects, ok := t.objects()
	if !ok {
		return nil, c.wrong(t, expected, "")
	}
	var list []*block
	for _, o := range objects {
		for _, f := range o.fields {
			inner, ok := f.tree.objects()
			if !ok {
				c.fault(&Fault{File: f.at.file, Line: f.at.line, Key: c.path, Expected: expected, Got: fmt.Sprintf("%q without one", shorten(f.key))})
				return nil, false
			}
			for _, b := range inner {
				bl := &block{label: f.key, at: b.at, set: settings{}}
				c.inner(bl, b)
				list = append(list, bl)
			}
		}
	}
	return list, true
}

// inner decodes one block by its sub-table.
func (c conversion) inner(b *block, t *tree) {
	tab := tables[c.key.Of]
	shown := strings.TrimSuffix(c.path, c.key.Path) + c.key.Of + "."
	before := c.found
	defer func() { b.bad = c.found > before }()
	if n := t.labelled(tab); n != "" {
		b.label = n
		c.fault(&Fault{File: b.at.file, Line: b.at.line, Key: strings.TrimSuffix(shown, "."),
			Expected: "a block without a label", Got: fmt.Sprintf("the label %q", shorten(n)), Suggest: fmt.Sprintf("%s { name = %q … }", c.key.Of, shorten(n))})
		return
	}
	c.block(tab, shown, "", t, b.set)
	c.modernize(tab, shown, b.set)
}

// labelled returns the label of `service "web" { … }`, which Consul refuses.
func (t *tree) labelled(tab *table) string {
	if len(t.fields) != 1 || t.fields[0].tree.shape != shapeObject {
		return ""
	}
	key := strings.ToLower(t.fields[0].key)
	if tab.byPath[key] != nil || tab.groups[key] || tab.nearest(key) != "" {
		return ""
	}
	return t.fields[0].key
}

func joinDurations(a, b any) any {
	if m, ok := a.(map[string]time.Duration); ok {
		return joinMaps(m, b)
	}
	return nil
}
