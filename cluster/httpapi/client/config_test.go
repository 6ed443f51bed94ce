package client

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFromEnv_OwnNamesWinOverConsuls(t *testing.T) {
	env := map[string]string{
		"CONSUL_HTTP_ADDR": "10.0.0.1:8500", "MEIBO_HTTP_ADDR": "unix:///run/meibo.sock",
		"CONSUL_HTTP_TOKEN": "t", "CONSUL_HTTP_TOKEN_FILE": "/tok", "CONSUL_HTTP_AUTH": "u:p:q", "CONSUL_HTTP_SSL": "true",
		"CONSUL_HTTP_SSL_VERIFY": "false", "CONSUL_CACERT": "/ca", "CONSUL_CAPATH": "/cas", "CONSUL_CLIENT_CERT": "/c",
		"CONSUL_CLIENT_KEY": "/k", "MEIBO_TLS_SERVER_NAME": "s",
	}
	got, err := FromEnv(func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Address: "unix:///run/meibo.sock", Token: "t", TokenFile: "/tok", User: "u", Password: "p:q", UseTLS: true, SkipVerify: true,
		CAFile: "/ca", CAPath: "/cas", CertFile: "/c", KeyFile: "/k", ServerName: "s",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if _, err := FromEnv(func(k string) string { return map[string]string{"CONSUL_HTTP_SSL": "perhaps"}[k] }); err == nil {
		t.Error("a bad boolean was taken")
	}
}

func TestNew_Addresses(t *testing.T) {
	tests := []struct {
		cfg  Config
		want string // address called, or what the error says
	}{
		{Config{}, "http://127.0.0.1:8500"},
		{Config{Address: "10.0.0.1:1"}, "http://10.0.0.1:1"},
		{Config{Address: "10.0.0.1:1", UseTLS: true}, "https://10.0.0.1:1"},
		{Config{Address: "https://x:1/prefix"}, "https://x:1/prefix"},
		{Config{Address: "[::1]:8500"}, "http://[::1]:8500"},
		{Config{Address: "unix:///run/x.sock"}, "unix:///run/x.sock"},
		{Config{Address: "unix://"}, "has no path"},
		{Config{Address: "ftp://x"}, "want host:port"},
		{Config{Address: "http://"}, "want host:port"},
		{Config{CertFile: "x"}, "must be given together"},
		{Config{CAFile: "/does/not/exist"}, "read CA certificate"},
		{Config{TokenFile: "/does/not/exist"}, "read token file"},
	}
	for _, tc := range tests {
		c, err := New(tc.cfg)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = c.Address()
		}
		if !strings.Contains(got, tc.want) {
			t.Errorf("%+v: %s, want %s", tc.cfg, got, tc.want)
		}
	}
}

func TestDo_SaysWhomItCouldNotReach(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Address: addr, TokenFile: token})
	if err != nil {
		t.Fatal(err)
	}
	if c.token != "secret" {
		t.Errorf("token %q", c.token)
	}
	_, err = c.Leader(t.Context())
	if err == nil || !strings.Contains(err.Error(), "ask http://"+addr) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}
