package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const key = `encrypt = "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s="` + "\n"

func TestEncryption_IsAKeyOrAWordBeforeOthersAreMet(t *testing.T) {
	const server = "server = true\nbootstrap_expect = 3\n"
	tests := []struct{ name, hcl, key string }{ // key: that the fault names, "" for none
		{"a single host", ``, ""},
		{"a server of its own", `server = true bootstrap = true`, ""},
		{"one server", `server = true bootstrap_expect = 1`, ""},
		{"joins another host", `retry_join = ["10.0.0.1"]`, "retry_join"},
		{"joins a name", `retry_join = ["servers.example:8301"]`, "retry_join"},
		{"joins by the old key", `start_join = ["10.0.0.1"]`, "retry_join"},
		{"joins one host here and one there", `retry_join = ["127.0.0.2", "10.0.0.1"]`, "retry_join"},
		{"waits for servers", server, "bootstrap_expect"},
		{"with a key", server + key + `retry_join = ["10.0.0.1"]`, ""},
		{"in the clear, in words", server + `retry_join = ["10.0.0.1"] encrypt = "none"`, ""},
		{"loopback", server + `bind_addr = "127.0.0.1" retry_join = ["127.0.0.2", "127.0.0.3:8301", "[::1]:8301", "::1", "localhost", "::ffff:127.0.0.9"]`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := load(t, "data_dir = \"/nowhere\"\n"+tt.hcl)
			switch {
			case tt.key == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.key == "":
			case err == nil:
				t.Error("taken")
			default:
				for _, want := range []string{`key "` + tt.key + `"`, "meibo keygen", `encrypt = "none"`} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%v\nwant %s", err, want)
					}
				}
			}
		})
	}
}

func TestEncryption_AKeptKeyringIsAKey(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "serf"), 0o700); err != nil {
		t.Fatal(err)
	}
	hcl := "data_dir = \"" + dir + "\"\nretry_join = [\"10.0.0.1\"]"
	if _, _, err := load(t, hcl); err == nil {
		t.Error("taken without any key")
	}
	if err := os.WriteFile(filepath.Join(dir, "serf", "local.keyring"), []byte(`["pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s="]`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := load(t, hcl)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "serf", "local.keyring"); c.KeyringPath() != want {
		t.Errorf("keyring %s, want %s", c.KeyringPath(), want)
	}
	if _, _, err := load(t, hcl+"\ndisable_keyring_file = true"); err == nil {
		t.Error("a file that is not read counts")
	}
}

func TestCheckJoin_KeepsAHostWithoutAKeyToItsMachine(t *testing.T) {
	c := mustLoad(t, ``)
	if err := c.CheckJoin([]string{"127.0.0.2:8301"}); err != nil {
		t.Error(err)
	}
	if err := c.CheckJoin([]string{"127.0.0.2", "10.0.0.1"}); err == nil || !strings.Contains(err.Error(), "10.0.0.1") || !strings.Contains(err.Error(), "keygen") {
		t.Errorf("got %v", err)
	}
	if err := mustLoad(t, key).CheckJoin([]string{"10.0.0.1"}); err != nil {
		t.Error(err)
	}
}

func TestJoin_CloudsAreRefusedWithoutShowingTheirSecret(t *testing.T) {
	_, _, err := load(t, key+`retry_join = ["provider=aws tag_key=a secret_access_key=s3cr3t"]`)
	if err == nil || !strings.Contains(err.Error(), "provider=aws") || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("got %v", err)
	}
	if _, _, err := load(t, key+`retry_join = ["http://10.0.0.1/"]`); err == nil {
		t.Error("a URL is taken for an address")
	}
}
