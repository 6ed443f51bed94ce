package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// seed adds the files of testdata and of the tables of faults.
func seed(f *testing.F, ext string, more ...string) {
	files, _ := filepath.Glob("testdata/*/*" + ext)
	if len(files) == 0 {
		f.Fatal("no seeds")
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range more {
		f.Add([]byte(s))
	}
}

// loadBytes loads one text, and fails when it takes long or panics.
func loadBytes(t *testing.T, format string, data []byte) {
	if len(data) > 1<<16 {
		return
	}
	start := time.Now()
	l := &loader{src: Sources{Partial: true, Host: host}, report: &report{order: map[string]int{}}}
	var faults Faults
	if tree := l.parse("f", format, data); tree != nil {
		b := &builder{loader: l, set: decoder{l.report}.source(tree)}
		b.notice()
		c := b.build()
		c.MeetsOthers()
		c.Redacted()
		Diff(c, c)
		for _, left := range c.Agent.LeftOut {
			if _ = left.What() + left.Why(); len(left.Faults) == 0 {
				t.Errorf("%s is left out for no reason", left.What())
			}
		}
		faults = c.Agent.Faults()
	}
	faults = l.sorted(append(faults, l.faults...))
	_ = faults.Error()
	for _, w := range l.warnings {
		_ = w.String()
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("%d bytes took %v", len(data), d)
	}
	for _, f := range faults {
		if strings.Contains(f.Text+f.Got, "pUqJrVyVRj5jsiYEkM") {
			t.Errorf("the encrypt key is shown: %v", f)
		}
	}
}

func FuzzHCL(f *testing.F) {
	seed(f, ".hcl", `a "b" "c" { d = [1, 2.5, true, "x", { y = 1 }] }`, "a = <<-EOF\n  x\n  EOF\n", `a = "${b("c")}"`, "a = 0x", `"\x" = 1`, "a = [", "{", "= 1",
		`service "a" "b" {}`, `forward "." { servers = [] }`, "a.b = 1", "a = 1e999", "a = 99999999999999999999", "ports = [[[]]]", "\xef\xbb\xbfa = 1")
	f.Fuzz(func(t *testing.T, data []byte) { loadBytes(t, "hcl", data) })
}

func FuzzJSON(f *testing.F) {
	seed(f, ".json", `{"a":{"b":[1,2.5,true,null,"x"]}}`, `{"services":[[{"name":"a"}]]}`, `{"ports":{"dns":1e400}}`, `{"ports":null,"ports":{}}`, `[`, `{"a":"\ud800"}`,
		`{"forward":{"a":[{"servers":["1.1.1.1"]}]}}`, `{"service":{"tagged_addresses":[{"lan":{}}]}}`, "{}\n{}")
	f.Fuzz(func(t *testing.T, data []byte) { loadBytes(t, "json", data) })
}

// TestWrongTypes_AreFaults: whatever is written for any key, in either format, is taken or named; nothing panics.
func TestWrongTypes_AreFaults(t *testing.T) {
	for _, k := range Keys() {
		open, end := "", ""
		path := k.Path
		for _, table := range []string{"forward", "service", "check"} {
			if rest, ok := strings.CutPrefix(path, table+"."); ok {
				path, open, end = rest, table+" \"a\" { ", " }"
				break
			}
		}
		parts := strings.Split(path, ".")
		for _, block := range parts[:len(parts)-1] {
			open, end = open+block+" { ", " }"+end
		}
		name := parts[len(parts)-1]
		for _, v := range []string{`= ""`, `= "x"`, `= 5`, `= -1`, `= 1.5`, `= true`, `= []`, `= [""]`, `= [5]`, `= ["1.2.3.4", 5]`, `= [[]]`, `= [{}]`, `= {}`, `{ x = 1 }`, `"l" { x = 1 }`, `= { x = 1 }`, `= { x = "y" }`, `= { x = [1] }`} {
			loadBytes(t, "hcl", []byte(open+name+" "+v+end))
		}
	}
}
