//go:build !failpoints

package main

import "github.com/spf13/cobra"

// failpoint: only a binary built with the tag failpoints can be told to fail.
var failpoint func(step string) error

func testCommands(world) []*cobra.Command { return nil }
