package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"meibo/cluster/httpapi/client"
	"meibo/cmd/meibo/config"
)

// completeTime bounds how long a shell waits for what the daemon knows.
const completeTime = time.Second

func isCompletion(arg string) bool {
	return arg == cobra.ShellCompRequestCmd || arg == cobra.ShellCompNoDescRequestCmd
}

// completion completes one word.
type completion = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective)

// fixed completes to words that are known beforehand.
func fixed(words ...string) completion {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// known completes to what the daemon knows, if it answers; offered are the words there are.
func (a *asker) known(offered func(context.Context, *client.Client) ([]string, error)) completion {
	return func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		const nothing = cobra.ShellCompDirectiveNoFileComp
		c, err := a.dial()
		if err != nil {
			return nil, nothing
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
		defer cancel()
		words, err := offered(ctx, c)
		if err != nil {
			return nil, nothing
		}
		words = slices.DeleteFunc(words, func(word string) bool { return !strings.HasPrefix(word, typed) })
		slices.Sort(words)
		return slices.Compact(words), nothing
	}
}

// once completes the first argument alone.
func once(first completion) completion {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return first(cmd, args, typed)
	}
}

// completeFlag says how a flag's value is completed.
func completeFlag(cmd *cobra.Command, name string, how completion) {
	if err := cmd.RegisterFlagCompletionFunc(name, how); err != nil {
		panic(err) // there is no such flag
	}
}

// serviceNames are the names that services answer to under the default domain.
func serviceNames(ctx context.Context, c *client.Client) (names []string, err error) {
	services, _, err := c.Services(ctx, &client.Query{Stale: true})
	for name := range services {
		names = append(names, name+".service.consul")
	}
	return names, err
}

// lookupNames are names of services and nodes.
func lookupNames(ctx context.Context, c *client.Client) ([]string, error) {
	names, err := serviceNames(ctx, c)
	if err != nil {
		return nil, err
	}
	nodes, err := nodeNames(ctx, c)
	for _, node := range nodes {
		names = append(names, node+".node.consul")
	}
	return names, err
}

func nodeNames(ctx context.Context, c *client.Client) (names []string, err error) {
	nodes, _, err := c.Nodes(ctx, &client.Query{Stale: true})
	for _, n := range nodes {
		names = append(names, n.Node)
	}
	return names, err
}

// goneNames are the members that force-leave is for.
func goneNames(ctx context.Context, c *client.Client) (names []string, err error) {
	members, err := c.FilteredMembers(ctx, "")
	for _, m := range members {
		if m.StatusName() != "alive" {
			names = append(names, m.Name)
		}
	}
	return names, err
}

// peers are what of the servers in Raft's configuration.
func peers(what func(client.RaftServer) string) func(context.Context, *client.Client) ([]string, error) {
	return func(ctx context.Context, c *client.Client) (out []string, err error) {
		conf, err := c.RaftConfiguration(ctx, true)
		if err != nil {
			return nil, err
		}
		for _, s := range conf.Servers {
			out = append(out, what(s))
		}
		return out, nil
	}
}

// completeNothingElse keeps shells from offering files where none are meant.
func completeNothingElse(cmd *cobra.Command) {
	if cmd.ValidArgsFunction == nil && cmd.Name() != "validate" {
		cmd.ValidArgsFunction = fixed()
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if _, known := cmd.GetFlagCompletionFunc(f.Name); !known && f.NoOptDefVal == "" && !isPath(f.Name) {
			completeFlag(cmd, f.Name, fixed())
		}
	})
	for _, sub := range cmd.Commands() {
		completeNothingElse(sub)
	}
}

// completeAgent completes the values of the agent's flags as the configuration's keys have them.
func completeAgent(cmd *cobra.Command) {
	completeFlag(cmd, "config-format", fixed("hcl", "json"))
	for _, k := range config.Keys() {
		if k.Flag == "" || len(k.Choices) == 0 {
			continue
		}
		words := make([]string, len(k.Choices))
		for i, choice := range k.Choices {
			words[i] = strings.ToLower(choice)
		}
		completeFlag(cmd, k.Flag, fixed(words...))
	}
}

// isPath reports whether a flag names a file or folder, which shells complete by themselves.
func isPath(flag string) bool {
	return strings.HasSuffix(flag, "-dir") || strings.HasSuffix(flag, "-file") || slices.Contains([]string{"diff", "output", "root"}, flag)
}
