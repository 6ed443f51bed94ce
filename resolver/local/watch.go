package local

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// stamp tells one state of a file from another; the zero stamp is a file that
// isn't there.
type stamp struct {
	size     int64
	modified time.Time
	file     os.FileInfo
}

// withoutDirs puts the files of a directory in its place, in the order of their
// names. Editors' and packagers' leftovers are no files: names that begin with a dot,
// end with ~, or stand between two # (as dnsmasq's hostsdir has it).
func withoutDirs(files []string) []string {
	var out []string
	for _, file := range files {
		entries, err := os.ReadDir(file)
		if err != nil {
			out = append(out, file) // a file, or nothing yet
			continue
		}
		for _, e := range entries {
			name := e.Name()
			if name[0] == '.' || strings.HasSuffix(name, "~") || name[0] == '#' && strings.HasSuffix(name, "#") {
				continue
			}
			path := filepath.Join(file, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				out = append(out, path)
			}
		}
	}
	return out
}

func stampAll(files []string) []stamp {
	out := make([]stamp, len(files))
	for i, file := range files {
		if info, err := os.Stat(file); err == nil {
			out[i] = stamp{info.Size(), info.ModTime(), info}
		}
	}
	return out
}

func equalStamps(a, b []stamp) bool {
	return slices.EqualFunc(a, b, func(x, y stamp) bool {
		return x.size == y.size && x.modified.Equal(y.modified) && (x.file == nil) == (y.file == nil) &&
			(x.file == nil || os.SameFile(x.file, y.file))
	})
}
