package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"meibo/cluster/atomicfile"
	"meibo/cmd/meibo/config"
)

// answersFile is where forwarded answers are kept over a restart; "" where they aren't.
func answersFile(cfg *config.Config) string {
	if !cfg.Cache.Persist || cfg.CacheDir == "" {
		return ""
	}
	return filepath.Join(cfg.CacheDir, "answers.cache")
}

// maxAnswers bounds what is read of the file, octets: one that is longer is none of ours.
const maxAnswers = 1 << 30

// loadAnswers takes up the answers that the daemon had when it last stopped. What can't be read costs no start.
func (d *dnsService) loadAnswers() {
	path := d.answers
	if path == "" {
		return
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		defer f.Close()
		var n int
		if n, err = d.resolver.Load(io.LimitReader(f, maxAnswers)); err == nil {
			d.log.Info("forwarded answers are known from before", "answers", n, "file", path)
			return
		}
	}
	d.log.Warn("forwarded answers of before can't be used, the cache begins empty", "file", path, "err", err)
}

// saveAnswers writes the forwarded answers for the next start; the file of before stays until the new one is whole.
func (d *dnsService) saveAnswers() {
	path := d.answers
	if path == "" {
		return
	}
	began := time.Now()
	n, err := d.writeAnswers(path)
	if err != nil {
		d.log.Warn("forwarded answers can't be kept, the next start is without them", "file", path, "err", err)
		return
	}
	d.log.Info("forwarded answers are kept", "answers", n, "file", path, "took", time.Since(began).Round(time.Millisecond))
}

func (d *dnsService) writeAnswers(path string) (n int, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return 0, err
	}
	err = atomicfile.WriteTo(path, func(w io.Writer) error {
		n, err = d.resolver.Save(w)
		return err
	})
	return n, err
}
