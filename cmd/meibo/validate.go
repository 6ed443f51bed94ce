package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"meibo/cmd/meibo/config"
)

func newValidateCommand() *cobra.Command {
	var format string
	var quiet, asJSON bool
	cmd := &cobra.Command{
		Use: "validate PATH...", Short: "Check configuration files without starting anything", GroupID: "daemon", Args: someArgs("PATH"),
		Long: `Reads files and directories as the daemon would and reports every fault with file,
line and key; changes nothing and binds nothing. Exit code 0 means that "meibo agent"
takes them as they are. A fault within a service or check would have it start without
that one, any other fault keeps it from starting; both are exit code 1. What is in its
way on this host just now, such as a port that is taken, is a WARNING, and no fault.`,
		RunE: func(cmd *cobra.Command, paths []string) error {
			report, err := config.Validate(paths, format)
			if asJSON {
				if e := printJSON(cmd.OutOrStdout(), jsonReport(report, err)); e != nil || err == nil {
					return e
				}
				return exitError{code: 1}
			}
			if err != nil {
				for _, w := range report.Warnings {
					cmd.PrintErrln("warning:", w)
				}
				return fmt.Errorf("the configuration is not valid: %s\n%w", consequence(report), err)
			}
			if !quiet {
				fmt.Fprint(cmd.OutOrStdout(), report)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "config-format", "", "`format` of every file, hcl or json, whatever its name ends in")
	completeFlag(cmd, "config-format", fixed("hcl", "json"))
	cmd.Flags().BoolVar(&quiet, "quiet", false, "print nothing when all is well")
	jsonFlags(cmd, &asJSON, "print JSON")
	return cmd
}

// consequence says what the daemon would make of the faults.
func consequence(r config.Report) string {
	if len(r.LeftOut) == 0 {
		return "`meibo agent` would not start"
	}
	var names []string
	for _, l := range r.LeftOut {
		names = append(names, l.What())
	}
	return "`meibo agent` would start without " + strings.Join(names, ", ")
}

// jsonReport is a report in the form scripts read.
func jsonReport(r config.Report, err error) any {
	out := struct {
		Valid, Starts    bool
		Files            []string
		Services, Checks int
		LeftOut          []string
		Warnings, Errors []string
	}{Valid: err == nil, Starts: err == nil || len(r.LeftOut) > 0, LeftOut: []string{}, Files: r.Files, Services: r.Services, Checks: r.Checks, Warnings: []string{}, Errors: []string{}}
	for _, l := range r.LeftOut {
		out.LeftOut = append(out.LeftOut, l.What())
	}
	for _, w := range r.Warnings {
		out.Warnings = append(out.Warnings, w.String())
	}
	if faults, ok := err.(config.Faults); ok { //nolint:errorlint // Validate documents the type
		for _, f := range faults {
			out.Errors = append(out.Errors, f.Error())
		}
	}
	return out
}
