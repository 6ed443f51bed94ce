package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/spf13/cobra"
)

// Each command that has -json has -format=json, which is the same.
func TestFormat_IsWhereverJSONIs(t *testing.T) {
	found := 0
	var look func(*cobra.Command)
	look = func(cmd *cobra.Command) {
		asJSON, format := cmd.Flags().Lookup("json"), cmd.Flags().Lookup("format")
		if (asJSON != nil) != (format != nil) {
			t.Errorf("%s: -json %t, -format %t", cmd.CommandPath(), asJSON != nil, format != nil)
		}
		if asJSON != nil && format != nil {
			found++
			if err := cmd.Flags().Set("format", "json"); err != nil || asJSON.Value.String() != "true" {
				t.Errorf("%s: -format=json: %v, -json is %s", cmd.CommandPath(), err, asJSON.Value)
			}
			if err := cmd.Flags().Set("format", "yaml"); err == nil {
				t.Errorf("%s: -format=yaml is taken", cmd.CommandPath())
			}
		}
		for _, c := range cmd.Commands() {
			look(c)
		}
	}
	look(newRoot())
	if found < 10 {
		t.Errorf("only %d commands have -json", found)
	}
	var out bytes.Buffer
	root := newRoot()
	root.SetOut(&out)
	root.SetArgs([]string{"version", "--format=json"})
	if err := root.Execute(); err != nil || !json.Valid(out.Bytes()) {
		t.Errorf("version -format=json: %v %s", err, &out)
	}
}
