//go:build !linux

package main

// hostFacts knows nothing of this system.
func hostFacts(string) (found map[string]any, errs []string) { return map[string]any{}, nil }
