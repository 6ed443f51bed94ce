package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), text); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

func said(ws []Warning) string {
	var b strings.Builder
	for _, w := range ws {
		if w.Serious {
			b.WriteString("serious: ")
		}
		b.WriteString(w.String() + "\n")
	}
	return b.String()
}

func TestLoad_EveryKeyOfAConsulAgent(t *testing.T) {
	file := filepath.Join("testdata", "full", "full.hcl")
	c, warnings, err := Load(Sources{Paths: []string{file}, Host: host})
	if err != nil {
		t.Fatalf("load:\n%v", err)
	}
	golden(t, "full/warnings.txt", said(warnings))
	golden(t, "full/redacted.txt", c.Redacted())

	t.Run("uses every key of the table", func(t *testing.T) {
		for _, k := range tables[""].keys {
			if k.Status != Legacy && c.settings[k.Path] == nil && !strings.HasPrefix(k.Path, "atlas_") && k.Path != "acl_enforce_version_8" && k.Path != "acl_disabled_ttl" && k.Path != "tls_prefer_server_cipher_suites" {
				t.Errorf("full.hcl does not set %s", k.Path)
			}
		}
	})
	t.Run("says the same as JSON", func(t *testing.T) {
		j, jw, err := Load(Sources{Paths: []string{filepath.Join("testdata", "full", "full.json")}, Host: host})
		if err != nil {
			t.Fatalf("load:\n%v", err)
		}
		if d := cmp.Diff(c.Redacted(), j.Redacted()); d != "" {
			t.Errorf("JSON differs from HCL (-hcl +json):\n%s", d)
		}
		if d := Diff(c, j); len(d) > 0 {
			t.Errorf("differs in %v", d)
		}
		if len(jw) != len(warnings) {
			t.Errorf("%d warnings, want %d", len(jw), len(warnings))
		}
	})
	t.Run("shows no secret", func(t *testing.T) {
		shown := c.Redacted() + said(warnings)
		for _, secret := range []string{"0d4f1a52", "pUqJrV", "3ec6e7", "77f0", "Zm9vYmFy"} {
			if strings.Contains(shown, secret) {
				t.Errorf("%q is shown", secret)
			}
		}
	})
}
