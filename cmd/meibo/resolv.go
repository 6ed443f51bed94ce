package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"

	"meibo/resolver/resolvconf"
)

func newResolvCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "resolv", Short: "Have this host's programs ask meibo, and give the host back", GroupID: "daemon",
		Long: `Takes over how this host resolves names, and gives it back as it was: /etc/resolv.conf
and whoever owns it (systemd-resolved, NetworkManager, resolvconf, openresolv, dhclient,
dhcpcd, cloud-init, netconfig, a container's runtime, nobody).

  meibo resolv status                who owns it, what is changed
  meibo resolv install               programs ask meibo from now on
  meibo resolv install -only consul  systemd-resolved asks it for .consul alone
  meibo resolv restore               as it was, byte for byte
  meibo resolv docker                the same for containers of Docker`,
	}
	cmd.AddCommand(newResolvInstallCommand(), newResolvStatusCommand(), newResolvRestoreCommand(), newResolvKeepCommand(), newResolvDockerCommand())
	return cmd
}

// taker is what the commands have in common that take a host over.
type taker struct {
	root, server, name string
	json               bool
}

func (t *taker) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.root, "root", "", "`directory` that stands for /: its files are changed, nothing is checked, and no program is run")
	jsonFlags(cmd, &t.json, "print JSON")
}

func (t *taker) checkFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.server, "server", resolvconf.DefaultServer.String(), "`address` at which meibo answers, on port 53")
	cmd.Flags().StringVar(&t.name, "check", "", "`name` that must resolve before and after (default the name servers of the root, as the Internet has them)")
}

// host is the host that the flags name.
func (t *taker) host() (*resolvconf.Host, error) {
	h := &resolvconf.Host{Root: t.root}
	if t.server != "" {
		addr, err := netip.ParseAddr(t.server)
		if err != nil {
			return nil, exitError{2, fmt.Sprintf("-server: %q is no IP address", t.server)}
		}
		h.Server = addr.Unmap()
	}
	if t.root == "" {
		h.Check = resolves
	}
	return h, nil
}

// resolves looks whether it is meibo that answers, or systemd-resolved that asks it, and whether a name resolves.
func resolves(ctx context.Context, server netip.AddrPort, name string) error {
	if !resolvconf.IsStub(server.Addr()) {
		if err := isMeibo(ctx, server.String()); err != nil {
			return err
		}
	}
	return resolvconf.Resolves(ctx, server, name)
}

// isMeibo is why it is not meibo that answers DNS at an address.
func isMeibo(ctx context.Context, server string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	q := new(dns.Msg).SetQuestion("version.bind.", dns.TypeTXT)
	q.Question[0].Qclass = dns.ClassCHAOS
	reply, _, err := new(dns.Client).ExchangeContext(ctx, q, server)
	if operation := (*net.OpError)(nil); errors.As(err, &operation) {
		return fmt.Errorf("nobody answers DNS at %s (%w): start meibo first; `meibo validate /etc/meibo.d` tells what is in its way", server, operation.Err)
	}
	if err != nil {
		return fmt.Errorf("ask %s who it is: %w", server, err)
	}
	for _, rr := range reply.Answer {
		if txt, ok := rr.(*dns.TXT); ok && strings.HasPrefix(strings.Join(txt.Txt, ""), "meibo ") {
			return nil
		}
	}
	return fmt.Errorf("it is not meibo that answers DNS at %s: stop whoever does, and start meibo", server)
}

func newResolvInstallCommand() *cobra.Command {
	var t taker
	var o resolvconf.Options
	cmd := &cobra.Command{
		Use: "install", Short: "Have this host's programs ask meibo", Args: noArgs,
		Long: `Has this host's programs ask meibo. It finds who owns /etc/resolv.conf and the true name
servers, which meibo forwards to from then on; writes down what is there; tells the owner
that another writes the file; and changes it. A name must resolve by meibo before, and by
the file after it: otherwise, and on any error, all is put back. What is killed in the
middle is put back by ` + "`meibo resolv restore`" + ` and at the next boot. Where it is installed
already, it makes good what others changed since.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := t.host()
			if err != nil {
				return err
			}
			o.Only, o.Name = strings.Trim(o.Only, "."), t.name
			s, err := h.Install(cmd.Context(), o)
			if err != nil {
				return err
			}
			return t.print(cmd.OutOrStdout(), s)
		},
	}
	t.flags(cmd)
	t.checkFlags(cmd)
	cmd.Flags().StringVar(&o.Only, "only", "", "`domain`: names in it alone are asked of meibo, which systemd-resolved can do")
	return cmd
}

func newResolvStatusCommand() *cobra.Command {
	var t taker
	cmd := &cobra.Command{
		Use: "status", Short: "Tell who owns resolv.conf, and what is changed", Args: noArgs,
		Long: `Tells who owns /etc/resolv.conf, which servers it names, which are the true ones, what
` + "`meibo resolv install`" + ` changed, and whether somebody changed that since. It changes nothing.
Exit code 1: somebody overwrote it, or a change was killed in the middle.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := t.host()
			if err != nil {
				return err
			}
			s, err := h.Status()
			if err := errors.Join(t.print(cmd.OutOrStdout(), s), err); err != nil {
				return err
			}
			if s.State == resolvconf.Overwritten || s.State == resolvconf.Unfinished {
				return exitError{code: 1}
			}
			return nil
		},
	}
	t.flags(cmd)
	return cmd
}

func newResolvRestoreCommand() *cobra.Command {
	var t taker
	var force bool
	cmd := &cobra.Command{
		Use: "restore", Short: "Put back how this host resolved names", Args: noArgs,
		Long: `Puts back what was there before ` + "`meibo resolv install`" + `, byte for byte, and has its owner
write it again. It may be run at any time, again too; where nothing is installed it does
nothing. A resolv.conf that somebody else wrote since, with servers of his own, stays.
The packages run it when they are removed, before the daemon stops.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := t.host()
			if err != nil {
				return err
			}
			s, err := h.Restore(cmd.Context(), force)
			if err != nil {
				return err
			}
			return t.print(cmd.OutOrStdout(), s)
		},
	}
	t.flags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "put back what was there before also where somebody else wrote resolv.conf since")
	return cmd
}

func newResolvKeepCommand() *cobra.Command {
	var t taker
	cmd := &cobra.Command{
		Use: "keep", Short: "Make good what others overwrote, three times an hour at most", Args: noArgs,
		Long: `Makes good what others overwrote since ` + "`meibo resolv install`" + `, three times an hour at
most: then it leaves it, and says who writes it. Where meibo does not answer it leaves it
too. It takes back a change that was killed in the middle. The unit meibo-resolv.service
runs it at boot, and whenever /etc/resolv.conf changes.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := t.host()
			if err != nil {
				return err
			}
			before, _ := h.Status()
			s, err := h.Keep(cmd.Context())
			if err != nil {
				return err
			}
			if s.State == before.State && !t.json {
				return nil // there was nothing to do, and nothing to say
			}
			return t.print(cmd.OutOrStdout(), s)
		},
	}
	t.flags(cmd)
	return cmd
}

func newResolvDockerCommand() *cobra.Command {
	var t taker
	var address string
	var apply, restore bool
	cmd := &cobra.Command{
		Use: "docker", Short: "Have containers of Docker ask meibo, and back", Args: noArgs,
		Long: `Docker hands no loopback server to its containers, and falls back to public ones where
/etc/resolv.conf names no other. Shows what would have them ask meibo: an address of this
host that they reach, in a drop-in of meibo.socket, and the key dns of daemon.json.

  meibo resolv docker                            what would be written, and how it is
  meibo resolv docker -apply                     at the address of Docker's first bridge
  meibo resolv docker -apply -address 169.254.53.53
                                                 at one that is the same on all hosts
  meibo resolv docker -restore                   as it was

Docker itself is not restarted: that stops containers.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := t.host()
			if err != nil {
				return err
			}
			var at netip.Addr
			if address != "" {
				if at, err = netip.ParseAddr(address); err != nil {
					return exitError{2, fmt.Sprintf("-address: %q is no IP address", address)}
				}
			}
			var s resolvconf.DockerStatus
			switch {
			case apply && restore:
				return exitError{2, "one of -apply and -restore is wanted, not both"}
			case apply:
				s, err = h.InstallDocker(cmd.Context(), at, t.name)
			case restore:
				s, err = h.RestoreDocker(cmd.Context())
			default:
				s, err = h.Docker(at)
			}
			if err != nil {
				return err
			}
			return t.printDocker(cmd.OutOrStdout(), s)
		},
	}
	t.flags(cmd)
	t.checkFlags(cmd)
	cmd.Flags().StringVar(&address, "address", "", "`address` of this host that containers reach: a bridge's (default docker0's), or a link-local one, which the loopback interface gets")
	cmd.Flags().BoolVar(&apply, "apply", false, "write it")
	cmd.Flags().BoolVar(&restore, "restore", false, "take it back")
	return cmd
}

var changeText = map[resolvconf.State]string{
	resolvconf.Off:         "off: nothing is changed",
	resolvconf.Installed:   "installed",
	resolvconf.Overwritten: "overwritten by others since",
	resolvconf.Unfinished:  "unfinished: a change was killed in the middle",
}

func (t *taker) print(w io.Writer, s resolvconf.Status) error {
	if t.json {
		return printJSON(w, s)
	}
	state := changeText[s.State]
	if s.Since != nil {
		state += ", taken over at " + s.Since.Format(time.DateTime) + " UTC"
	}
	if s.Only != "" {
		state += ", for names in " + s.Only + " alone"
	}
	owner := fmt.Sprintf("%s: %s", s.Owner, s.Why)
	if s.Via != "" {
		owner += "; configured by " + s.Via
	}
	rows := [][]string{
		{"state", state}, {"resolv.conf", s.File}, {"owner", owner}, {"servers", listOr(s.Servers, "none")},
		{"upstreams", listOr(s.Upstreams, "none")},
	}
	if s.UpstreamsFrom != "" {
		rows[4][1] += " of " + s.UpstreamsFrom
	}
	if n := len(s.Reasserted); n > 0 {
		rows = append(rows, []string{"kept", fmt.Sprintf("written anew %d times within the last hour", n)})
	}
	return t.printRest(w, rows, s.Changes, s.Programs, s.Notes, s.Next)
}

func (t *taker) printDocker(w io.Writer, s resolvconf.DockerStatus) error {
	if t.json {
		return printJSON(w, s)
	}
	rows := [][]string{{"state", changeText[s.State]}, {"address", s.Address.String()}, {"daemon.json", "dns: " + orDash(strings.Join(s.DNS, ", "))}}
	if err := t.printRest(w, rows, s.Changes, s.Programs, s.Notes, s.Next); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(s.Files)) {
		if _, err := fmt.Fprintf(w, "\nwould be in %s:\n%s", path, s.Files[path]); err != nil {
			return err
		}
	}
	return nil
}

func (t *taker) printRest(w io.Writer, rows [][]string, changes []resolvconf.Change, programs, notes []string, next string) error {
	ran := "ran"
	if t.root != "" {
		ran = "to be run"
	}
	for _, p := range programs {
		rows = append(rows, []string{ran, p})
	}
	for _, n := range notes {
		rows = append(rows, []string{"note", n})
	}
	if next != "" {
		rows = append(rows, []string{"next", next})
	}
	if err := table(w, rows); err != nil || len(changes) == 0 {
		return err
	}
	rows = [][]string{{"Path", "Change", "Now"}}
	for _, c := range changes {
		rows = append(rows, []string{c.Path, c.What, c.Now})
	}
	fmt.Fprintln(w)
	return table(w, rows)
}

// listOr is a list as a text, or another text where it is empty.
func listOr[T fmt.Stringer](list []T, empty string) string {
	if len(list) == 0 {
		return empty
	}
	return joined(list)
}
