package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"meibo/cmd/meibo/config"
)

func newValidateCommand() *cobra.Command {
	var format string
	var quiet, asJSON bool
	cmd := &cobra.Command{
		Use: "validate PATH...", Short: "Check configuration files without starting anything", GroupID: "daemon", Args: cobra.MinimumNArgs(1),
		Long: "Reads files and directories as the daemon would and reports every fault with file,\nline and key. Exit code 0 means that `meibo agent` would take them.",
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
				return fmt.Errorf("the configuration is not valid:\n%w", err)
			}
			if !quiet {
				fmt.Fprint(cmd.OutOrStdout(), report)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "config-format", "", "`format` of every file, hcl or json, whatever its name ends in")
	cmd.Flags().BoolVar(&quiet, "quiet", false, "print nothing when all is well")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// jsonReport is a report in the form scripts read.
func jsonReport(r config.Report, err error) any {
	out := struct {
		Valid            bool
		Files            []string
		Services, Checks int
		Warnings, Errors []string
	}{Valid: err == nil, Files: r.Files, Services: r.Services, Checks: r.Checks, Warnings: []string{}, Errors: []string{}}
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
