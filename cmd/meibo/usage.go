package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"meibo/cmd/meibo/config"
)

// misused is what is wrong with a command line for which cobra would print help and report success: a word after a command
// that is there only for the commands below it. nil: nothing.
func misused(root *cobra.Command, args []string) error {
	if len(args) > 0 && isCompletion(args[0]) {
		return nil
	}
	cmd, rest, err := root.Find(args)
	if err != nil {
		cmd, rest = root, args
	}
	if cmd.Name() == "help" && cmd.Parent() == root {
		return misused(root, rest)
	}
	if cmd.Runnable() && cmd != root {
		return nil
	}
	for _, arg := range rest {
		if !strings.HasPrefix(arg, "-") {
			return unknownCommand(cmd, arg)
		}
	}
	return nil
}

// unknownCommand says which commands of parent are the nearest to what was typed.
func unknownCommand(parent *cobra.Command, typed string) error {
	text := fmt.Sprintf("unknown command %q for %q", typed, parent.CommandPath())
	near, other := nearest(parent, typed), elsewhere(parent.Root(), typed)
	switch {
	case len(near) > 0:
		text += fmt.Sprintf("; did you mean %s?", quoted(near, " or "))
	case len(other) > 0:
		text += fmt.Sprintf("; did you mean %s?", quoted(other, " or "))
	case parent.HasParent():
		text += fmt.Sprintf("; its commands are %s", quoted(names(parent), ", "))
	}
	return exitError{2, fmt.Sprintf("%s\n`%s -h` lists the commands", text, parent.CommandPath())}
}

func names(parent *cobra.Command) (all []string) {
	for _, cmd := range parent.Commands() {
		if cmd.IsAvailableCommand() {
			all = append(all, cmd.Name())
		}
	}
	return all
}

// nearest are the commands below parent that were most likely meant, the best first: those with a word that was typed, as a
// whole or its beginning, or nearly so.
func nearest(parent *cobra.Command, typed string) []string {
	const most = 3
	typed = strings.ToLower(typed)
	far := map[string]int{}
	for _, name := range names(parent) {
		d := config.Distance(typed, name)
		for word := range strings.SplitSeq(name, "-") {
			d = min(d, config.Distance(typed, word))
		}
		if strings.HasPrefix(name, typed) {
			d = 0
		}
		if d <= max(1, min(3, len(typed)/3)) {
			far[name] = d
		}
	}
	near := make([]string, 0, len(far))
	for name := range far {
		near = append(near, name)
	}
	slices.SortFunc(near, func(a, b string) int { return cmp.Or(cmp.Compare(far[a], far[b]), cmp.Compare(a, b)) })
	return near[:min(most, len(near))]
}

// elsewhere are the commands anywhere below cmd, with their whole path, that are called so, here or by other programs.
func elsewhere(cmd *cobra.Command, typed string) (paths []string) {
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && (c.Name() == typed || slices.Contains(c.SuggestFor, typed)) {
			paths = append(paths, c.CommandPath())
		}
		paths = append(paths, elsewhere(c, typed)...)
	}
	return paths
}

func quoted(names []string, between string) string {
	texts := make([]string, len(names))
	for i, name := range names {
		texts[i] = fmt.Sprintf("%q", name)
	}
	return strings.Join(texts, between)
}

// wrongFlag says what is wrong with a flag, and where the right ones are.
func wrongFlag(cmd *cobra.Command, err error) error {
	if rest := cmd.Flags().Args(); len(rest) > 0 && cmd.HasAvailableSubCommands() { // a flag of the command that was meant
		return unknownCommand(cmd, rest[0])
	}
	if err.Error() == "unknown flag: --json" {
		return exitError{2, fmt.Sprintf("-json has no meaning for `%s`: it prints nothing that could be JSON", cmd.CommandPath())}
	}
	return exitError{2, fmt.Sprintf("%v; `%s -h` lists the flags", err, cmd.CommandPath())}
}

// noArgs takes no arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.HasAvailableSubCommands():
		return unknownCommand(cmd, args[0])
	}
	return exitError{2, fmt.Sprintf("`%s` takes no arguments, there is %q; `%[1]s -h` says more", cmd.CommandPath(), args[0])}
}

// someArgs asks for at least one argument, and says what is missing.
func someArgs(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return exitError{2, fmt.Sprintf("%s is missing; `%s -h` says more", what, cmd.CommandPath())}
		}
		return nil
	}
}

// oneArg asks for exactly one argument.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return exitError{2, fmt.Sprintf("one %s is wanted, there are %d; `%s -h` says more", what, len(args), cmd.CommandPath())}
		}
		return someArgs(what)(cmd, args)
	}
}
