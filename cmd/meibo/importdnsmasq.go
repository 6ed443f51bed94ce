package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"meibo/cmd/meibo/dnsmasq"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Make configuration files", GroupID: "daemon"}
	cmd.AddCommand(newImportDnsmasqCommand())
	return cmd
}

func newImportDnsmasqCommand() *cobra.Command {
	var out string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "import-dnsmasq FILE...", Short: "Turn a dnsmasq configuration into meibo's", Args: someArgs("FILE"),
		Long: `Reads configuration files of dnsmasq, those of their conf-file= and conf-dir= too, and
prints a file for meibo that does the same: servers by domain and network, addresses and
records, hosts files, blocks and filters, where to listen. What it leaves out, changes or
has no need of is listed line by line, with the reason, on the standard error output and
at the head of the file. Nothing else is changed, and nothing is started or stopped.

  meibo config import-dnsmasq /etc/dnsmasq.conf -o /etc/meibo.d/dnsmasq.hcl
  meibo validate /etc/meibo.d`,
		RunE: func(cmd *cobra.Command, files []string) error {
			res, err := dnsmasq.Import(files...)
			if err != nil {
				return err
			}
			if out != "" {
				if err := writeNew(out, res.HCL); err != nil {
					return err
				}
			}
			if asJSON {
				if res.Notes == nil {
					res.Notes = []dnsmasq.Note{}
				}
				return printJSON(cmd.OutOrStdout(), res)
			}
			if out == "" {
				fmt.Fprint(cmd.OutOrStdout(), res.HCL)
			}
			for _, n := range res.Notes {
				cmd.PrintErrln(n)
			}
			if out != "" {
				cmd.PrintErrf("%s is written; `meibo validate` checks it together with the other files of its directory\n", out)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write to `file`, which must not exist")
	jsonFlags(cmd, &asJSON, "print JSON: the file's text and the notes")
	return cmd
}

// writeNew writes a file that isn't there yet.
func writeNew(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists already: move it away, or name another file", path)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
