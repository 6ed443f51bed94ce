package local

import (
	"os"
	"slices"
	"time"
)

// stamp tells one state of a file from another; the zero stamp is a file that
// isn't there.
type stamp struct {
	size     int64
	modified time.Time
	file     os.FileInfo
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
