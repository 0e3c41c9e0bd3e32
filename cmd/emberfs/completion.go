package main

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"emberfs/fs"
)

// completion adds to the shells' completion, which cobra makes (emberfs completion bash, zsh, fish), what the arguments
// and flags of this program can be.
func completion(root *cobra.Command) {
	for _, cmd := range root.Commands() {
		// The first argument of these names a volume; the others are names of files.
		use := strings.Fields(cmd.Use)
		if len(use) > 1 && cmd.Name() != "mount" &&
			(strings.Contains(use[1], "MOUNTPOINT") || strings.Contains(use[1], "TARGET")) {
			cmd.ValidArgsFunction = completeVolumes
		}
		for _, s := range settings() {
			if f := cmd.Flags().Lookup(s.flag()); f != nil && cmd.Name() == "mount" && len(s.choices) > 0 {
				_ = cmd.RegisterFlagCompletionFunc(s.flag(), cobra.FixedCompletions(s.choices,
					cobra.ShellCompDirectiveNoFileComp))
			}
		}
	}
}

// completeVolumes completes a volume: where one is mounted, and, as a state directory or a repository may stand for it,
// any file. It changes nothing and asks no daemon.
func completeVolumes(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	table, err := fs.Mounts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return mountpoints(table, os.Geteuid(), typed), cobra.ShellCompDirectiveDefault
}

// mountpoints returns where the volumes of the user are mounted, or of all users for root, that begin with prefix. A
// name that a shell would not take as one word of a completion is left out.
func mountpoints(table []fs.MountEntry, uid int, prefix string) []string {
	var out []string
	for _, m := range table {
		if m.Ours() && (m.UID == uid || uid == 0) && strings.HasPrefix(m.Path, prefix) &&
			!strings.ContainsAny(m.Path, "\n\t") {
			out = append(out, m.Path)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
