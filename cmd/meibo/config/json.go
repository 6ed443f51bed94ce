package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
)

// maxDepth bounds nesting: a deeper file is no configuration, and both parsers
// recurse.
const maxDepth = 64

// parseJSON reads one JSON object. It keeps the order of keys and, unlike
// encoding/json's own decoding, the line of every key and value.
func parseJSON(file string, data []byte) (*tree, *Fault) {
	p := &jsonParser{file: file, dec: json.NewDecoder(bytes.NewReader(data)), lines: newLines(data)}
	p.dec.UseNumber()
	t, err := p.value(0)
	if err != nil {
		return nil, p.fault(err)
	}
	if t.shape == shapeNull { // as Consul takes it
		t.shape = shapeObject
	}
	if t.shape != shapeObject {
		return nil, &Fault{File: file, Line: t.at.line, Expected: "a JSON object", Got: t.describe(true)}
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &Fault{File: file, Line: p.at().line, Text: "parse JSON: text after the closing brace"}
	}
	return t, nil
}

type jsonParser struct {
	file  string
	dec   *json.Decoder
	lines lines
}

// at is the place of the token just read: tokens hold no line breaks.
func (p *jsonParser) at() position {
	return position{p.file, p.lines.of(int(p.dec.InputOffset()) - 1)}
}

func (p *jsonParser) value(depth int) (*tree, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	tok, err := p.dec.Token()
	if err != nil {
		return nil, err
	}
	t := &tree{at: p.at()}
	switch v := tok.(type) {
	case json.Delim:
		if v == '[' {
			return t, p.array(t, depth)
		}
		return t, p.object(t, depth)
	case string:
		t.shape, t.text = shapeString, v
	case json.Number:
		t.shape, t.text = shapeNumber, v.String()
	case bool:
		t.shape, t.text = shapeBool, fmt.Sprint(v)
	}
	return t, nil
}

func (p *jsonParser) array(t *tree, depth int) error {
	t.shape = shapeList
	for p.dec.More() {
		e, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		t.list = append(t.list, e)
	}
	_, err := p.dec.Token()
	return err
}

func (p *jsonParser) object(t *tree, depth int) error {
	t.shape = shapeObject
	for p.dec.More() {
		tok, err := p.dec.Token()
		if err != nil {
			return err
		}
		f := field{key: tok.(string), at: p.at()}
		if f.tree, err = p.value(depth + 1); err != nil {
			return err
		}
		t.fields = append(t.fields, f)
	}
	_, err := p.dec.Token()
	return err
}

// fault says where and why the text is no JSON, quoting none of it.
func (p *jsonParser) fault(err error) *Fault {
	line := p.lines.of(int(p.dec.InputOffset()))
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		line = p.lines.of(int(syntax.Offset) - 1)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Fault{File: p.file, Line: p.lines.last(), Text: "parse JSON: the file ends within an object, list or string"}
	}
	return &Fault{File: p.file, Line: line, Text: "parse JSON: " + err.Error()}
}

// lines finds the line of an offset.
type lines []int // offsets of the line breaks

func newLines(data []byte) lines {
	var l lines
	for i, c := range data {
		if c == '\n' {
			l = append(l, i)
		}
	}
	return l
}

func (l lines) of(offset int) int { return 1 + sort.SearchInts(l, offset) }

func (l lines) last() int { return 1 + len(l) }
