package config

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/parser"
	"github.com/hashicorp/hcl/hcl/token"
)

// parseHCL reads HCL 1. The library panics on some texts; that is reported as
// a fault of the file.
func parseHCL(file string, data []byte) (t *tree, fault *Fault) {
	defer func() {
		if r := recover(); r != nil {
			t, fault = nil, &Fault{File: file, Text: "parse HCL: text that the parser cannot read"}
		}
	}()
	if n := depthHCL(data); n > maxDepth {
		return nil, &Fault{File: file, Text: fmt.Sprintf("parse HCL: nested deeper than %d", maxDepth)}
	}
	root, err := parser.Parse(data)
	if err != nil {
		return nil, faultHCL(file, err)
	}
	list, ok := root.Node.(*ast.ObjectList)
	if !ok {
		return nil, &Fault{File: file, Text: "parse HCL: no keys at the top of the file"}
	}
	h := hclReader{file}
	t, err = h.object(list, position{file, 1})
	if err != nil {
		return nil, faultHCL(file, err)
	}
	return t, nil
}

// depthHCL bounds the nesting of brackets from above, strings and comments
// included, so that the recursive parser can't exhaust the stack.
func depthHCL(data []byte) int {
	depth, most := 0, 0
	for _, c := range data {
		switch c {
		case '{', '[':
			depth++
			most = max(most, depth)
		case '}', ']':
			depth = max(0, depth-1)
		}
	}
	return most
}

// quoted matches what a parser may quote of the file, which may be a secret.
var quoted = regexp.MustCompile(`(?s)"(?:[^"\\]|\\.)*"?|key '.*'`)

func faultHCL(file string, err error) *Fault {
	f := &Fault{File: file}
	var pos *parser.PosError
	if errors.As(err, &pos) {
		f.Line, err = pos.Pos.Line, pos.Err
	}
	f.Text = "parse HCL: " + quoted.ReplaceAllString(err.Error(), `"…"`)
	return f
}

type hclReader struct{ file string }

func (h hclReader) at(p token.Pos) position { return position{h.file, p.Line} }

// object turns the items of a block into fields; `a "b" { }` becomes a field
// a with the field b.
func (h hclReader) object(list *ast.ObjectList, at position) (*tree, error) {
	t := &tree{shape: shapeObject, at: at}
	for _, item := range list.Items {
		if len(item.Keys) == 0 {
			return nil, errors.New("a block without a key")
		}
		v, err := h.value(item.Val)
		if err != nil {
			return nil, err
		}
		for i := len(item.Keys) - 1; i > 0; i-- {
			k, err := h.key(item.Keys[i])
			if err != nil {
				return nil, err
			}
			k.tree = v
			v = &tree{shape: shapeObject, at: k.at, fields: []field{k}}
		}
		f, err := h.key(item.Keys[0])
		if err != nil {
			return nil, err
		}
		f.tree = v
		t.fields = append(t.fields, f)
	}
	return t, nil
}

func (h hclReader) key(k *ast.ObjectKey) (field, error) {
	name, ok := k.Token.Value().(string)
	if !ok {
		return field{}, &parser.PosError{Pos: k.Token.Pos, Err: errors.New("a key that is no name")}
	}
	return field{key: name, at: h.at(k.Token.Pos)}, nil
}

func (h hclReader) value(n ast.Node) (*tree, error) {
	switch n := n.(type) {
	case *ast.ObjectType:
		return h.object(n.List, h.at(n.Lbrace))
	case *ast.ListType:
		t := &tree{shape: shapeList, at: h.at(n.Lbrack)}
		for _, e := range n.List {
			v, err := h.value(e)
			if err != nil {
				return nil, err
			}
			t.list = append(t.list, v)
		}
		return t, nil
	case *ast.LiteralType:
		return h.literal(n)
	}
	return nil, fmt.Errorf("a value that is none")
}

func (h hclReader) literal(n *ast.LiteralType) (*tree, error) {
	t := &tree{at: h.at(n.Token.Pos), text: n.Token.Text}
	switch n.Token.Type {
	case token.STRING, token.HEREDOC:
		s, ok := n.Token.Value().(string)
		if !ok {
			return nil, &parser.PosError{Pos: n.Token.Pos, Err: errors.New("a string that cannot be read")}
		}
		t.shape, t.text = shapeString, s
	case token.NUMBER, token.FLOAT:
		t.shape = shapeNumber
	case token.BOOL:
		t.shape = shapeBool
	default:
		return nil, &parser.PosError{Pos: n.Token.Pos, Err: errors.New("a value of no known kind")}
	}
	return t, nil
}
