package main

import (
	"slices"
	"testing"
)

func TestHostNames_OnesOwnInFull(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "hosts", "127.0.0.1 localhost\n127.0.1.1 app-17.corp.example App-17 # by hand\n192.0.2.9 other.corp.example other\n")
	writeFile(t, dir, "resolv.conf", "search corp.example lan.\nnameserver 192.0.2.1\n")
	for hostname, want := range map[string][]string{
		"app-17":              {"app-17", "app-17.corp.example", "app-17.lan", "app-17.corp.example", "App-17"},
		"app-17.corp.example": {"app-17.corp.example", "app-17.corp.example", "App-17"},
		"unlisted":            {"unlisted", "unlisted.corp.example", "unlisted.lan"},
		"":                    nil,
	} {
		if got := hostNames(hostname, dir+"/hosts", dir+"/resolv.conf"); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", hostname, got, want)
		}
	}
	if got := hostNames("a", dir+"/none", dir+"/none"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("without files: %q", got)
	}
}
