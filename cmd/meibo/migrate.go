package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"meibo/cmd/meibo/migrate"
)

type migrateCommand struct {
	src         migrate.Source
	apply, undo bool
	json        bool
}

func newMigrateCommand() *cobra.Command {
	var m migrateCommand
	cmd := &cobra.Command{
		Use: "migrate", Short: "Take this host from dnsmasq to meibo, and back", GroupID: "daemon", Args: noArgs,
		Long: `Reads the configuration of dnsmasq's service and of the Consul agent, if there is one,
and prints what would be written for meibo, as a diff, and what would not be as it was.
Nothing is changed.

-apply carries it out: dnsmasq is stopped and meibo started in its place, while queries
wait and are answered then. Names that dnsmasq answered are asked again, those that its
files show and those of -name; if one is not answered as before, or anything else fails,
files and units are put back as they were. -undo does that later; what there was is in
/var/backups/meibo-migrate.json.

A Consul agent stays: names of its domain are forwarded to it and cached. -standalone
replaces it too, with its services and checks; this host is no member of that cluster
then, as meibo's hosts and Consul's don't join each other. Secrets are never printed.`,
		Example: "  meibo migrate\n  meibo migrate -apply -name www.example.com\n  meibo migrate -undo",
		RunE:    m.run,
	}
	f := cmd.Flags()
	f.BoolVar(&m.apply, "apply", false, "carry it out")
	f.BoolVar(&m.undo, "undo", false, "put back what -apply changed")
	f.BoolVar(&m.src.Standalone, "standalone", false, "replace the Consul agent too, and leave its cluster")
	f.StringArrayVar(&m.src.Names, "name", nil, "a `name` that must be answered as before; may be repeated")
	f.StringVar(&m.src.Root, "root", "", "`directory` that stands for /: its files are looked at, and nothing is changed")
	jsonFlags(cmd, &m.json, "print JSON")
	return cmd
}

func (m *migrateCommand) run(cmd *cobra.Command, _ []string) error {
	say := func(format string, args ...any) { cmd.PrintErrf(format+"\n", args...) }
	if m.undo {
		if m.apply || m.src.Standalone || m.src.Root != "" || len(m.src.Names) > 0 {
			return exitError{2, "-undo stands alone"}
		}
		if err := migrate.Undo(cmd.Context(), say); err != nil {
			return err
		}
		say("files and units are as they were before")
		return nil
	}
	m.src.Root = strings.TrimSuffix(m.src.Root, "/")
	p, err := migrate.Read(m.src)
	if err != nil {
		return err
	}
	if !m.json {
		fmt.Fprint(cmd.OutOrStdout(), p.Diff())
		for _, n := range p.Notes {
			say("note: %s", n)
		}
	}
	var res *migrate.Result
	if m.apply {
		if res, err = p.Apply(cmd.Context(), say); err != nil {
			return err
		}
	}
	if m.json {
		return printJSON(cmd.OutOrStdout(), planJSON(p, res))
	}
	switch {
	case res != nil:
		say("meibo answers in place of %s: %s as before; %d queries waited, %d of them were answered; `meibo migrate -undo` takes it back",
			strings.Join(p.Stop, " and "), strings.Join(res.Names, ", "), res.Held, res.Relayed)
		if len(res.Silent) > 0 {
			say("note: not answered before, and not compared: %s", some(res.Silent))
		}
	case len(p.Refused) > 0:
		for _, r := range p.Refused {
			say("-apply would be refused: %s", r)
		}
	default:
		say("nothing was changed: -apply writes %s, stops %s and starts meibo", counted(len(p.Files), "file"), strings.Join(p.Stop, " and "))
	}
	return nil
}

// planJSON is a plan as scripts read it, and what became of it.
func planJSON(p *migrate.Plan, res *migrate.Result) any {
	files := []string{}
	for _, f := range p.Files {
		files = append(files, f.Path)
	}
	return struct {
		Files, Notes, Stop, Refused []string
		Diff                        string
		Applied                     *migrate.Result
	}{files, append([]string{}, p.Notes...), p.Stop, append([]string{}, p.Refused...), p.Diff(), res}
}
