package format

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

const (
	TrailerReason  = "Emberfs-Reason"
	TrailerMachine = "Emberfs-Machine"
	TrailerFiles   = "Emberfs-Files"
	TrailerBytes   = "Emberfs-Bytes"
	TrailerAtRisk  = "Emberfs-At-Risk"
	TrailerAbsorbs = "Emberfs-Absorbs"
	TrailerTime    = "Emberfs-Time" // the true time, if the committer's differs

	TrailerAtRiskBytes = "Emberfs-At-Risk-Bytes"
	TrailerClean       = "Emberfs-Clean"   // yes or no
	TrailerLacking     = "Emberfs-Lacking" // a path; may come several times
	TrailerTook        = "Emberfs-Took"    // milliseconds
)

// MaxLacking is how many trailers of TrailerLacking a commit has at most.
const MaxLacking = 20

// Message returns a commit's message: a subject for people and trailers for programs.
func Message(volume string, o cold.CommitOptions, absorbs []cold.ID, dated time.Time) string {
	reason := OneLine(o.Reason)
	if reason == "" {
		reason = "unknown"
	}
	var b strings.Builder
	files := "files"
	if o.Files == 1 {
		files = "file"
	}
	fmt.Fprintf(&b, "Backup (%s): %d %s, %s\n\n", reason, o.Files, files, humanize.Bytes(uint64(max(o.Bytes, 0))))
	fmt.Fprintf(&b, "Emberfs-Volume: %s\n", volume)
	fmt.Fprintf(&b, "%s: %s\n", TrailerMachine, OneLine(o.Machine))
	fmt.Fprintf(&b, "%s: %s\n", TrailerReason, reason)
	fmt.Fprintf(&b, "%s: %d\n", TrailerFiles, o.Files)
	fmt.Fprintf(&b, "%s: %d\n", TrailerBytes, o.Bytes)
	fmt.Fprintf(&b, "%s: %d\n", TrailerAtRisk, o.AtRisk)
	fmt.Fprintf(&b, "%s: %d\n", TrailerAtRiskBytes, o.AtRiskBytes)
	clean := cleanNo
	if o.Clean {
		clean = cleanYes
	}
	fmt.Fprintf(&b, "%s: %s\n", TrailerClean, clean)
	fmt.Fprintf(&b, "%s: %d\n", TrailerTook, o.Took.Milliseconds())
	for _, path := range o.Lacking[:min(len(o.Lacking), MaxLacking)] {
		fmt.Fprintf(&b, "%s: %s\n", TrailerLacking, OneLine(path))
	}
	if !o.When.IsZero() && !o.When.Truncate(time.Second).Equal(dated) {
		fmt.Fprintf(&b, "%s: %s\n", TrailerTime, cold.DateText(o.When))
	}
	if len(absorbs) > 0 {
		fmt.Fprintf(&b, "%s:", TrailerAbsorbs)
		for _, id := range absorbs {
			fmt.Fprintf(&b, " %s", id)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// The values of TrailerClean.
const (
	cleanYes = "yes"
	cleanNo  = "no"
)

// CleanOf returns what a message says about the end of its session.
func CleanOf(message string) cold.Clean {
	switch Trailer(message, TrailerClean) {
	case cleanYes:
		return cold.CleanYes
	case cleanNo:
		return cold.CleanNo
	}
	return cold.CleanUnsaid
}

// OneLine makes a value fit for a trailer: valid UTF-8 without control characters, at most 200 bytes.
func OneLine(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	for len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "")
	}
	return strings.TrimSpace(s)
}

// Trailer returns the value of a trailer in the last paragraph of a message, or "".
func Trailer(message, key string) string {
	for _, v := range Trailers(message, key, 1) {
		return v
	}
	return ""
}

// Number returns the value of a trailer that is a number of something, or 0.
func Number(message, key string) int64 {
	n, _ := strconv.ParseInt(Trailer(message, key), 10, 64)
	return max(n, 0)
}

// Trailers returns the values of the first trailers of this name in the last paragraph of a message, at most most.
func Trailers(message, key string, most int) (values []string) {
	message = strings.TrimRight(message, "\n")
	at := strings.LastIndex(message, "\n\n")
	if at < 0 {
		return nil // there is only a subject
	}
	last := message[at+2:]
	for l := range strings.SplitSeq(last, "\n") {
		if len(values) == most {
			break
		}
		if v, ok := strings.CutPrefix(l, key+":"); ok {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

// MadeAt returns when a commit was made: the time in the trailer, if the committer's had to be changed so that it is
// not before the parent's, else the committer's.
func MadeAt(c *odb.CommitData) time.Time {
	v := Trailer(c.Message, TrailerTime)
	if v == "" || Trailer(c.Message, TrailerReason) == "" {
		return c.Committer.When
	}
	if t, err := time.Parse(time.RFC3339Nano, v); err == nil && !t.After(c.Committer.When) {
		return t
	}
	return c.Committer.When
}
