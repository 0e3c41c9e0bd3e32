package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// runCLI runs one command line.
func runCLI(args []string, w world) error {
	root := rootCommand(w)
	root.SetArgs(args)
	err := root.Execute()
	var f *failure
	if err != nil && !errors.As(err, &f) {
		// Commands return failures; anything else is cobra's complaint about the command line.
		return usageError("command line", "", err.Error(), "emberfs --help lists the commands")
	}
	return err
}

// rootCommand assembles the command line from the commands, each of which has a file of its own.
func rootCommand(w world) *cobra.Command {
	w.quiet = new(bool)
	root := &cobra.Command{
		Use:   "emberfs",
		Short: "A filesystem for machines that go away: files in memory, in a directory, and in git",
		Long: `EmberFS mounts a volume as an ordinary directory. Its files live in memory (hot), in a plain directory
(warm) and in a git repository (cold). When the machine goes away, the next one mounts the same repository and
goes on where the last one stopped.

Exit codes: 0 done; 1 failed, nothing changed; 2 the command line or a setting is wrong; 3 done in part, the
receipt says what is missing; 32 mount failure; 130 and 143 interrupted by SIGINT or SIGTERM.`,
		Version:       versionLine(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			names := []string{}
			for _, c := range cmd.Commands() {
				if !c.Hidden {
					names = append(names, c.Name())
				}
			}
			hint := "emberfs --help lists the commands"
			if near := nearest(args[0], names); near != "" {
				hint = "did you mean " + near + "?"
			}
			return usageError(args[0], "", "unknown command", hint)
		},
	}
	root.PersistentFlags().BoolVarP(w.quiet, "quiet", "q", false, "show no progress on stderr")
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetOut(w.out)
	root.SetErr(w.err)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError(cmd.Name(), "", err.Error(), "emberfs "+cmd.Name()+" --help lists the flags")
	})
	root.AddCommand(mountCommand(w), umountCommand(w), syncCommand(w), statusCommand(w), rulesCommand(w),
		tierCommand(w), gcCommand(w), restoreCommand(w), logCommand(w), diffCommand(w),
		snapshotsCommand(w), checkCommand(w), versionCommand(w), backgroundCommand(w))
	root.AddCommand(testCommands(w)...)
	describe(root)
	completion(root)
	return root
}

// describe wraps the help texts of cmd and all commands below it, and adds the name of the manual page to --help. The
// page is made from the same texts (manual_test.go).
func describe(cmd *cobra.Command) {
	show := cmd.HelpFunc()
	if !cmd.HasParent() {
		cmd.SetHelpFunc(func(cmd *cobra.Command, args []string) {
			show(cmd, args)
			if page := manualPage(cmd); page != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "\nManual page: man 8 %s\n", page)
			}
		})
	}
	cmd.Long = wrapText(cmd.Long, 100)
	for _, c := range cmd.Commands() {
		describe(c)
	}
}

// manualPage returns the name of a command's page in section 8 of the manual, or "" if it has none.
func manualPage(cmd *cobra.Command) string {
	if cmd.Hidden || cmd.Name() == "help" {
		return ""
	}
	return strings.ReplaceAll(cmd.CommandPath(), " ", "-")
}

// paragraphs splits a help text at empty lines.
func paragraphs(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.Trim(text, "\n"), "\n\n")
}

// isVerbatim reports whether a paragraph is shown line by line, as tables and examples are.
func isVerbatim(paragraph string) bool { return strings.HasPrefix(paragraph, "  ") }

// wrapText wraps the paragraphs of a help text at width columns. Their lines are uneven because parts of the texts come
// from several constants.
func wrapText(text string, width int) string {
	parts := paragraphs(text)
	for i, p := range parts {
		if isVerbatim(p) {
			continue
		}
		var b strings.Builder
		column := 0
		for _, word := range strings.Fields(p) {
			switch {
			case column == 0:
			case column+1+len(word) > width:
				b.WriteByte('\n')
				column = 0
			default:
				b.WriteByte(' ')
				column++
			}
			b.WriteString(word)
			column += len(word)
		}
		parts[i] = b.String()
	}
	return strings.Join(parts, "\n\n")
}

// argsBetween is cobra.RangeArgs with this program's error messages. A negative most allows any number of arguments.
func argsBetween(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least {
			return usageError(cmd.Name(), "", "missing "+what, "usage: "+cmd.UseLine())
		}
		if most >= 0 && len(args) > most {
			return usageError(cmd.Name(), args[most], "one argument too many", "usage: "+cmd.UseLine())
		}
		return nil
	}
}

// backgroundCommand is the command that launch starts as the daemon.
func backgroundCommand(w world) *cobra.Command {
	return &cobra.Command{
		Use:    daemonCommand,
		Hidden: true,
		RunE:   func(cmd *cobra.Command, args []string) error { return runBackground(w) },
	}
}
