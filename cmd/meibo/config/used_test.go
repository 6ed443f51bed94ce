package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestKeys_WhatClaimsToBeUsedIsRead takes every key that claims to be used, finds
// the fields that a Config has differently because of it, and the code that
// reads them: outside what makes a Config, and again in the package that it is
// handed to.
func TestKeys_WhatClaimsToBeUsedIsRead(t *testing.T) {
	code := readCode(t)
	full := fullSettings(t)
	count := 0
	for _, name := range []string{"", "service", "check", "forward"} {
		for _, k := range tables[name].keys {
			if k.Status != Used || name+"."+k.Path == "forward.tls_name" { // refused, as it would leave what it is to hide in the clear
				continue
			}
			path := strings.TrimPrefix(name+"."+k.Path, ".")
			count++
			fields := effects(full, name, k)
			if len(fields) == 0 {
				t.Errorf("%s: makes no difference to a Config (or full.hcl gives it its default)", path)
			}
			for _, f := range fields {
				if !code.read[f] {
					t.Errorf("%s: nothing reads %s", path, f)
				}
			}
		}
	}
	if count < 150 {
		t.Errorf("%d keys", count)
	}
	for _, f := range slices.Sorted(maps.Keys(code.handed)) {
		if !code.read[f] {
			t.Errorf("%s is set, and nothing reads it", f)
		}
	}
}

// fullSettings are those of the configuration that sets every key.
func fullSettings(t *testing.T) settings {
	t.Helper()
	file := filepath.Join("testdata", "full", "full.hcl")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l := &loader{src: Sources{Host: host}, report: &report{order: map[string]int{}}}
	return decoder{l.report}.source(l.parse(file, "hcl", data))
}

func built(set settings) *Config {
	for _, tab := range []string{"service", "check"} {
		for _, b := range blocksOf(set, tab) {
			b.faults = nil // of the last time
		}
	}
	b := &builder{loader: &loader{src: Sources{Host: host, Partial: true}, report: &report{order: map[string]int{}}}, set: set}
	return b.build()
}

// effects are the fields that a key changes, alone or among all others.
func effects(full settings, tab string, k *Key) []string {
	found := map[string]bool{}
	if tab == "" {
		others := maps.Clone(full)
		delete(others, k.Path)
		for _, s := range variants(full[k.Path]) {
			all := maps.Clone(full)
			all[k.Path] = s
			differ(reflect.ValueOf(*built(settings{k.Path: s})), reflect.ValueOf(*built(settings{})), "", found)
			differ(reflect.ValueOf(*built(all)), reflect.ValueOf(*built(others)), "", found)
		}
		return slices.Sorted(maps.Keys(found))
	}
	for _, block := range blocksOf(full, tab) {
		s := block.set[k.Path]
		if s == nil {
			continue
		}
		delete(block.set, k.Path)
		without := built(full)
		for _, v := range variants(s) {
			block.set[k.Path] = v
			differ(reflect.ValueOf(*built(full)), reflect.ValueOf(*without), "", found)
		}
		block.set[k.Path] = s
	}
	return slices.Sorted(maps.Keys(found))
}

// variants are a setting and one of another value: full.hcl has many defaults.
func variants(s *setting) []*setting {
	if s == nil {
		return nil
	}
	other, none := *s, *s
	switch v := s.value.(type) {
	case bool:
		other.value = !v
	case int64:
		other.value = v + 1
	case time.Duration:
		other.value, none.value = v+time.Second, time.Duration(0)
	case string:
		other.value = map[string]any{"domain": "example.", "addresses.dns": "127.0.0.9", "socket_path": "/run/app.sock"}[s.key.Path]
	}
	if other.value == nil || reflect.DeepEqual(other.value, s.value) {
		return []*setting{s}
	}
	return []*setting{s, &other, &none}
}

// blocksOf returns the blocks of a sub-table, at the top and within services.
func blocksOf(full settings, tab string) []*block {
	blocks := func(set settings, path string) []*block {
		if s := set[path]; s != nil {
			return s.value.([]*block)
		}
		return nil
	}
	switch tab {
	case "service":
		return blocks(full, "services")
	case "forward":
		return blocks(full, "forward")
	}
	all := blocks(full, "checks")
	for _, b := range blocks(full, "services") {
		all = append(all, blocks(b.set, "checks")...)
	}
	return all
}

// differ collects the fields of our structs that a and b differ in.
func differ(a, b reflect.Value, field string, found map[string]bool) {
	t := a.Type()
	switch {
	case t.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil():
		differ(a.Elem(), b.Elem(), field, found)
	case t.Kind() == reflect.Slice && a.Len() == b.Len():
		for i := range a.Len() {
			differ(a.Index(i), b.Index(i), field, found)
		}
	case t.Kind() == reflect.Struct && strings.HasPrefix(t.PkgPath(), "meibo/"):
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() {
				differ(a.Field(i), b.Field(i), t.PkgPath()+"."+t.Name()+"."+f.Name, found)
			}
		}
	case !reflect.DeepEqual(a.Interface(), b.Interface()):
		found[field] = true
	}
}

// code is what the product does with fields, each "package.Type.Field".
type code struct {
	read   map[string]bool // by more than what makes a Config
	handed map[string]bool // set by config or cmd/meibo, in a struct of another of our packages
}

// readCode looks at every package of the product.
func readCode(t *testing.T) code {
	t.Helper()
	out, err := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Export,Dir,GoFiles", "meibo/cmd/meibo").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	type listed struct {
		ImportPath, Export, Dir string
		GoFiles                 []string
	}
	exports, ours := map[string]string{}, []listed(nil)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
		if strings.HasPrefix(p.ImportPath, "meibo/") {
			ours = append(ours, p)
		}
	}
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	c := code{map[string]bool{}, map[string]bool{}}
	for _, p := range ours {
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
		info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Selections: map[*ast.SelectorExpr]*types.Selection{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
		if _, err := (&types.Config{Importer: imports}).Check(p.ImportPath, fset, files, info); err != nil {
			t.Fatalf("%s: %v", p.ImportPath, err)
		}
		for _, f := range files {
			for _, decl := range f.Decls {
				c.look(p.ImportPath, decl, info)
			}
		}
	}
	return c
}

// look collects what one declaration reads and hands on.
func (c *code) look(pkg string, decl ast.Decl, info *types.Info) {
	if f, ok := decl.(*ast.FuncDecl); ok && pkg == "meibo/cmd/meibo/config" && makesConfigs(f) {
		return
	}
	wires := func(t string) bool {
		return pkg == "meibo/cmd/meibo/config" || pkg == "meibo/cmd/meibo" && strings.HasSuffix(t, "Config")
	}
	written := map[ast.Expr]bool{}
	ast.Inspect(decl, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				written[e] = n.Tok == token.ASSIGN
			}
		case *ast.SelectorExpr:
			if s := info.Selections[n]; s != nil && s.Kind() == types.FieldVal && !written[n] {
				c.read[owner(s)+"."+s.Obj().Name()] = true
			}
		case *ast.CallExpr: // T(x) reads all of x
			if to := info.Types[n.Fun]; to.IsType() && len(n.Args) == 1 {
				c.whole(info.TypeOf(n.Args[0]), c.read)
			}
		case *ast.CompositeLit:
			for _, e := range n.Elts {
				kv, ok := e.(*ast.KeyValueExpr)
				t := named(info.TypeOf(n))
				if !ok || !wires(t) || !isOther(t, pkg) {
					continue
				}
				if name, ok := kv.Key.(*ast.Ident); ok {
					c.handed[t+"."+name.Name] = true
				}
			}
		}
		return true
	})
}

// whole adds all fields of a struct.
func (c *code) whole(t types.Type, to map[string]bool) {
	name := named(t)
	if s, ok := t.Underlying().(*types.Struct); ok && name != "" {
		for f := range s.Fields() {
			to[name+"."+f.Name()] = true
		}
	}
}

// makesConfigs tells the code that makes a Config from the code that uses one.
func makesConfigs(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return false
	}
	receiver := f.Recv.List[0].Type
	if p, ok := receiver.(*ast.StarExpr); ok {
		receiver = p.X
	}
	name := fmt.Sprint(receiver)
	return name == "builder" || name == "definer" || name == "loader"
}

// isOther reports whether a type is one of ours and of another package.
func isOther(name, pkg string) bool {
	return strings.HasPrefix(name, "meibo/") && name[:max(0, strings.LastIndexByte(name, '.'))] != pkg
}

// named returns "package.Type".
func named(t types.Type) string {
	if t == nil {
		return ""
	}
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	if n, ok := types.Unalias(t).(*types.Named); ok && n.Obj().Pkg() != nil {
		return n.Obj().Pkg().Path() + "." + n.Obj().Name()
	}
	return ""
}

// owner is the struct that has the selected field, embedded ones looked through.
func owner(s *types.Selection) string {
	t := s.Recv()
	for _, i := range s.Index()[:len(s.Index())-1] {
		if p, ok := t.Underlying().(*types.Pointer); ok {
			t = p.Elem()
		}
		t = t.Underlying().(*types.Struct).Field(i).Type()
	}
	return named(t)
}
