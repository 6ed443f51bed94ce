package config

import "fmt"

// position is a place in a source.
type position struct {
	file string
	line int
}

// shape is what kind of thing was written.
type shape uint8

const (
	shapeNull shape = iota
	shapeString
	shapeNumber
	shapeBool
	shapeList
	shapeObject
	shapeText // from a flag: any scalar, still to be parsed
)

// tree is a configuration as written, the same for HCL, JSON and flags.
type tree struct {
	shape  shape
	at     position
	text   string  // string, number as written, "true" or "false"
	list   []*tree // shapeList
	fields []field // shapeObject, in the order written; keys may repeat
}

// field is one key of an object.
type field struct {
	key  string
	at   position
	tree *tree
}

// describe says what a tree is, for "got …". It shows no value of a secret.
func (t *tree) describe(secret bool) string {
	switch t.shape {
	case shapeString, shapeText:
		if secret {
			return "another string"
		}
		if t.shape == shapeText {
			return fmt.Sprintf("%q", shorten(t.text))
		}
		return fmt.Sprintf("the string %q", shorten(t.text))
	case shapeNumber:
		if secret {
			return "a number"
		}
		return "the number " + shorten(t.text)
	case shapeBool:
		return t.text
	case shapeList:
		if len(t.list) == 1 {
			return "a list of 1"
		}
		return fmt.Sprintf("a list of %d", len(t.list))
	case shapeObject:
		return "a block"
	}
	return "null"
}

func shorten(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// value returns t as plain Go values: map, slice, string, float64, int64, bool.
func (t *tree) value() any {
	switch t.shape {
	case shapeString, shapeText:
		return t.text
	case shapeBool:
		return t.text == "true"
	case shapeNumber:
		if n, ok := t.integer(); ok {
			return n
		}
		f, _ := t.number()
		return f
	case shapeList:
		list := make([]any, len(t.list))
		for i, e := range t.list {
			list[i] = e.value()
		}
		return list
	case shapeObject:
		m := make(map[string]any, len(t.fields))
		for _, f := range t.fields {
			v := f.tree.value()
			switch old := m[f.key].(type) {
			case map[string]any: // a block repeated is a list of blocks
				v = []any{old, v}
			case []any:
				v = append(old, v)
			}
			m[f.key] = v
		}
		return m
	}
	return nil
}

// objects returns t as the blocks it stands for: one block, or a list of them.
func (t *tree) objects() ([]*tree, bool) {
	switch t.shape {
	case shapeObject:
		return []*tree{t}, true
	case shapeList:
		for _, e := range t.list {
			if e.shape != shapeObject {
				return nil, false
			}
		}
		return t.list, true
	}
	return nil, false
}

// only unpacks a list of one, which HCL makes of a block and JSON files carry
// along.
func (t *tree) only() *tree {
	if t.shape == shapeList && len(t.list) == 1 {
		return t.list[0]
	}
	return t
}
