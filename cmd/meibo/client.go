package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"meibo/cluster/httpapi/client"
	"meibo/resolver/listen"
)

// asker is what the commands have in common that ask the daemon.
type asker struct {
	addr, token, tokenFile string
	json                   bool // as the flag -json or -format json says
}

func (a *asker) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.addr, "http-addr", "", "the daemon's API: `address` host:port, URL or unix://path (default $CONSUL_HTTP_ADDR or "+client.DefaultAddress+")")
	f.StringVar(&a.token, "token", "", "ACL token (default $CONSUL_HTTP_TOKEN)")
	f.StringVar(&a.tokenFile, "token-file", "", "`file` that holds the ACL token")
	jsonFlags(cmd, &a.json, "print JSON")
}

// jsonFlags gives a command -json, and -format as Consul's have it.
func jsonFlags(cmd *cobra.Command, asJSON *bool, usage string) {
	cmd.Flags().BoolVar(asJSON, "json", false, usage)
	cmd.Flags().Var((*formatFlag)(asJSON), "format", "pretty, or json as -json does")
	completeFlag(cmd, "format", fixed("pretty", "json"))
}

// formatFlag is the flag -format: whether JSON is printed.
type formatFlag bool

// String implements pflag.Value.
func (f *formatFlag) String() string {
	if *f {
		return "json"
	}
	return "pretty"
}

// Set implements pflag.Value.
func (f *formatFlag) Set(s string) error {
	if s != "json" && s != "pretty" {
		return fmt.Errorf("%q is neither pretty nor json", s)
	}
	*f = s == "json"
	return nil
}

// Type implements pflag.Value.
func (f *formatFlag) Type() string { return "format" }

// done says what a command has done: in words, or as JSON.
func (a *asker) done(w io.Writer, result any, format string, args ...any) error {
	if a.json {
		return printJSON(w, result)
	}
	_, err := fmt.Fprintf(w, format+"\n", args...)
	return err
}

// saysWhom reports whether a flag or the environment names the daemon.
func (a *asker) saysWhom() bool {
	return a.addr != "" || os.Getenv("MEIBO_HTTP_ADDR") != "" || os.Getenv("CONSUL_HTTP_ADDR") != ""
}

// dial makes a client of the daemon's API; flags win over the environment. Whoever may goes over the control socket, which
// is there whatever ports the API has.
func (a *asker) dial() (*client.Client, error) {
	const write = 2
	if socket := filepath.Join(runFolder, controlName); !a.saysWhom() && isTrusted(socket) && syscall.Access(socket, write) == nil {
		if conn, err := net.DialTimeout("unix", socket, time.Second); err == nil {
			conn.Close()
			return a.dialSocket(socket)
		}
	}
	cfg, err := client.FromEnv(os.Getenv)
	if err != nil {
		return nil, err
	}
	if a.addr != "" {
		cfg.Address = a.addr
	}
	if a.token != "" {
		cfg.Token = a.token
	}
	if a.tokenFile != "" {
		cfg.TokenFile = a.tokenFile
	}
	return client.New(cfg)
}

// operate makes a client for what an operator does: the control socket's where it can be had, and one that talks to meibo
// in any case. A Consul agent takes the same calls, and must not be ended by ours.
func (a *asker) operate(ctx context.Context) (*client.Client, error) {
	if socket := filepath.Join(runFolder, controlName); !a.saysWhom() && isTrusted(socket) {
		if c, err := a.dialSocket(socket); err == nil {
			if self, err := c.Self(ctx); err == nil && self.IsMeibo() {
				return c, nil
			}
			c.Close()
		}
	}
	c, err := a.dial()
	if err != nil {
		return nil, err
	}
	self, meta, err := c.WhoAnswers(ctx)
	switch {
	case err != nil:
		defer c.Close()
		return nil, explained(c, err)
	case !self.IsMeibo():
		defer c.Close()
		return nil, fmt.Errorf("%s is answered by Consul %s, not by meibo, and nothing was done: name meibo's address with -http-addr", c.Address(), orDash(self.Config.Version))
	case meta.Control == "" || !isTrusted(meta.Control) || !c.IsLocal():
		return c, nil
	}
	over, err := a.dialSocket(meta.Control)
	if err != nil {
		return c, nil
	}
	if self, err := over.Self(ctx); err != nil || !self.IsMeibo() { // this user may not: the refusal says who may
		over.Close()
		return c, nil
	}
	c.Close()
	return over, nil
}

// notMeibo tells of an error that it is no meibo that was asked, where that is so: a Consul agent knows nothing of ours,
// and whoever else has the port knows even less.
func notMeibo(ctx context.Context, c *client.Client, err error) error {
	self, e := c.Self(ctx)
	switch holder := holderOf(c); {
	case e == nil && self.IsMeibo():
		return err
	case e == nil:
		return fmt.Errorf("%s is answered by Consul %s, not by meibo: name meibo's address with -http-addr (a port that was taken when it started is in its log)",
			c.Address(), orDash(self.Config.Version))
	case holder != "" && !strings.HasPrefix(holder, "meibo (pid "):
		return fmt.Errorf("%s is held by %s, which does not answer as meibo does (%w): name meibo's address with -http-addr", c.Address(), holder, err)
	}
	return err
}

// holderOf is the process that has the port of the API on this host, as far as that can be seen; "" for none.
func holderOf(c *client.Client) string {
	u, err := url.Parse(c.Address())
	if err != nil || !c.IsLocal() {
		return ""
	}
	at, err := netip.ParseAddrPort(strings.Replace(u.Host, "localhost", "127.0.0.1", 1))
	if err != nil {
		return ""
	}
	return listen.InUse("tcp", at)
}

func (a *asker) dialSocket(path string) (*client.Client, error) {
	b := *a
	b.addr = "unix://" + path
	return b.dial()
}

// explained says what a person can do with: of a refusal what the daemon says, of a daemon that doesn't answer what to do.
func explained(c *client.Client, err error) error {
	if err == nil {
		return nil
	}
	var call *net.OpError
	if errors.As(err, &call) && call.Op == "dial" {
		return fmt.Errorf("no daemon answers on %s: %w\nstart one with `meibo agent`, or name its address with -http-addr", c.Address(), call.Err)
	}
	var refusal *client.Error
	if errors.As(err, &refusal) && refusal.Text != "" {
		return errors.New(refusal.Text + whatNow(refusal.Text))
	}
	return err
}

// whatNow is what to do about a refusal in the words that Consul's clients know.
func whatNow(text string) string {
	for _, silent := range []string{"No known Consul servers", "No cluster leader", "rpc error making call"} {
		if strings.Contains(text, silent) {
			return "\nno server answers, or they have no leader: `meibo members -detailed` shows which are gone; more than half of them must run and reach each other, and have the files that they had: where these are lost for good, write raft/peers.json on those that are left (README, \"When servers are lost\")"
		}
	}
	return ""
}

// noteConsul says that it is a Consul agent's knowledge that is shown, where that is so.
func noteConsul(cmd *cobra.Command, c *client.Client) {
	if self, err := c.Self(cmd.Context()); err == nil && !self.IsMeibo() {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %s is answered by Consul %s, not by meibo: name meibo's address with -http-addr\n", c.Address(), orDash(self.Config.Version))
	}
}

// noteAge says that what is shown is what the host knew when it last heard of a leader.
func noteAge(w io.Writer, m client.Meta) {
	switch {
	case m.KnownLeader:
	case m.LastContact > 0:
		fmt.Fprintf(w, "no server with a leader answers: this is what this host knew %s ago\n", short(m.LastContact.Seconds()))
	default:
		fmt.Fprintln(w, "no server with a leader answers: this is what this host knows from before")
	}
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "    ")
	return encoder.Encode(v)
}

// table writes rows in aligned columns.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(t, "\t")
			}
			fmt.Fprint(t, cell)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}
