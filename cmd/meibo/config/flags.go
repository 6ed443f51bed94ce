package config

import (
	"strings"

	"github.com/spf13/pflag"
)

// Flags are those of the agent, as given on the command line. Their values are
// parsed and checked by Load, so that all faults are reported together.
type Flags struct {
	Paths     []string // -config-file and -config-dir, in order
	Format    string   // -config-format
	Fragments []string // -hcl
	Dev       bool

	values map[string][]string // by the name of the flag
}

// Sources returns what the flags say to read.
func (f *Flags) Sources() Sources {
	return Sources{Paths: f.Paths, Format: f.Format, Flags: f, Fragments: f.Fragments, Dev: f.Dev}
}

// flagAliases are further names of flags.
var flagAliases = map[string]string{"non-voting-server": "read-replica"}

// RegisterFlags adds the flags of Consul's agent to fs.
func RegisterFlags(fs *pflag.FlagSet) *Flags {
	f := &Flags{values: map[string][]string{}}
	path := &listValue{&f.Paths, "path"}
	fs.Var(path, "config-file", "File to read, HCL or JSON by its extension. May be given several times.")
	fs.Var(path, "config-dir", "Directory to read: the .hcl and .json files in it, sorted by name. May be given several times.")
	fs.StringVar(&f.Format, "config-format", "", "Format of all files, hcl or json, whatever their names.")
	fs.Var(&listValue{&f.Fragments, "hcl"}, "hcl", "HCL to read after everything else. May be given several times.")
	fs.BoolVar(&f.Dev, "dev", false, "A server of its own, everything in memory.")
	for name, k := range byFlag {
		f.register(fs, name, k)
	}
	for alias, name := range flagAliases {
		f.register(fs, alias, byFlag[name])
	}
	return f
}

func (f *Flags) register(fs *pflag.FlagSet, name string, k *Key) {
	flag := &pflag.Flag{Name: name, Usage: k.Doc, Value: &keyValue{f, k}}
	if k.Type == Bool {
		flag.NoOptDefVal = "true"
	}
	fs.AddFlag(flag)
}

// keyValue collects the texts of one key's flag. It takes any text: pflag would
// print the value with the error, and it may be a secret.
type keyValue struct {
	flags *Flags
	key   *Key
}

func (v *keyValue) Set(s string) error {
	v.flags.values[v.key.Flag] = append(v.flags.values[v.key.Flag], s)
	return nil
}

// String returns the default, for usage texts.
func (v *keyValue) String() string {
	if v == nil || v.key == nil || v.key.Type == Bool {
		return ""
	}
	return v.key.Default
}

func (v *keyValue) Type() string {
	switch v.key.Type {
	case Bool:
		return "bool"
	case Int:
		return "int"
	case Duration:
		return "duration"
	case StringMap:
		return "key:value"
	}
	return "string"
}

// listValue appends to a list that several flags may share.
type listValue struct {
	list *[]string
	kind string
}

func (v *listValue) Set(s string) error { *v.list = append(*v.list, s); return nil }
func (v *listValue) String() string     { return "" }
func (v *listValue) Type() string       { return v.kind }

// NormalizeArgs gives long flags the two dashes that pflag wants, as in
// "-config-dir=x", which Consul's flags are written with. What follows a flag
// that takes a value, or "--", is left alone.
func NormalizeArgs(args []string, fs *pflag.FlagSet) []string {
	out := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(out, args[i:]...)
		}
		name, _, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		flag := fs.Lookup(name)
		if isLong(arg, name, flag, fs) {
			arg = "--" + strings.TrimLeft(arg, "-")
		}
		out = append(out, arg)
		if flag != nil && strings.HasPrefix(arg, "--") && !inline && flag.NoOptDefVal == "" && i+1 < len(args) {
			i++
			out = append(out, args[i])
		}
	}
	return out
}

// isLong tells "-node" from "-v", "-abc" made of short flags, "-" and words.
func isLong(arg, name string, flag *pflag.Flag, fs *pflag.FlagSet) bool {
	if !strings.HasPrefix(arg, "-") || strings.HasPrefix(arg, "--") || len(name) < 2 {
		return false
	}
	return flag != nil || fs.ShorthandLookup(name[:1]) == nil
}
