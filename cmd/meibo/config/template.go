package config

import (
	"fmt"
	"strings"
	"text/template/parse"

	"github.com/hashicorp/go-sockaddr"
)

// evaluateTemplate evaluates a go-sockaddr template, such as
//
//	{{ GetPrivateInterfaces | include "network" "10.0.0.0/8" | attr "address" }}
//
// with the addresses of this machine: text, and pipelines of go-sockaddr's
// functions. Parser and functions are the originals. What is left out is
// text/template itself (range, if, variables): it finds methods by name at run
// time, for which the linker would keep every method of every type, some 2 MB.
func evaluateTemplate(text string) (string, error) {
	trees, err := parse.Parse("address", text, "{{", "}}", templateNames())
	if err != nil {
		return "", err
	}
	all, err := sockaddr.GetAllInterfaces()
	if err != nil {
		return "", fmt.Errorf("list the interfaces of this machine: %w", err)
	}
	var out strings.Builder
	for _, node := range trees["address"].Root.Nodes {
		switch n := node.(type) {
		case *parse.TextNode:
			out.Write(n.Text)
		case *parse.CommentNode:
		case *parse.ActionNode:
			v, err := pipeline{all}.run(n.Pipe)
			if err != nil {
				return "", fmt.Errorf("%s: %w", n, err)
			}
			fmt.Fprint(&out, v)
		default:
			return "", fmt.Errorf("%.40s: only pipelines of functions are evaluated here", node)
		}
	}
	return out.String(), nil
}

// pipeline evaluates pipes; its dot is all addresses of the machine.
type pipeline struct{ dot sockaddr.IfAddrs }

// run hands the value of each command to the next as its last argument.
func (p pipeline) run(pipe *parse.PipeNode) (value any, err error) {
	if len(pipe.Decl) > 0 {
		return nil, fmt.Errorf("variables are not evaluated here")
	}
	for i, cmd := range pipe.Cmds {
		args := make([]any, 0, len(cmd.Args)+1)
		for _, arg := range cmd.Args[1:] {
			a, err := p.operand(arg)
			if err != nil {
				return nil, err
			}
			args = append(args, a)
		}
		if i > 0 {
			args = append(args, value)
		}
		if name, ok := cmd.Args[0].(*parse.IdentifierNode); ok {
			value, err = call(name.Ident, args)
		} else if len(args) > 0 {
			err = fmt.Errorf("%s is no function", cmd.Args[0])
		} else {
			value, err = p.operand(cmd.Args[0])
		}
		if err != nil {
			return nil, err
		}
	}
	return value, nil
}

func (p pipeline) operand(node parse.Node) (any, error) {
	switch n := node.(type) {
	case *parse.DotNode:
		return p.dot, nil
	case *parse.StringNode:
		return n.Text, nil
	case *parse.NumberNode:
		if n.IsInt {
			return int(n.Int64), nil
		}
	case *parse.IdentifierNode:
		return call(n.Ident, nil)
	case *parse.PipeNode:
		return p.run(n)
	}
	return nil, fmt.Errorf("%s is not evaluated here", node)
}

// call calls one of go-sockaddr's functions.
func call(name string, args []any) (any, error) {
	if f := sources[name]; f != nil && len(args) == 0 {
		return f()
	}
	if f := texts0[name]; f != nil && len(args) == 0 {
		return f()
	}
	if f := texts1[name]; f != nil {
		if s, ok := single[string](args); ok {
			return f(s)
		}
	}
	if f := filters[name]; f != nil && len(args) > 0 {
		if in, ok := args[len(args)-1].(sockaddr.IfAddrs); ok {
			if v, err, ok := f(args[:len(args)-1], in); ok {
				return v, err
			}
		}
	}
	return nil, fmt.Errorf("%s does not take %s", name, kinds(args))
}

var sources = map[string]func() (sockaddr.IfAddrs, error){
	"GetAllInterfaces": sockaddr.GetAllInterfaces, "GetDefaultInterfaces": sockaddr.GetDefaultInterfaces,
	"GetPrivateInterfaces": sockaddr.GetPrivateInterfaces, "GetPublicInterfaces": sockaddr.GetPublicInterfaces,
}

var texts0 = map[string]func() (string, error){
	"GetPrivateIP": sockaddr.GetPrivateIP, "GetPrivateIPs": sockaddr.GetPrivateIPs,
	"GetPublicIP": sockaddr.GetPublicIP, "GetPublicIPs": sockaddr.GetPublicIPs,
}

var texts1 = map[string]func(string) (string, error){
	"GetInterfaceIP": sockaddr.GetInterfaceIP, "GetInterfaceIPs": sockaddr.GetInterfaceIPs,
}

// filter is a function of addresses; ok says that it takes the arguments.
type filter func(args []any, in sockaddr.IfAddrs) (v any, err error, ok bool)

var filters = map[string]filter{
	"sort": with1(sockaddr.SortIfBy), "include": with2(sockaddr.IncludeIfs), "exclude": with2(sockaddr.ExcludeIfs),
	"limit": with1(func(n int, in sockaddr.IfAddrs) (sockaddr.IfAddrs, error) {
		return sockaddr.LimitIfAddrs(uint(max(n, 0)), in)
	}),
	"offset": with1(sockaddr.OffsetIfAddrs), "unique": with1(sockaddr.UniqueIfAddrsBy), "math": with2(sockaddr.IfAddrsMath),
	"join": with2(sockaddr.JoinIfAddrs), "attr": with1(sockaddr.IfAttrs),
}

func with1[A, V any](f func(A, sockaddr.IfAddrs) (V, error)) filter {
	return func(args []any, in sockaddr.IfAddrs) (any, error, bool) {
		a, ok := single[A](args)
		if !ok {
			return nil, nil, false
		}
		v, err := f(a, in)
		return v, err, true
	}
}

func with2[V any](f func(a, b string, in sockaddr.IfAddrs) (V, error)) filter {
	return func(args []any, in sockaddr.IfAddrs) (any, error, bool) {
		if len(args) != 2 {
			return nil, nil, false
		}
		a, ok := args[0].(string)
		b, ok2 := args[1].(string)
		if !ok || !ok2 {
			return nil, nil, false
		}
		v, err := f(a, b, in)
		return v, err, true
	}
}

// single is the one argument there is.
func single[A any](args []any) (a A, ok bool) {
	if len(args) != 1 {
		return a, false
	}
	a, ok = args[0].(A)
	return a, ok
}

// kinds names the types of arguments, for people.
func kinds(args []any) string {
	if len(args) == 0 {
		return "no argument"
	}
	names := make([]string, len(args))
	for i, a := range args {
		switch a.(type) {
		case string:
			names[i] = "a text"
		case int:
			names[i] = "a number"
		default:
			names[i] = "addresses"
		}
	}
	return strings.Join(names, ", ")
}

// templateNames are the functions' names, as the parser wants them.
func templateNames() map[string]any {
	names := make(map[string]any)
	for name := range sources {
		names[name] = true
	}
	for name := range texts0 {
		names[name] = true
	}
	for name := range texts1 {
		names[name] = true
	}
	for name := range filters {
		names[name] = true
	}
	return names
}
