package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"meibo/cluster/httpapi/client"
)

// What becomes of a host that is away depends on what was done meanwhile.
func TestKeyring_SaysWhatAHostThatIsAwayMisses(t *testing.T) {
	want := map[string]string{"install": "install it once more", "use": "use this one once more", "remove": "stays out until it is given a present one"}
	for _, op := range keyringOps {
		var out bytes.Buffer
		cmd := new(cobra.Command)
		cmd.SetErr(&out)
		if err := refusals(cmd, []client.Keyring{{Datacenter: "dc1", Failed: []string{"s2", "s3"}}}, op.missed); err != nil {
			t.Errorf("%s: %v", op.name, err)
		}
		for name, text := range want {
			if got := strings.Contains(out.String(), text); got != (name == op.name) || !strings.Contains(out.String(), "not asked: s2, s3\n") {
				t.Errorf("%s: %q", op.name, out.String())
			}
		}
	}
}
