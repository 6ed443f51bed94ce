package config

import (
	"strings"
	"testing"

	"github.com/hashicorp/go-sockaddr/template"
)

// TestTemplate_YieldsWhatGoSockaddrDoes compares with the original on this machine's addresses.
func TestTemplate_YieldsWhatGoSockaddrDoes(t *testing.T) {
	for _, text := range []string{
		`{{ GetInterfaceIP "lo" }}`, `{{GetInterfaceIPs "lo"}}`, `{{ GetPrivateIP }}`, `a {{ GetPublicIPs }} b`,
		`{{ GetAllInterfaces | include "flags" "loopback" | include "type" "ipv4" | limit 1 | join "address" " " }}`,
		`{{ . | include "name" "lo" | sort "address" | attr "address" }}`,
		`{{ GetAllInterfaces | exclude "flags" "loopback" | unique "name" | offset 0 | join "name" "," }}`,
		`{{ (GetAllInterfaces | include "name" "lo" | sort "-size") | attr "name" }}`,
		`{{ GetAllInterfaces | include "name" "lo" | include "type" "ipv4" | math "network" "+1" | attr "address" }}`,
		`{{/* a comment */}}{{ GetPrivateInterfaces | join "address" " " }}`,
	} {
		want, wantErr := template.Parse(text)
		got, err := evaluateTemplate(text)
		if got != want || (err == nil) != (wantErr == nil) {
			t.Errorf("%s: got %q, %v, want %q, %v", text, got, err, want, wantErr)
		}
	}
}

func TestTemplate_SaysWhatItDoesNotEvaluate(t *testing.T) {
	for text, want := range map[string]string{
		`{{ GetInterfaceIP }}`:            "does not take no argument",
		`{{ GetInterfaceIP 3 }}`:          "does not take a number",
		`{{ NoSuchFunction }}`:            "not defined",
		`{{ range . }}{{ . }}{{ end }}`:   "only pipelines",
		`{{ $a := GetPrivateIP }}`:        "variables",
		`{{ GetAllInterfaces | "text" }}`: "",
		`{{ GetPrivateIP`:                 "unclosed action",
		`{{ .Name }}`:                     "not evaluated",
	} {
		if got, err := evaluateTemplate(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %q, %v, want an error with %q", text, got, err, want)
		}
	}
}
