package main

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meibo/cluster/httpapi/client"
	"meibo/resolver/control"
	"meibo/resolver/wire"
)

func newLookupCommand() *cobra.Command {
	var a asker
	cmd := &cobra.Command{
		Use: "lookup NAME [TYPE]", Short: "Ask for a name, and see where the answer came from", GroupID: "ask",
		Long: `Asks the local daemon and shows the answer as dig would; below it where it came from,
how old it is and how long it may be kept; and for a service each instance with its
state, and why some are left out. TYPE is A unless given; an address asks for its PTR.
Exit code 1 when the answer is not NOERROR.`,
		Example: "  meibo lookup web.service.consul\n  meibo lookup web.service.consul SRV\n  meibo lookup 192.0.2.7",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return exitError{2, "lookup takes NAME and, if you like, TYPE: meibo lookup web.service.consul SRV"}
			}
			if len(args) == 2 {
				if _, ok := wire.ParseType(args[1]); !ok {
					return exitError{2, fmt.Sprintf("%q is no record type: TYPE is A, AAAA, SRV, TXT, PTR, CNAME, MX, NS, SOA, ANY or another one's name, or TYPEn", args[1])}
				}
			}
			return nil
		},
		ValidArgsFunction: a.completeLookup,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			query := url.Values{"name": {args[0]}}
			if len(args) == 2 {
				query.Set("type", args[1])
			}
			var l control.Lookup
			if _, err := c.Get(cmd.Context(), "/v1/meibo/lookup?"+query.Encode(), &client.Query{}, &l); err != nil {
				return notMeibo(cmd.Context(), c, explained(c, err))
			}
			if a.json {
				err = printJSON(cmd.OutOrStdout(), l)
			} else {
				err = printLookup(cmd.OutOrStdout(), l)
			}
			if err == nil && l.Rcode != "NOERROR" {
				err = exitError{code: 1}
			}
			return err
		},
	}
	a.flags(cmd)
	return cmd
}

// completeLookup offers names that the daemon knows, and types.
func (a *asker) completeLookup(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return a.known(lookupNames)(cmd, args, typed)
	case 1:
		return []string{"A", "AAAA", "SRV", "TXT", "PTR", "ANY"}, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// printLookup shows an answer as dig would, then what dig can't know.
func printLookup(w io.Writer, l control.Lookup) error {
	fmt.Fprintf(w, ";; %s %s: %s, flags %s\n", l.Name, l.Type, l.Rcode, strings.Join(l.Flags, " "))
	for _, section := range []struct {
		name    string
		records []string
	}{{"", l.Answer}, {"authority", l.Authority}, {"additional", l.Additional}} {
		if len(section.records) > 0 && section.name != "" {
			fmt.Fprintf(w, ";; %s\n", section.name)
		}
		for _, record := range section.records {
			fmt.Fprintln(w, record)
		}
	}
	fmt.Fprintln(w)
	rows := [][]string{{"from", cmp.Or(l.Source, "nobody")}}
	if l.Mount != "" && l.Mount != l.Source {
		rows = append(rows, []string{"zone", l.Mount})
	}
	rows = append(rows, []string{"cached", cached(l)})
	rows = append(rows, []string{"took", short(l.TookSeconds)})
	if l.Catalog != nil {
		rows = append(rows, catalogRows(l.Catalog)...)
	}
	if l.EDE != nil {
		rows = append(rows, []string{"extended error", strings.TrimSuffix(fmt.Sprintf("%d %s: %s", l.EDE.Code, l.EDE.Name, l.EDE.Text), ": ")})
	}
	if l.Error != "" {
		rows = append(rows, []string{"because", l.Error})
	}
	if err := table(w, rows); err != nil || len(l.Instances) == 0 {
		return err
	}
	return printInstances(w, l.Instances)
}

// catalogRows say how well what the answer rests on is known.
func catalogRows(c *control.Catalog) [][]string {
	confirmed := "never by a server: this host's own word"
	switch {
	case c.Fresh:
		confirmed = "now"
	case c.Confirmed != nil:
		confirmed = short(time.Since(*c.Confirmed).Seconds()) + " ago; no server with a leader confirms it now"
	case c.Way != "agent":
		confirmed = "not by a server that this host has heard"
	}
	rows := [][]string{
		{"known by", c.Way},
		{"history", fmt.Sprintf("%s, index %d", cmp.Or(c.History, "none yet"), c.Index)},
		{"confirmed", confirmed},
	}
	if c.Trouble != "" {
		rows = append(rows, []string{"trouble", c.Trouble})
	}
	return rows
}

func cached(l control.Lookup) string {
	if l.Source == "" && !l.Cached {
		return "no, there is no answer to keep"
	}
	var kept string
	switch {
	case l.LeftSeconds != nil && *l.LeftSeconds <= 0 && !l.Cached:
		return "no, its TTL is 0"
	case l.LeftSeconds == nil:
		kept = "until something it rests on changes"
	case l.Stale:
		kept = "expired, and the only one there is"
	default:
		kept = "for another " + short(*l.LeftSeconds)
	}
	if !l.Cached {
		return "no, made now; kept " + kept
	}
	return fmt.Sprintf("yes, %s old; kept %s", short(l.AgeSeconds), kept)
}

func short(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func printInstances(w io.Writer, instances []control.Instance) error {
	fmt.Fprintln(w)
	rows := [][]string{{"Node", "Instance", "Address", "State", "In answers", "Why"}}
	for _, i := range instances {
		answered := "yes"
		if !i.Answered {
			answered = "left out"
		}
		address := fmt.Sprintf("%s:%d", i.Address, i.Port)
		if i.Address == "" {
			address = "-"
		}
		rows = append(rows, []string{i.Node, i.ServiceID, address, i.Status, answered, why(i)})
	}
	return table(w, rows)
}

// why says why an instance is left out, or answered although it looks as if it should not be.
func why(i control.Instance) string {
	text := i.Reason
	if i.Unconfirmed {
		text = strings.TrimSuffix("no server confirms it, it is from before the catalog began anew; "+text, "; ")
	}
	if i.HeldUntil != nil {
		text += ", until " + i.HeldUntil.Local().Format(time.TimeOnly)
	}
	if output := strings.Join(strings.Fields(i.Output), " "); output != "" && text != "" {
		text += ": " + output
		if i.OutputSeconds != nil && *i.OutputSeconds > 1 {
			text += " (" + short(*i.OutputSeconds) + " old)"
		}
	}
	return text
}
