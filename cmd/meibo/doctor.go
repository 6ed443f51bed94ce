package main

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"meibo/cmd/meibo/doctor"
	"meibo/resolver/resolvconf"
)

type doctorCommand struct {
	asker
	root, server string
	dirs, files  []string // of the configuration
}

func newDoctorCommand() *cobra.Command {
	var d doctorCommand
	cmd := &cobra.Command{
		Use: "doctor", Short: "Examine this host, and say what to do", GroupID: "daemon", Args: noArgs,
		Long: `Examines this host, and says line by line what is wrong and what mends it: the
configuration and who may read its secrets, units of systemd, who has the port of DNS,
who owns resolv.conf and whom it names, nsswitch.conf, each upstream server and how fast
it answers, Docker and kubelet, the clock, the disk; and, of the cluster, whether its
servers are there, members' ports can be reached, and all run the same version.

It needs no daemon that runs, and changes nothing. What only root may see is unknown to
others, and said to be. It ends within 15 seconds. For monitoring (Nagios and its kin)
the first line sums up, and the exit code is 0 if all is well, 1 for warnings, 2 for
something critical, and 3 if nothing could be examined.`,
		Example: "  meibo doctor\n  sudo meibo doctor\n  meibo doctor -json | jq '.Findings[] | select(.Status == \"critical\")'",
		RunE:    d.run,
	}
	f := cmd.Flags()
	f.StringVar(&d.root, "root", "", "`directory` that stands for /: its files are looked at, and nothing that runs")
	f.StringVar(&d.server, "server", resolvconf.DefaultServer.String(), "`address` at which programs ask meibo, on port 53")
	f.StringArrayVar(&d.dirs, "config-dir", nil, "`directory` of the configuration; may be repeated (default that of the daemon, or else /etc/meibo.d)")
	f.StringArrayVar(&d.files, "config-file", nil, "`file` of the configuration; may be repeated")
	d.flags(cmd)
	return cmd
}

func (d *doctorCommand) run(cmd *cobra.Command, _ []string) error {
	const unknown = 3
	server, err := netip.ParseAddr(d.server)
	if err != nil {
		return exitError{unknown, fmt.Sprintf("-server: %q is no IP address", d.server)}
	}
	h := &doctor.Host{Root: strings.TrimSuffix(d.root, "/"), FilesOnly: d.root != "", Server: server.Unmap(), Config: append(d.dirs, d.files...)}
	if d.root != "" {
		if info, err := os.Stat(d.root); err != nil || !info.IsDir() {
			return exitError{unknown, fmt.Sprintf("-root: %s is no directory", d.root)}
		}
	} else {
		c, err := d.dial()
		if err != nil {
			return exitError{unknown, err.Error()}
		}
		defer c.Close()
		h.Agent = c
	}
	findings := doctor.Examine(cmd.Context(), h)
	worst := doctor.Worst(findings)
	if d.json {
		err = printJSON(cmd.OutOrStdout(), struct {
			Status   doctor.Status
			Findings []doctor.Finding
		}{worst, findings})
	} else {
		err = printFindings(cmd.OutOrStdout(), worst, findings)
	}
	if err != nil {
		return exitError{unknown, err.Error()}
	}
	switch worst {
	case doctor.Critical:
		return exitError{code: 2}
	case doctor.Warning:
		return exitError{code: 1}
	}
	return nil
}

func printFindings(w io.Writer, worst doctor.Status, findings []doctor.Finding) error {
	count := map[doctor.Status]int{}
	rows := make([][]string, 0, 2*len(findings))
	for _, f := range findings {
		count[f.Status]++
		rows = append(rows, []string{string(f.Status), f.Check, f.What})
		if f.Mend != "" {
			rows = append(rows, []string{"", "", "mend: " + f.Mend})
		}
	}
	if _, err := fmt.Fprintf(w, "%s: %d critical, %s, %d unknown, %d ok\n", strings.ToUpper(string(worst)), count[doctor.Critical], counted(count[doctor.Warning], "warning"), count[doctor.Unknown], count[doctor.OK]); err != nil {
		return err
	}
	return table(w, rows)
}
