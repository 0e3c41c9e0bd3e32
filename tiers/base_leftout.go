package tiers

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// leftOut is something that a commit could not take, and why. It is at risk until a commit has it.
type leftOut struct {
	path  string
	bytes int64 // of a file: its size
	since int64 // UnixNano of the first commit without it; where it was late, of its last change
	late  bool  // there was no time for it before a deadline
	err   error
}

// String is a line for receipts and status. A path of many levels is cut in its middle.
func (l leftOut) String() string {
	const most = 200
	p := l.path
	if len(p) > most {
		p = p[:most/2] + "[...]" + p[len(p)-most/2:]
	}
	return fmt.Sprintf("%s: %v", shown(p), l.err)
}

// shown returns a path for a line of text. It quotes a path with unprintable characters, which could control a terminal
// or look like a line of their own.
func shown(p string) string {
	if utf8.ValidString(p) && !strings.ContainsFunc(p, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return p
	}
	return strconv.Quote(p)
}

func lines(list []leftOut) []string {
	out := make([]string, len(list))
	for i, l := range list {
		out[i] = l.String()
	}
	return out
}

// leave notes what a commit to main, which stands, has left out. That replaces earlier notes, because each such commit
// looks at everything that earlier ones left out. A commit to the live branch leaves nothing out: it leaves what it
// cannot take to a commit to main. It returns what earlier commits had left out and this one has.
func (r *risk) leave(list []leftOut) (taken riskCount) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.out
	r.out = make(map[string]leftOut, len(list))
	for _, l := range list {
		if earlier := before[l.path].since; earlier != 0 {
			l.since = earlier
		} else if l.since == 0 {
			l.since = time.Now().UnixNano()
		}
		r.out[l.path] = l
	}
	for at, l := range before {
		if _, still := r.out[at]; !still {
			taken = taken.plus(riskCount{1, l.bytes, l.since})
		}
	}
	return taken
}

// late counts what the last commit left out because there was no time for it.
func (r *risk) late() (c riskCount) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.out {
		if l.late {
			c = c.plus(riskCount{1, l.bytes, l.since})
		}
	}
	return c
}

// lateLines lists what the last commit left out because there was no time for it, in the order of paths: at most most
// lines, and then a count of the rest.
func (r *risk) lateLines(most int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	rest := 0
	for _, p := range slices.Sorted(maps.Keys(r.out)) {
		switch l := r.out[p]; {
		case !l.late:
		case len(out) < most:
			out = append(out, l.String())
		default:
			rest++
		}
	}
	if rest > 0 {
		out = append(out, fmt.Sprintf("and %d more", rest))
	}
	return out
}

// left lists what commits left out, in the order of paths: at most most lines, and then a count of the rest.
func (r *risk) left(most int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, p := range slices.Sorted(maps.Keys(r.out)) {
		if len(out) == most {
			return append(out, fmt.Sprintf("commit: left out: and %d more", len(r.out)-most))
		}
		out = append(out, "commit: left out: "+r.out[p].String())
	}
	return out
}

// outside counts what earlier commits left out.
func (r *risk) outside() (c riskCount) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.out {
		c = c.plus(riskCount{1, l.bytes, l.since})
	}
	return c
}
