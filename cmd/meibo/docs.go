//go:build docs

package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meibo/cmd/meibo/config"
)

// main writes the manual into the folder that is named, below man5 and man8: a page for each command, made from what its
// help is made from, and meibo.d(5). With the tag docs this is all that the program does.
func main() {
	if len(os.Args) != 3 || os.Args[1] != "docs" {
		fmt.Fprintln(os.Stderr, "usage: meibo docs FOLDER")
		os.Exit(2)
	}
	if err := writeManual(os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "meibo docs:", err)
		os.Exit(1)
	}
}

func writeManual(folder string) error {
	if err := writeCommands(newRoot(), folder); err != nil {
		return err
	}
	keys, err := config.Manual(filepath.Join("cmd", "meibo", "config", "testdata", "full", "full.hcl"))
	if err != nil {
		return err
	}
	return writePage(folder, 5, "meibo.d", "configuration of meibo", keysIntro+keys+keysEnd)
}

// writeCommands writes the page of a command and those of the commands below it.
func writeCommands(cmd *cobra.Command, folder string) error {
	if !cmd.IsAvailableCommand() && cmd.HasParent() || cmd.Name() == "help" {
		return nil
	}
	for _, c := range cmd.Commands() {
		if err := writeCommands(c, folder); err != nil {
			return err
		}
	}
	return writePage(folder, 8, pageOf(cmd), strings.ToLower(cmd.Short[:1])+cmd.Short[1:], commandPage(cmd))
}

// pageOf is the name of a command's page.
func pageOf(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

func commandPage(cmd *cobra.Command) string {
	var b strings.Builder
	synopsis := cmd.UseLine()
	if cmd.HasAvailableSubCommands() && !cmd.Runnable() || !cmd.HasParent() {
		synopsis = cmd.CommandPath() + " COMMAND"
	}
	fmt.Fprintf(&b, "# SYNOPSIS\n**%s**\n\n# DESCRIPTION\n%s\n\n", synopsis, escaped(cmp.Or(cmd.Long, cmd.Short+".")))
	if cmd.HasAvailableSubCommands() {
		b.WriteString("# COMMANDS\n")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(&b, "**%s**(8)\n: %s\n\n", pageOf(c), escaped(c.Short))
			}
		}
	}
	if flags := options(cmd.NonInheritedFlags()); flags != "" {
		b.WriteString("# OPTIONS\n" + flags)
	}
	if cmd.Example != "" {
		b.WriteString("# EXAMPLES\n")
		for line := range strings.Lines(cmd.Example) {
			b.WriteString("    " + strings.TrimSpace(line) + "\n")
		}
		b.WriteString("\n")
	}
	if !cmd.HasParent() {
		b.WriteString(rootEnd)
	}
	b.WriteString("# SEE ALSO\n")
	if cmd.HasParent() {
		fmt.Fprintf(&b, "**%s**(8), ", pageOf(cmd.Parent()))
	}
	b.WriteString("**meibo.d**(5)\n")
	return b.String()
}

func options(flags *pflag.FlagSet) string {
	var b strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		if name != "" {
			name = " *" + name + "*"
		}
		if d := f.DefValue; d != "" && d != "false" && d != "[]" && d != "0" && d != "0s" {
			usage += " (default " + d + ")"
		}
		fmt.Fprintf(&b, "**-%s**%s\n: %s\n\n", f.Name, name, escaped(usage))
	})
	return b.String()
}

// escaped is text in which nothing is Markdown but what it says in backquotes; what is indented stays as it is.
func escaped(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "  ") {
			b.WriteString("  " + line)
			continue
		}
		b.WriteString(strings.NewReplacer("_", `\_`, "*", `\*`, "<", `\<`).Replace(line))
	}
	return b.String()
}

func writePage(folder string, section int, name, what, text string) error {
	dir := filepath.Join(folder, fmt.Sprintf("man%d", section))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	page := fmt.Sprintf("%s %d \"\" \"meibo %s\" \"meibo\"\n===\n\n# NAME\n%s - %s\n\n%s", strings.ToUpper(name), section, version, name, what, text)
	return os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s.%d", name, section)), md2man.Render([]byte(page)), 0o644)
}

const rootEnd = `# FILES
**/etc/meibo.d**
: Configuration, see **meibo.d**(5).

**/var/lib/meibo**
: What the daemon keeps: its identity, the services registered by programs, the last known catalog and, on servers, Raft's log.

**/run/meibo/control.sock**
: Where commands go that change the cluster: root and the daemon's user may.

# THE PACKAGE
**meibo.socket** makes the sockets of port 53, **meibo.service** runs the daemon as the user meibo, without any right of root. So:

DNS on further addresses (::1, a bridge of containers), or elsewhere than on port 53, is said in a drop-in of meibo.socket, in place of
**listen**: more-addresses.conf and beside-dnsmasq.conf in /usr/share/doc/meibo/examples. Queries wait in these sockets while the
daemon is started anew.

A file of /etc/meibo.d with a secret is root:meibo, mode 0640. **meibo validate**, run as root, names files that the daemon's user
can't read, and addresses that meibo.socket lacks.

Checks can't run programs until script-checks.conf, a drop-in of meibo.service, lets them; reload-nginx.rules, a rule of polkit, lets
them reload one unit.

**meibo leave** takes the host out of its cluster for good: run by root it stops both units. **systemctl disable meibo.socket
meibo.service** keeps that over a reboot.

Further settings go into files that sort after 00-meibo.hcl, which is the package's. Who starts **meibo agent** by hand on the package's
data does so as its user: **runuser -u meibo -- meibo agent -config-dir /etc/meibo.d**, with both units stopped.

# USE BY THIS HOST
The package changes nothing of how this host resolves names until somebody says so:

    meibo lookup deb.debian.org
    meibo resolv install

or, where nobody can be asked, **MEIBO_RESOLV=install** in the environment of its installation (of **apt-get**, **dpkg** or **rpm**), or the
answer to its question **meibo/resolv** (debconf, of low priority, no unless it is answered). **meibo-resolv**(8) says what it
changes. Its units **meibo-resolv.path** and **meibo-resolv.service** do nothing before: they see when others overwrite
/etc/resolv.conf. The removal of the package puts everything back while the daemon still answers, and is refused where that
fails, unless **MEIBO_RESOLV=leave** is in its environment.

/run/meibo/resolv.conf names the servers that the daemon forwards to: kubelet reads it by **resolvConf**, and must not be told of
meibo's own address.

# SIGNALS
**SIGHUP** has the daemon read its configuration again. **SIGTERM** and **SIGINT** stop it; a stop is no leave.

`

const keysIntro = `# SYNOPSIS
**/etc/meibo.d/**\*.hcl, **/etc/meibo.d/**\*.json

# DESCRIPTION
The files of the folder are read in the order of their names; the later wins, and lists are put together. They are HCL, or JSON
with the same keys. A file of Consul's agent can stay as it is. **meibo validate /etc/meibo.d** tells what is wrong, with file, line
and key; **systemctl reload meibo** has the daemon read them again, and says which changes wait for a restart.

A dot in the name of a key stands for a block: **dns_config.node_ttl** is node_ttl within dns_config { }. Keys that begin with
service., check. and forward. are those of each such block.

`

const keysEnd = `# SEE ALSO
**meibo**(8), **meibo-validate**(8), **meibo-config-import-dnsmasq**(8)
`
