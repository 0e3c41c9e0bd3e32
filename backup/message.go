package backup

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"

	"emberfs/backup/odb"
	"emberfs/tiers/cold"
)

const (
	trailerReason  = "Emberfs-Reason"
	trailerMachine = "Emberfs-Machine"
	trailerFiles   = "Emberfs-Files"
	trailerBytes   = "Emberfs-Bytes"
	trailerAtRisk  = "Emberfs-At-Risk"
	trailerAbsorbs = "Emberfs-Absorbs"
	trailerTime    = "Emberfs-Time" // the true time, where the committer's is another
)

// message makes a commit's message: a subject for people and trailers for programs.
func message(volume string, o cold.CommitOptions, absorbs []cold.ID, dated time.Time) string {
	reason := oneLine(o.Reason)
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
	fmt.Fprintf(&b, "%s: %s\n", trailerMachine, oneLine(o.Machine))
	fmt.Fprintf(&b, "%s: %s\n", trailerReason, reason)
	fmt.Fprintf(&b, "%s: %d\n", trailerFiles, o.Files)
	fmt.Fprintf(&b, "%s: %d\n", trailerBytes, o.Bytes)
	fmt.Fprintf(&b, "%s: %d\n", trailerAtRisk, o.AtRisk)
	if !o.When.IsZero() && !o.When.Truncate(time.Second).Equal(dated) {
		fmt.Fprintf(&b, "%s: %s\n", trailerTime, cold.DateText(o.When))
	}
	if len(absorbs) > 0 {
		fmt.Fprintf(&b, "%s:", trailerAbsorbs)
		for _, id := range absorbs {
			fmt.Fprintf(&b, " %s", id)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// oneLine keeps a value fit for a trailer: valid UTF-8 without control characters, at most 200 bytes.
func oneLine(s string) string {
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

// trailer finds a trailer in the last paragraph of a message; "" if it is not there.
func trailer(message, key string) string {
	message = strings.TrimRight(message, "\n")
	at := strings.LastIndex(message, "\n\n")
	if at < 0 {
		return "" // a subject alone
	}
	last := message[at+2:]
	for l := range strings.SplitSeq(last, "\n") {
		if v, ok := strings.CutPrefix(l, key+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// madeAt is when a commit was made: by the trailer where the committer's time had to be another, lest it came before the parent's.
func madeAt(c *odb.CommitData) time.Time {
	v := trailer(c.Message, trailerTime)
	if v == "" || trailer(c.Message, trailerReason) == "" {
		return c.Committer.When
	}
	if t, err := time.Parse(time.RFC3339Nano, v); err == nil && !t.After(c.Committer.When) {
		return t
	}
	return c.Committer.When
}
