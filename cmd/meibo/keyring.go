package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"meibo/cluster/httpapi/client"
)

func newKeygenCommand() *cobra.Command {
	return &cobra.Command{
		Use: "keygen", Short: "Make a key for encrypt", GroupID: "cluster", Args: noArgs,
		Long: "Prints a new random key of 32 bytes in base64, for encrypt in the configuration of every\nhost of a cluster, or for `meibo keyring install`.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			key := make([]byte, 32)
			_, _ = rand.Read(key) // never fails
			_, err := fmt.Fprintln(cmd.OutOrStdout(), base64.StdEncoding.EncodeToString(key))
			return err
		},
	}
}

type keyringCommand struct {
	asker
	list, listPrimary, localOnly bool
	install, use, remove         string
	relay                        int
}

func newKeyringCommand() *cobra.Command {
	var k keyringCommand
	cmd := &cobra.Command{
		Use: "keyring", Short: "See and rotate the cluster's keys", GroupID: "cluster", Args: noArgs,
		Long: `Sees and changes the keys of every host at once. Each is shown with the number of
hosts that hold it, out of those asked.

To rotate: install a new key, look with list that every host has it, use it, look
again, remove the old one. Gossip and all that hosts say to each other take the new
key without a restart; connections under a removed key are cut. A host that is away
meanwhile must be given the new key before it can come back. For use and remove the
fingerprint of a key (sha256: and 8 digits) will do.`,
		Example: `  meibo keyring install "$(meibo keygen)"
  meibo keyring list
  meibo keyring use KEY
  meibo keyring remove OLD-KEY`,
		RunE: k.consuls,
	}
	f := cmd.Flags()
	f.BoolVar(&k.list, "list", false, "as the command list")
	f.BoolVar(&k.listPrimary, "list-primary", false, "list the keys that are used to encrypt")
	f.StringVar(&k.install, "install", "", "as the command install `KEY`")
	f.StringVar(&k.use, "use", "", "as the command use `KEY`")
	f.StringVar(&k.remove, "remove", "", "as the command remove `KEY`")
	f.BoolVar(&k.localOnly, "local-only", false, "list the keys of this host alone")
	f.IntVar(&k.relay, "relay-factor", 0, "accepted as Consul's; changes nothing")
	k.flags(cmd)
	cmd.AddCommand(keyringList())
	for _, op := range keyringOps {
		cmd.AddCommand(op.command())
	}
	return cmd
}

// consuls is the command with Consul's flags in place of commands.
func (k *keyringCommand) consuls(cmd *cobra.Command, _ []string) error {
	given := 0
	for _, is := range []bool{k.list, k.listPrimary, k.install != "", k.use != "", k.remove != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		return exitError{2, "exactly one of list, install KEY, use KEY and remove KEY is wanted; `meibo keyring -h` says more"}
	}
	for i, key := range []string{k.install, k.use, k.remove} {
		if key != "" {
			return keyringOps[i].run(cmd, &k.asker, key)
		}
	}
	return listKeys(cmd, &k.asker, k.localOnly, k.listPrimary)
}

func keyringList() *cobra.Command {
	var a asker
	var localOnly, primary bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the keys and how many hosts hold each", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return listKeys(cmd, &a, localOnly, primary) },
	}
	cmd.Flags().BoolVar(&localOnly, "local-only", false, "those of this host alone")
	cmd.Flags().BoolVar(&primary, "primary", false, "those that are used to encrypt")
	a.flags(cmd)
	return cmd
}

func listKeys(cmd *cobra.Command, a *asker, localOnly, primary bool) error {
	c, err := a.operate(cmd.Context())
	if err != nil {
		return err
	}
	defer c.Close()
	rings, err := c.Keyring(cmd.Context(), localOnly)
	if err != nil {
		return explained(c, err)
	}
	if a.json {
		return errors.Join(printJSON(cmd.OutOrStdout(), rings), refusals(cmd, rings, ""))
	}
	fmt.Fprintln(cmd.OutOrStdout(), "==> Gathering installed encryption keys...")
	for _, r := range rings {
		keys := r.Keys
		if primary {
			keys = r.PrimaryKeys
		}
		fmt.Fprintf(cmd.OutOrStdout(), "\n%s:\n", pool(r))
		printKeys(cmd.OutOrStdout(), r, keys)
	}
	return refusals(cmd, rings, "")
}

func pool(r client.Keyring) string {
	if r.WAN {
		return "WAN"
	}
	return r.Datacenter + " (LAN)"
}

// printKeys shows each key and how many hosts of those asked hold it; the one that is used
// to encrypt is marked.
func printKeys(w io.Writer, r client.Keyring, keys map[string]int) {
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		mark := ""
		if n := r.PrimaryKeys[key]; n > 0 {
			mark = fmt.Sprintf("  primary [%d/%d]", n, r.NumNodes)
		}
		fmt.Fprintf(w, "  %s [%d/%d]%s\n", key, keys[key], r.NumNodes, mark)
	}
}

// refusals says what each host could not do, and makes an error of it; missed is what
// becomes of a host that is away and was not asked.
func refusals(cmd *cobra.Command, rings []client.Keyring, missed string) error {
	failed := 0
	for _, r := range rings {
		if len(r.Failed) > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: failed, and not asked: %s\n%s", pool(r), strings.Join(r.Failed, ", "), missed)
		}
		for _, node := range slices.Sorted(maps.Keys(r.Messages)) {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s: %s\n", pool(r), node, r.Messages[node])
			failed++
		}
	}
	if failed > 0 {
		return exitError{1, fmt.Sprintf("%d of the hosts did not do it", failed)}
	}
	return nil
}

// keyringOp is a change of every host's keyring.
type keyringOp struct {
	name, short, says string
	missed            string // what becomes of a host that is away meanwhile
	change            func(*client.Client, context.Context, string) ([]client.Keyring, error)
}

var keyringOps = []keyringOp{
	{"install", "Give every host a further key, not used yet", "Installing new gossip encryption key...",
		"(a host that is away does not get this key: install it once more when the host is back, before you use it)\n", (*client.Client).KeyringInstall},
	{"use", "Have every host encrypt with an installed key", "Changing primary gossip encryption key...",
		"(a host that is away goes on with the key of before: one without this key stays out until it is given it; before you remove the other key, use this one once more when the host is back)\n", (*client.Client).KeyringUse},
	{"remove", "Take a key that is not used from every host", "Removing gossip encryption key...",
		"(a host that comes back with no other key stays out until it is given a present one, its log says how; one that has another drops this one by itself)\n", (*client.Client).KeyringRemove},
}

func (op keyringOp) command() *cobra.Command {
	var a asker
	cmd := &cobra.Command{
		Use: op.name + " KEY", Short: op.short, Args: oneArg("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error { return op.run(cmd, &a, args[0]) },
	}
	a.flags(cmd)
	return cmd
}

func (op keyringOp) run(cmd *cobra.Command, a *asker, key string) error {
	named := isFingerprint(key)
	switch {
	case named && op.name == "install":
		return exitError{2, "this is a fingerprint: to install a key the whole of it is wanted, in base64; `meibo keygen` makes one"}
	case !named && !isKey(key):
		return exitError{2, "the key is not base64 of 16, 24 or 32 bytes; `meibo keygen` makes one"}
	}
	c, err := a.operate(cmd.Context())
	if err != nil {
		return err
	}
	defer c.Close()
	if named || op.name == "remove" {
		rings, err := c.Keyring(cmd.Context(), false)
		if err != nil {
			return explained(c, err)
		}
		if key, err = heldKey(rings, key); err != nil {
			return err
		}
	}
	if !a.json {
		fmt.Fprintln(cmd.OutOrStdout(), "==> "+op.says)
	}
	rings, err := op.change(c, cmd.Context(), key)
	if err != nil {
		return explained(c, err)
	}
	if a.json {
		return errors.Join(printJSON(cmd.OutOrStdout(), rings), refusals(cmd, rings, op.missed))
	}
	for _, r := range rings {
		acknowledged := r.NumNodes - len(r.Messages)
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s [%d/%d]\n", pool(r), key, acknowledged, r.NumNodes)
	}
	return refusals(cmd, rings, op.missed)
}

func isKey(text string) bool {
	raw, err := base64.StdEncoding.DecodeString(text)
	return err == nil && (len(raw) == 16 || len(raw) == 24 || len(raw) == 32)
}

// fingerprintPrefix begins what stands for a key where keys are not shown.
const fingerprintPrefix = "sha256:"

func isFingerprint(text string) bool {
	digits := strings.TrimPrefix(text, fingerprintPrefix)
	_, err := hex.DecodeString(digits)
	return err == nil && len(digits) == 8
}

// fingerprint is what the HTTP port shows of a key.
func fingerprint(key string) string {
	raw, _ := base64.StdEncoding.DecodeString(key)
	sum := sha256.Sum256(raw)
	return fingerprintPrefix + hex.EncodeToString(sum[:4])
}

// heldKey finds the key that is given, or whose fingerprint is, among those that hosts hold.
func heldKey(rings []client.Keyring, given string) (string, error) {
	found, silent := make(map[string]bool), false
	for _, r := range rings {
		silent = silent || len(r.Messages) > 0
		for key := range r.Keys {
			switch {
			case isKey(given) && (key == given || key == fingerprint(given)):
				found[given] = true
			case isFingerprint(given) && isKey(key) && fingerprint(key) == fingerprintPrefix+strings.ToLower(strings.TrimPrefix(given, fingerprintPrefix)):
				found[key] = true
			}
		}
	}
	switch {
	case len(found) == 1:
		for key := range found {
			return key, nil
		}
	case len(found) > 1:
		return "", errors.New("more than one key has this fingerprint: give the whole key, in base64")
	case silent && isKey(given):
		return given, nil // a host that didn't answer may hold it
	case isFingerprint(given):
		return "", errors.New("no key that is shown has this fingerprint: give the whole key, in base64, or one that `meibo keyring list` shows")
	}
	return "", errors.New("no host holds this key: `meibo keyring list` shows those that are held")
}
