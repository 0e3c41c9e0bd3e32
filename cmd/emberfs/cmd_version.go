package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func versionCommand(w world) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version and the volume format",
		Long:  `This command prints the version of the program and the newest volume format that it reads.`,
		Args:  argsBetween(0, 0, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := fmt.Fprintln(w.out, versionLine())
			return withCode(exitFailed, "version", "", err)
		},
	}
}
