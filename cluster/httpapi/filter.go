package httpapi

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-bexpr/grammar"
)

// Bounds of ?filter: an expression is parsed by backtracking and evaluated per item.
const (
	maxFilter      = 4 << 10
	maxFilterDepth = 16
	maxFilterSteps = 200_000 // of the parser, some 10 ms
)

// filter is a parsed ?filter expression; nil passes everything.
//
// The language is go-bexpr's, evaluated here as Consul's version of it does, which later
// ones don't: a selector reaches into a list ("Checks.Status == critical": any check is),
// and what an item lacks (a key of a map, a part that is nil) matches as if it were empty.
type filter struct{ expression grammar.Expression }

func parseFilter(r *request) (*filter, error) {
	expr := r.query.Get("filter")
	switch {
	case expr == "":
		return nil, nil
	case len(expr) > maxFilter:
		return nil, badFilter(fmt.Errorf("the filter has %d bytes, more than %d", len(expr), maxFilter))
	case depth(expr) > maxFilterDepth:
		return nil, badFilter(fmt.Errorf("the filter is nested deeper than %d", maxFilterDepth))
	}
	ast, err := grammar.Parse("", []byte(expr), grammar.MaxExpressions(maxFilterSteps))
	if err != nil {
		return nil, badFilter(err)
	}
	return &filter{ast.(grammar.Expression)}, nil
}

func badFilter(err error) error {
	return badRequest("Failed to create boolean expression evaluator: %v", err)
}

// depth counts how deep brackets nest, quotes not looked at: too high at worst.
func depth(expr string) int {
	deepest, now := 0, 0
	for _, c := range expr {
		switch c {
		case '(', '{':
			now++
			deepest = max(deepest, now)
		case ')', '}':
			now--
		}
	}
	return deepest
}

// apply keeps the items that pass. A selector that cannot exist is an error even where
// there is nothing to filter.
func apply[T any](f *filter, items []T) ([]T, error) {
	if f == nil {
		return items, nil
	}
	match, err := compile(f.expression, reflect.TypeFor[T]())
	if err != nil {
		return nil, badFilter(err)
	}
	return slices.DeleteFunc(items, func(item T) bool { return !match(reflect.ValueOf(item)) }), nil
}

// matcher tells whether an item passes.
type matcher func(item reflect.Value) bool

func compile(e grammar.Expression, item reflect.Type) (matcher, error) {
	switch e := e.(type) {
	case *grammar.UnaryExpression:
		m, err := compile(e.Operand, item)
		return func(v reflect.Value) bool { return !m(v) }, err
	case *grammar.BinaryExpression:
		left, err := compile(e.Left, item)
		if err != nil {
			return nil, err
		}
		right, err := compile(e.Right, item)
		if e.Operator == grammar.BinaryOpOr {
			return func(v reflect.Value) bool { return left(v) || right(v) }, err
		}
		return func(v reflect.Value) bool { return left(v) && right(v) }, err
	case *grammar.MatchExpression:
		return compileMatch(e, item)
	case *grammar.CollectionExpression:
		return nil, errors.New("any and all are not part of Consul's filters; select into the list instead, as in Checks.Status == \"critical\"")
	}
	return nil, fmt.Errorf("unknown expression %T", e)
}

func compileMatch(e *grammar.MatchExpression, item reflect.Type) (matcher, error) {
	found, ok := selected(item, e.Selector.Path)
	if !ok {
		return nil, fmt.Errorf("Selector %q is not valid", strings.Join(e.Selector.Path, ".")) //lint:ignore ST1005 Consul's words
	}
	absent := e.Operator.NotPresentDisposition()
	if found == nil {
		return func(reflect.Value) bool { return absent }, nil
	}
	compare, err := comparison(e, found)
	if err != nil {
		return nil, err
	}
	return func(v reflect.Value) bool { return reach(v, e.Selector.Path, absent, compare) }, nil
}

// elsewhere are what items have in Consul and never here: selectors of them, and of all
// below, are valid and find nothing.
var elsewhere = map[reflect.Type][]string{
	reflect.TypeFor[nodeShape]():           {"PeerName", "Partition"},
	reflect.TypeFor[serviceShape]():        {"Proxy", "Connect", "PeerName", "Namespace", "Partition"},
	reflect.TypeFor[agentServiceShape]():   {"Proxy", "Connect", "PeerName", "CreateIndex", "ModifyIndex", "Namespace", "Partition"},
	reflect.TypeFor[catalogServiceShape](): {"ServiceProxy", "ServiceConnect", "PeerName", "Namespace", "Partition"},
	reflect.TypeFor[checkShape]():          {"PeerName", "Namespace", "Partition"},
}

// selected finds the type that a selector leads to: nil for a part that never exists here.
func selected(t reflect.Type, path []string) (found reflect.Type, ok bool) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if len(path) == 0 {
		return t, true
	}
	switch t.Kind() {
	case reflect.Struct:
		if slices.Contains(elsewhere[t], path[0]) {
			if len(path) == 1 && path[0] == "PeerName" { // what has no peer has an empty one
				return reflect.TypeFor[string](), true
			}
			return nil, true
		}
		if f, ok := t.FieldByName(path[0]); ok && f.IsExported() && f.Tag.Get("json") != "-" {
			return selected(f.Type, path[1:])
		}
	case reflect.Map:
		return selected(t.Elem(), path[1:])
	case reflect.Slice:
		return selected(t.Elem(), path)
	}
	return nil, false
}

// reach applies compare to what the path leads to, to any of them in a list.
func reach(v reflect.Value, path []string, absent bool, compare matcher) bool {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return absent
		}
		v = v.Elem()
	}
	if len(path) == 0 {
		return compare(v)
	}
	switch v.Kind() {
	case reflect.Map:
		entry := v.MapIndex(reflect.ValueOf(path[0]))
		if !entry.IsValid() {
			return absent
		}
		return reach(entry, path[1:], absent, compare)
	case reflect.Slice:
		for i := range v.Len() {
			if reach(v.Index(i), path, absent, compare) {
				return true
			}
		}
		return false
	}
	field, ok := v.Type().FieldByName(path[0])
	if !ok { // a PeerName
		return reach(reflect.ValueOf(""), path[1:], absent, compare)
	}
	value, err := v.FieldByIndexErr(field.Index)
	if err != nil { // of a definition that the check doesn't have
		value = reflect.Zero(field.Type)
	}
	return reach(value, path[1:], absent, compare)
}

// comparison makes what the operator asks of a value of this type.
func comparison(e *grammar.MatchExpression, t reflect.Type) (matcher, error) {
	value := ""
	if e.Value != nil {
		value = e.Value.Raw
	}
	positive, negated := e.Operator, true
	switch e.Operator {
	case grammar.MatchNotEqual:
		positive = grammar.MatchEqual
	case grammar.MatchNotIn, grammar.MatchNotContains, grammar.MatchContains:
		positive, negated = grammar.MatchIn, e.Operator != grammar.MatchContains
	case grammar.MatchIsNotEmpty:
		positive = grammar.MatchIsEmpty
	case grammar.MatchNotMatches:
		positive = grammar.MatchMatches
	default:
		negated = false
	}
	m, err := positively(positive, t, value)
	if m == nil && err == nil {
		err = fmt.Errorf("Invalid match operator %q for selector %q", e.Operator, strings.Join(e.Selector.Path, ".")) //lint:ignore ST1005 Consul's words
	}
	if negated {
		return func(v reflect.Value) bool { return !m(v) }, err
	}
	return m, err
}

// positively compares with a value; nil if that can't be asked of the type.
func positively(op grammar.MatchOperator, t reflect.Type, value string) (matcher, error) {
	switch op {
	case grammar.MatchEqual:
		return equal(t, value)
	case grammar.MatchIsEmpty:
		switch t.Kind() {
		case reflect.String, reflect.Slice, reflect.Map:
			return func(v reflect.Value) bool { return v.Len() == 0 }, nil
		}
	case grammar.MatchMatches:
		if t.Kind() == reflect.String {
			re, err := regexp.Compile(value)
			return func(v reflect.Value) bool { return re.MatchString(v.String()) }, err
		}
	case grammar.MatchIn:
		switch {
		case t.Kind() == reflect.String:
			return func(v reflect.Value) bool { return strings.Contains(v.String(), value) }, nil
		case t.Kind() == reflect.Map:
			return func(v reflect.Value) bool { return v.MapIndex(reflect.ValueOf(value)).IsValid() }, nil
		case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String:
			return func(v reflect.Value) bool { return slices.Contains(v.Interface().([]string), value) }, nil
		}
	}
	return nil, nil
}

func equal(t reflect.Type, value string) (matcher, error) {
	switch {
	case t.Kind() == reflect.String:
		return func(v reflect.Value) bool { return v.String() == value }, nil
	case t.Kind() == reflect.Bool:
		want, err := strconv.ParseBool(value)
		return func(v reflect.Value) bool { return v.Bool() == want }, err
	case t.Kind() <= reflect.Int64: // signed ones come first
		want, err := strconv.ParseInt(value, 0, 64)
		return func(v reflect.Value) bool { return v.Int() == want }, err
	case t.Kind() <= reflect.Uint64:
		want, err := strconv.ParseUint(value, 0, 64)
		return func(v reflect.Value) bool { return v.Uint() == want }, err
	}
	return nil, nil
}
