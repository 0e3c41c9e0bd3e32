package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// runCLI runs one command line.
func runCLI(args []string, w world) error {
	root := rootCommand(w)
	root.SetArgs(args)
	err := root.Execute()
	var f *failure
	if err != nil && !errors.As(err, &f) {
		// Commands return failures; what is left are cobra's own complaints about the command line.
		return usageError("command line", "", err.Error(), "emberfs --help lists the commands")
	}
	return err
}

// rootCommand assembles the command line, one file a command.
func rootCommand(w world) *cobra.Command {
	w.quiet = new(bool)
	root := &cobra.Command{
		Use:   "emberfs",
		Short: "A filesystem for machines that go away: files in memory, in a directory, and in git",
		Long: `EmberFS mounts a volume as an ordinary directory. Its files live in memory (hot), in a plain
directory (warm) and in a git repository (cold), which the next machine mounts to go on.

Exit codes: 0 done; 1 failed, nothing changed; 2 usage; 3 done in part; 32 mount failure.`,
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
	root.AddCommand(mountCommand(w), umountCommand(w), syncCommand(w), statusCommand(w), rulesCommand(w), tierCommand(w), gcCommand(w), restoreCommand(w), logCommand(w),
		diffCommand(w), snapshotsCommand(w), checkCommand(w), versionCommand(w), backgroundCommand(w))
	root.AddCommand(testCommands(w)...)
	return root
}

// argsBetween is cobra.RangeArgs with this program's words; most < 0 is any number.
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

// backgroundCommand is what launch starts.
func backgroundCommand(w world) *cobra.Command {
	return &cobra.Command{
		Use:    daemonCommand,
		Hidden: true,
		RunE:   func(cmd *cobra.Command, args []string) error { return runBackground(w) },
	}
}
