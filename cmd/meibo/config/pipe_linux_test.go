package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A pipe in a folder is refused: nobody may ever write it. One that is named is read, as from a shell's <(…).
func TestLoad_WaitsForNoPipeInAFolder(t *testing.T) {
	dir := write(t, "a.hcl", `data_dir = "/nowhere"`)
	pipe := filepath.Join(dir, "pipe.hcl")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := loadAll(Sources{Paths: []string{dir}, Host: host}); err == nil || !strings.Contains(err.Error(), "pipe.hcl: read configuration: not a regular file") {
		t.Errorf("got %v", err)
	}
	written := make(chan error)
	go func() { written <- os.WriteFile(pipe, []byte(`data_dir = "/nowhere"`), 0o600) }()
	if _, _, err := loadAll(Sources{Paths: []string{pipe}, Host: host}); err != nil {
		t.Error(err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}
