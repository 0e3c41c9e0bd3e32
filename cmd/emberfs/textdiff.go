package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/aymanbagabas/go-udiff"
)

const (
	// maxText is how big a file may be on either side to be compared line by line, in bytes.
	maxText = 8 << 20
	// binaryProbe is how far git looks for a NUL byte to call a file binary.
	binaryProbe = 8000
	// maxDiffWork bounds edits times bytes: the library counts lines from the start for each edit. Over it a diff takes
	// all of the old text away and brings all of the new.
	maxDiffWork = 4 << 30
)

// isBinary decides as git does.
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

// unified is a unified diff with git's labels; "" where the texts are equal.
func unified(oldLabel, newLabel, old, now string) (string, error) {
	text, err := udiff.ToUnified(oldLabel, newLabel, old, textEdits(old, now), udiff.DefaultContextLines)
	if err != nil {
		return "", fmt.Errorf("compare line by line: %w", err)
	}
	return text, nil
}

// changedLines counts the lines that a text gained and lost.
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
