package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

const (
	// maxText is the size in bytes up to which files are compared line by line.
	maxText = 8 << 20
	// binaryProbe is how many bytes git searches for a NUL, to tell whether a file is binary.
	binaryProbe = 8000
	// maxDiffWork limits edits times bytes, because for each edit the library counts lines from the start. Above the
	// limit, a diff removes all of the old text and adds all of the new text.
	maxDiffWork = 4 << 30
)

// isBinary decides like git whether data is binary.
func isBinary(data []byte) bool {
	return bytes.IndexByte(data[:min(len(data), binaryProbe)], 0) >= 0
}

// textEdits compares two texts line by line.
func textEdits(old, now string) []udiff.Edit {
	edits := udiff.Lines(old, now)
	if len(edits)*len(old) > maxDiffWork {
		return []udiff.Edit{{Start: 0, End: len(old), New: now}}
	}
	return edits
}

// unified returns a unified diff with git's labels, or "" if the texts are equal.
func unified(oldLabel, newLabel, old, now string) (string, error) {
	text, err := udiff.ToUnified(oldLabel, newLabel, old, textEdits(old, now), udiff.DefaultContextLines)
	if err != nil {
		return "", fmt.Errorf("compare line by line: %w", err)
	}
	return text, nil
}

// changedLines returns how many lines were added and removed.
func changedLines(old, now string) (added, removed int) {
	for _, e := range textEdits(old, now) {
		added += countLines(e.New)
		removed += countLines(old[e.Start:e.End])
	}
	return added, removed
}

func countLines(s string) int {
	n := strings.Count(s, "\n")
	if s != "" && !strings.HasSuffix(s, "\n") {
		n++
	}
	return n
}
