package httpapi

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-bexpr"
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
// Consul's own filters let a selector reach into a list ("Checks.Status == critical": any
// check is), which this version of the expression language no longer does. So the logical
// operators are walked here, and such a comparison is put to the language as "any".
type filter interface {
	match(item any) (bool, error)
}

func parseFilter(r *request) (filter, error) {
	expr := r.query.Get("filter")
	switch {
	case expr == "":
		return nil, nil
	case len(expr) > maxFilter:
		return nil, badRequest("Failed to create boolean expression evaluator: the filter has %d bytes, more than %d", len(expr), maxFilter)
	case depth(expr) > maxFilterDepth:
		return nil, badRequest("Failed to create boolean expression evaluator: the filter is nested deeper than %d", maxFilterDepth)
	}
	ast, err := grammar.Parse("", []byte(expr), grammar.MaxExpressions(maxFilterSteps))
	if err != nil {
		return nil, badRequest("Failed to create boolean expression evaluator: %v", err)
	}
	f, err := compile(ast.(grammar.Expression), expr)
	if err != nil {
		return nil, badRequest("Failed to create boolean expression evaluator: %v", err)
	}
	return f, nil
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

func compile(e grammar.Expression, whole string) (filter, error) {
	switch e := e.(type) {
	case *grammar.UnaryExpression:
		f, err := compile(e.Operand, whole)
		return not{f}, err
	case *grammar.BinaryExpression:
		left, err := compile(e.Left, whole)
		if err != nil {
			return nil, err
		}
		right, err := compile(e.Right, whole)
		return binary{left, right, e.Operator}, err
	case *grammar.MatchExpression:
		return newLeaf(matchText(e))
	case *grammar.CollectionExpression:
		// Only as the whole expression: it has no text of its own to hand on.
		if strings.HasPrefix(strings.TrimSpace(whole), "any ") || strings.HasPrefix(strings.TrimSpace(whole), "all ") {
			return newLeaf(whole)
		}
		return nil, errors.New("any and all cannot be combined with other comparisons here; select into the list instead, as in Checks.Status == \"critical\"")
	}
	return nil, fmt.Errorf("unknown expression %T", e)
}

type not struct{ filter }

func (n not) match(item any) (bool, error) {
	ok, err := n.filter.match(item)
	return !ok, err
}

type binary struct {
	left, right filter
	op          grammar.BinaryOperator
}

func (b binary) match(item any) (bool, error) {
	ok, err := b.left.match(item)
	if err != nil || ok == (b.op == grammar.BinaryOpOr) {
		return ok, err
	}
	return b.right.match(item)
}

type leaf struct{ *bexpr.Evaluator }

func newLeaf(text string) (filter, error) {
	ev, err := bexpr.CreateEvaluator(text, bexpr.WithMaxExpressions(maxFilterSteps))
	return leaf{ev}, err
}

func (l leaf) match(item any) (bool, error) { return l.Evaluate(item) }

// matchText writes one comparison, with "any" in front if it reaches into the checks.
func matchText(e *grammar.MatchExpression) string {
	path := e.Selector.Path
	if len(path) > 1 && path[0] == "Checks" {
		if _, err := strconv.Atoi(path[1]); err != nil {
			return "any Checks as item { " + comparison("item"+indexes(path[1:]), e) + " }"
		}
	}
	return comparison(path[0]+indexes(path[1:]), e)
}

func indexes(path []string) string {
	var b strings.Builder
	for _, p := range path {
		fmt.Fprintf(&b, "[%q]", p)
	}
	return b.String()
}

func comparison(selector string, e *grammar.MatchExpression) string {
	value := ""
	if e.Value != nil {
		value = strconv.Quote(e.Value.Raw)
	}
	switch e.Operator {
	case grammar.MatchEqual:
		return selector + " == " + value
	case grammar.MatchNotEqual:
		return selector + " != " + value
	case grammar.MatchIn:
		return value + " in " + selector
	case grammar.MatchNotIn:
		return value + " not in " + selector
	case grammar.MatchContains:
		return selector + " contains " + value
	case grammar.MatchNotContains:
		return selector + " not contains " + value
	case grammar.MatchIsEmpty:
		return selector + " is empty"
	case grammar.MatchIsNotEmpty:
		return selector + " is not empty"
	case grammar.MatchIsNil:
		return selector + " is nil"
	case grammar.MatchIsNotNil:
		return selector + " is not nil"
	case grammar.MatchMatches:
		return selector + " matches " + value
	}
	return selector + " not matches " + value
}

// apply keeps the items that pass. An item of no content is tried as well, so that a
// selector that cannot exist is an error even where there is nothing to filter.
func apply[T any](f filter, items []T) ([]T, error) {
	if f == nil {
		return items, nil
	}
	var zero T
	if _, err := f.match(zero); err != nil {
		return nil, badRequest("Failed to filter: %v", err)
	}
	var failed error
	items = slices.DeleteFunc(items, func(item T) bool {
		ok, err := f.match(item)
		if err != nil && failed == nil {
			failed = badRequest("Failed to filter: %v", err)
		}
		return !ok
	})
	return items, failed
}
