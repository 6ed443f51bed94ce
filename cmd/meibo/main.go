// Command meibo is a host's DNS resolver and its part in service discovery, in one binary: the daemon (`meibo agent`) and
// the commands that ask it. This package parses the command line and wires the rooms together (agent.go, the one place
// that does); it knows no domain logic.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"meibo/cmd/meibo/config"
)

// version is set by the linker: the git tag, or what describes the commit.
var version = "dev"

// apiLevel is the Consul release whose API and DNS behaviour is followed, in the form that clients parse.
const apiLevel = "1.21.0"

// execute runs one command line and returns its exit code: 0, 1 for an error, 2 for a command line that makes no sense.
func execute(ctx context.Context, args []string) int {
	root := newRoot()
	err := misused(root, args)
	if err == nil {
		root.SetArgs(normalizeArgs(root, args))
		err = root.ExecuteContext(ctx)
	}
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.text != "" {
			fmt.Fprintln(os.Stderr, "meibo:", exit.text)
		}
		return exit.code
	default:
		fmt.Fprintln(os.Stderr, "meibo:", err)
		return 1
	}
}

// exitError ends a command with a code of its own.
type exitError struct {
	code int
	text string
}

func (e exitError) Error() string { return e.text }

// normalizeArgs lets Consul's single-dash long flags (-config-dir=x) mean what they mean there.
func normalizeArgs(root *cobra.Command, args []string) []string {
	if n := len(args); n > 1 && isCompletion(args[0]) { // the last is being typed: it is a flag's value if it has one
		line, last := normalizeArgs(root, args[1:n-1]), args[n-1:]
		if strings.Contains(last[0], "=") {
			all := normalizeArgs(root, args[1:])
			last = all[len(all)-1:]
		}
		return slices.Concat(args[:1], line, last)
	}
	cmd, _, err := root.Find(args)
	if err != nil {
		return args
	}
	cmd.InitDefaultHelpFlag()
	return config.NormalizeArgs(args, cmd.Flags())
}

func newRoot() *cobra.Command {
	var showVersion bool
	root := &cobra.Command{
		Use:   "meibo",
		Short: "A host's DNS resolver and its part in service discovery",
		Long: `meibo answers names under .consul from what this host knows of the catalog, and
forwards and caches every other name. One daemon per host:

  meibo agent -dev                            try it: nothing is kept on disk
  meibo agent -config-dir /etc/meibo.d        as a host's resolver
  meibo lookup web.service.consul             an answer, and where it came from`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !showVersion {
				return cmd.Help()
			}
			fmt.Fprint(cmd.OutOrStdout(), versionText())
			return nil
		},
	}
	// Not cobra's own: that needs text/template, for which the linker keeps 2 MB of methods that nobody calls.
	root.Flags().BoolVarP(&showVersion, "version", "v", false, "version of this binary and the API level it follows")
	root.SetFlagErrorFunc(wrongFlag)
	root.AddGroup(
		&cobra.Group{ID: "daemon", Title: "The daemon:"},
		&cobra.Group{ID: "ask", Title: "Ask it:"},
		&cobra.Group{ID: "cluster", Title: "The cluster:"},
		&cobra.Group{ID: "other", Title: "Besides:"},
	)
	root.SetHelpCommandGroupID("other")
	root.SetCompletionCommandGroupID("other")
	root.AddCommand(
		newAgentCommand(), newReloadCommand(), newValidateCommand(), newResolvCommand(), newMigrateCommand(), newDoctorCommand(),
		newLookupCommand(), newServicesCommand(), newNodesCommand(),
		newMembersCommand(), newJoinCommand(), newLeaveCommand(), newForceLeaveCommand(),
		newKeygenCommand(), newConfigCommand(), newKeyringCommand(), newOperatorCommand(), newCatalogCommand(),
		newVersionCommand(),
	)
	completeNothingElse(root)
	root.InitDefaultHelpCmd() // before a command line is looked at, to be found there
	root.InitDefaultCompletionCmd()
	return root
}

func versionText() string {
	goVersion := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		goVersion = info.GoVersion
	}
	return fmt.Sprintf("meibo %s\nConsul API level %s\n%s\n", version, apiLevel, goVersion)
}

func newVersionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "version", Short: "Version of this binary and the API level it follows", GroupID: "other", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]string{"Version": version, "APILevel": apiLevel})
			}
			fmt.Fprint(cmd.OutOrStdout(), versionText())
			return nil
		},
	}
	jsonFlags(cmd, &asJSON, "print JSON")
	return cmd
}
