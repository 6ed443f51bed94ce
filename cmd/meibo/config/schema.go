package config

import (
	"fmt"
	"strings"
)

// Type is what a key's value must be.
type Type uint8

// The types of values. Durations are strings such as "10s", sizes are bytes or
// strings such as "16MiB".
const (
	String Type = iota
	Bool
	Int
	Number
	Duration
	Size
	Strings     // list of strings
	StringMap   // names to strings
	DurationMap // names to durations
	ListMap     // names to lists of strings
	Any         // taken as it is
	Blocks      // list of blocks, each read by the sub-table named by Of
	Named       // blocks with a label each, read by the sub-table named by Of
)

// expected describes the type in an error.
func (t Type) expected() string {
	switch t {
	case Bool:
		return "true or false"
	case Int:
		return "an integer"
	case Number:
		return "a number"
	case Duration:
		return `a duration such as "10s"`
	case Size:
		return `a number of bytes or a size such as "16MiB"`
	case Strings:
		return "a list of strings"
	case StringMap:
		return "a map of strings"
	case DurationMap:
		return `a map of durations such as "10s"`
	case ListMap:
		return "a map of lists of strings"
	case Blocks, Named:
		return "a block"
	}
	return "a string"
}

// Status says what meibo does with a key.
type Status uint8

// The statuses of keys.
const (
	// Used keys do what their documentation says.
	Used Status = iota
	// Moot keys are accepted silently: what they choose is so anyway, or makes
	// no difference here.
	Moot
	// Waiting keys are parsed and checked, and wait for a part (tokens, sessions,
	// other datacenters) that another key of it says is not there yet.
	Waiting
	// Planned keys belong to a part that is not there yet; named in a warning.
	Planned
	// Ignored keys belong to parts of Consul that meibo does not have; named in
	// a warning.
	Ignored
	// Guard keys protect something in Consul; the warning says what takes
	// their place.
	Guard
	// Legacy keys stand for the key named by Goes; named in a warning.
	Legacy
)

// String returns the status' name.
func (s Status) String() string {
	return [...]string{"used", "moot", "waiting", "planned", "ignored", "guard", "legacy"}[s]
}

// Key is one key of the configuration.
type Key struct {
	Path    string   // dotted, as "dns_config.node_ttl"
	Aliases []string // other last labels, compared like the first without regard to case
	Type    Type
	Of      string // Blocks, Named: the sub-table, a prefix of other keys' paths ("service", "check", …)
	Default string // as written in a file; "" for none
	Range   string // "1..10", "1s.."; bounds included
	Choices []string
	// spellings are accepted besides the choices, in capitals, each with the
	// choice it stands for.
	spellings map[string]string
	Flag      string // without dashes; "" for none
	Doc       string
	Goes      string // package that uses it; for Legacy the path of the key it stands for
	Status    Status
	Note      string // the warning, or what takes its place
	Own       bool   // meibo's, not Consul's
	Secret    bool
	Reload    bool // applies at once when files are read again

	// check says what was expected when a value of the right type is wrong.
	check func(v any) string
	// quiet says that a value needs no warning. Unset: false, empty, zero.
	quiet func(v any) bool
}

// name is the last label of the path.
func (k *Key) name() string { return k.Path[strings.LastIndexByte(k.Path, '.')+1:] }

// expected describes what the key takes, range and choices included.
func (k *Key) expected() string {
	s := k.Type.expected()
	if len(k.Choices) > 0 {
		return "one of " + strings.Join(k.Choices, ", ")
	}
	low, high, ok := strings.Cut(k.Range, "..")
	switch {
	case !ok:
		return s
	case high == "":
		return fmt.Sprintf("%s of at least %s", s, low)
	}
	return fmt.Sprintf("%s from %s to %s", s, low, high)
}

// table holds the keys of one kind of block by their path below it.
type table struct {
	keys   []*Key
	byPath map[string]*Key // lower case, aliases included
	groups map[string]bool // paths of blocks that hold further keys
}

// tables holds the top table as "" and one for each value of Key.Of.
var tables, byFlag = buildTables()

func buildTables() (map[string]*table, map[string]*Key) {
	ts := map[string]*table{"": newTable()}
	flags := map[string]*Key{}
	for name, keys := range map[string][]Key{
		"": topKeys(), "service": serviceKeys, "check": checkKeys, "forward": forwardKeys,
	} {
		t := newTable()
		for i := range keys {
			t.add(&keys[i])
			if f := keys[i].Flag; f != "" {
				flags[f] = &keys[i]
			}
		}
		ts[name] = t
	}
	return ts, flags
}

func newTable() *table {
	return &table{byPath: map[string]*Key{}, groups: map[string]bool{}}
}

func (t *table) add(k *Key) {
	t.keys = append(t.keys, k)
	t.byPath[k.Path] = k
	parent := ""
	if i := strings.LastIndexByte(k.Path, '.'); i >= 0 {
		parent = k.Path[:i+1]
	}
	for _, a := range k.Aliases {
		t.byPath[parent+a] = k
	}
	for i := range k.Path {
		if k.Path[i] == '.' {
			t.groups[k.Path[:i]] = true
		}
	}
}

// Keys returns every key, those of services, checks and forwards with the
// prefixes "service.", "check." and "forward.", in the order of the manual.
// The caller must not change the slices within.
func Keys() []Key {
	var all []Key
	for _, name := range []string{"", "forward", "service", "check"} {
		for _, k := range tables[name].keys {
			c := *k
			if name != "" {
				c.Path = name + "." + c.Path
			}
			all = append(all, c)
		}
	}
	return all
}

// nearest returns the known key that was most likely meant by path, or "".
func (t *table) nearest(path string) string {
	parent, name := "", path
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		parent, name = path[:i+1], path[i+1:]
	}
	best, least := "", 1+max(1, min(3, len(name)/3))
	consider := func(candidate, result string) {
		if d := Distance(name, candidate); d < least || d == least && best != "" && result < best {
			best, least = result, d
		}
	}
	for _, k := range t.keys {
		if k.Status == Legacy {
			continue
		}
		if rest, ok := strings.CutPrefix(k.Path, parent); ok && !strings.Contains(rest, ".") {
			consider(rest, k.Path)
		}
		for _, alias := range k.Aliases {
			if rest, ok := strings.CutPrefix(alias, parent); ok && !strings.Contains(rest, ".") {
				consider(rest, alias)
			}
		}
	}
	for g := range t.groups {
		if rest, ok := strings.CutPrefix(g, parent); ok && !strings.Contains(rest, ".") {
			consider(rest, g)
		}
	}
	if best != "" {
		return best
	}
	// The right name at the wrong place.
	for _, k := range t.keys {
		if k.Status != Legacy && k.name() == name {
			return k.Path
		}
	}
	return ""
}

// Distance is the number of letters to insert, remove, change or swap with
// their neighbour to make b of a.
func Distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
