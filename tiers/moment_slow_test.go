//go:build slow

package tiers

import "testing"

// TestCommitShowsItsBoundaryInOtherStates tries the states that TestCommitShowsItsBoundary leaves out.
func TestCommitShowsItsBoundaryInOtherStates(t *testing.T) {
	eachPitState(t, func(s *pitState, records bool) bool { return !quickPitState(s, records) })
}
