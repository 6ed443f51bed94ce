package config

import (
	"strings"
	"testing"
)

func TestKeys_HoldTogether(t *testing.T) {
	flags := map[string]string{}
	for name, tab := range tables {
		seen := map[string]bool{}
		for _, k := range tab.keys {
			path := strings.TrimPrefix(name+"."+k.Path, ".")
			if seen[k.Path] {
				t.Errorf("%s: twice", path)
			}
			seen[k.Path] = true
			if k.Path != strings.ToLower(k.Path) {
				t.Errorf("%s: not in lower case, so nothing matches it", path)
			}
			if k.Doc == "" {
				t.Errorf("%s: no documentation", path)
			}
			if k.Status == Legacy && tab.byPath[k.Goes] == nil {
				t.Errorf("%s: stands for %q, which is no key", path, k.Goes)
			}
			if (k.Status == Used || k.Status == Waiting) && k.Goes == "" {
				t.Errorf("%s: nobody uses it", path)
			}
			if (k.Status == Planned || k.Status == Ignored || k.Status == Guard) && k.Note == "" {
				t.Errorf("%s: no note for the warning", path)
			}
			if (k.Type == Blocks || k.Type == Named) && tables[k.Of] == nil {
				t.Errorf("%s: no table %q", path, k.Of)
			}
			if k.Flag != "" {
				if other := flags[k.Flag]; other != "" {
					t.Errorf("-%s: of %s and of %s", k.Flag, path, other)
				}
				flags[k.Flag] = path
			}
			if tab.groups[k.Path] {
				t.Errorf("%s: a key and a block", path)
			}
			k.defaultValue() // panics if the default is not of the type
		}
	}
	if len(Keys()) < 350 {
		t.Errorf("%d keys", len(Keys()))
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"port", "prot", 1}, {"recursors", "recursrs", 1}, {"abc", "xyz", 3}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q, %q: got %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int64
		ok   bool
	}{{"0", 0, true}, {"4096", 4096, true}, {"16MiB", 16 << 20, true}, {"16 mib", 16 << 20, true}, {"1kB", 1000, true}, {"5b", 5, true}, {"-1", 0, false}, {"MiB", 0, false}, {"99999999999GiB", 0, false}} {
		if got, ok := parseSize(tt.in); got != tt.want || ok != tt.ok {
			t.Errorf("%q: got %d, %v", tt.in, got, ok)
		}
	}
}
