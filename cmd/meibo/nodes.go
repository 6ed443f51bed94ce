package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"meibo/cluster/catalog"
	"meibo/cluster/httpapi/client"
	"meibo/cmd/meibo/inventory"
)

type nodesCommand struct {
	asker
	unconfirmed          bool
	filter, diff, format string
}

func newNodesCommand() *cobra.Command {
	var n nodesCommand
	cmd := &cobra.Command{
		Use: "nodes", Short: "List the nodes of the catalog, or compare them with an inventory", GroupID: "ask", Args: noArgs,
		Long: `Lists the nodes of the catalog.

-unconfirmed lists what this host still answers from before the servers began anew,
and no server confirms: register it again, or take it out with ` + "`meibo nodes forget`" + `.

-diff compares the catalog with a list of hosts by name and address, and tells which
hosts either side lacks, and which have another address or another name there. It
reads CSV (a header such as name,address), JSON (a list or an object of hosts, what
another cluster's ` + "`meibo nodes -json`" + ` or ` + "`ansible-inventory --list`" + ` prints), Ansible's
inventories (INI, YAML) and hosts files; "-" is the standard input. Letter case does
not count; nor does a domain that only one side writes. Of a node's addresses any
within its network will do. Ends with 0 if both agree, 1 if they differ, and 2 if that
can't be told.`,
		Example: "  meibo nodes\n  meibo nodes -diff hosts.csv\n  meibo nodes -diff inventory.yml -filter 'Meta.role != \"external\"'\n" +
			"  ansible-inventory --list | meibo nodes -diff -",
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := n.run(cmd)
			var exit exitError
			if n.diff != "" && err != nil && !errors.As(err, &exit) {
				return exitError{2, err.Error()} // 1 says that they differ
			}
			return err
		},
	}
	n.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&n.unconfirmed, "unconfirmed", false, "those that only this host knows of, from before the servers began anew")
	f.StringVar(&n.filter, "filter", "", "only nodes that match the `expression`, such as 'Meta.rack == r1'")
	f.StringVar(&n.diff, "diff", "", "compare with the hosts of the `inventory`, a file")
	f.StringVar(&n.format, "inventory-format", "", "`format` of it: csv, json, ini, yaml or hosts (default: by its name and beginning)")
	completeFlag(cmd, "inventory-format", fixed(formats()...))
	cmd.AddCommand(newForgetCommand())
	return cmd
}

func formats() (words []string) {
	for _, f := range inventory.Formats {
		words = append(words, string(f))
	}
	return words
}

func (n *nodesCommand) run(cmd *cobra.Command) error {
	var hosts []inventory.Host
	switch {
	case n.unconfirmed && n.diff != "":
		return exitError{2, "-unconfirmed and -diff: one of them at a time"}
	case n.format != "" && n.diff == "":
		return exitError{2, "-inventory-format is for -diff INVENTORY"}
	case n.diff != "":
		var err error
		if hosts, err = n.inventory(cmd.InOrStdin()); err != nil {
			return err
		}
	}
	c, err := n.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	defer noteConsul(cmd, c)
	if n.unconfirmed {
		return n.printUnconfirmed(cmd, c)
	}
	nodes, meta, err := c.Nodes(cmd.Context(), &client.Query{Cached: true, Filter: n.filter})
	if err != nil {
		return explained(c, err)
	}
	noteAge(cmd.ErrOrStderr(), meta)
	switch {
	case n.diff != "":
		return n.printDiff(cmd, hosts, nodes)
	case n.json:
		return printJSON(cmd.OutOrStdout(), nodes)
	}
	rows := [][]string{{"Node", "Address", "DC", "ID"}}
	for _, x := range nodes {
		rows = append(rows, []string{x.Node, x.Address, x.Datacenter, x.ID})
	}
	return table(cmd.OutOrStdout(), rows)
}

// inventory reads the file that -diff names.
func (n *nodesCommand) inventory(stdin io.Reader) ([]inventory.Host, error) {
	format := inventory.Format(n.format)
	if format != inventory.Guess && !slices.Contains(inventory.Formats, format) {
		return nil, exitError{2, fmt.Sprintf("-inventory-format %q: expected one of %s", n.format, strings.Join(formats(), ", "))}
	}
	if n.diff == "-" {
		return inventory.Read("standard input", stdin, format)
	}
	f, err := os.Open(n.diff)
	if err != nil {
		return nil, fmt.Errorf("read the inventory: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the inventory: %w", err)
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory: `ansible-inventory -i %[1]s --list | meibo nodes -diff -` reads one of Ansible's", n.diff)
	}
	return inventory.Read(n.diff, f, format)
}

// printDiff compares, and ends with 1 if there are differences.
func (n *nodesCommand) printDiff(cmd *cobra.Command, hosts []inventory.Host, nodes []*catalog.Node) error {
	known := make([]inventory.Node, len(nodes))
	for i, x := range nodes {
		known[i] = inventory.Node{Name: x.Node, Address: x.Address, Others: []string{x.TaggedAddresses["lan"], x.TaggedAddresses["lan_ipv4"], x.TaggedAddresses["lan_ipv6"]}}
	}
	r := inventory.Compare(hosts, known)
	agree := len(r.Differences) == 0
	var err error
	switch {
	case n.json:
		err = printJSON(cmd.OutOrStdout(), struct {
			Agree        bool
			Inventory    string
			Hosts, Nodes int
			inventory.Result
		}{agree, n.diff, len(hosts), len(nodes), r})
	case agree:
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "the catalog and %s agree: %s\n", n.diff, counted(len(nodes), "node"))
	default:
		err = table(cmd.OutOrStdout(), diffRows(r.Differences))
	}
	if err != nil {
		return err
	}
	if len(r.ByName) > 0 && !n.json {
		cmd.PrintErrf("note: %s has no address of %s, compared by name alone: %s\n", n.diff, counted(len(r.ByName), "host"), some(r.ByName))
	}
	if !agree {
		return exitError{code: 1}
	}
	return nil
}

func diffRows(differences []inventory.Difference) [][]string {
	rows := [][]string{{"Difference", "Inventory", "Address", "Catalog", "Address", "Line"}}
	for _, d := range differences {
		line := "-"
		if d.Line > 0 {
			line = strconv.Itoa(d.Line)
		}
		listed := make([]string, len(d.Addresses))
		for i, a := range d.Addresses {
			listed[i] = a.String()
		}
		rows = append(rows, []string{string(d.Kind), orDash(d.Host), orDash(strings.Join(listed, ",")), orDash(d.Node), orDash(d.NodeAddress), line})
	}
	return rows
}

// some are the first few of a list.
func some(list []string) string {
	const most = 5
	if len(list) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
	}
	return strings.Join(list, ", ")
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
