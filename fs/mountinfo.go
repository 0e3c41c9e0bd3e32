package fs

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

const mountTable = "/proc/self/mountinfo"

// mountEntry is one line of the mount table.
type mountEntry struct {
	device string // major:minor
	point  string
	fstype string
}

// mounts reads the mount table; no mount itself is touched.
func mounts() ([]mountEntry, error) {
	f, err := os.Open(mountTable)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r []mountEntry
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if e, ok := parseMount(s.Text()); ok {
			r = append(r, e)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", mountTable, err)
	}
	return r, nil
}

// parseMount reads a line: id parent device root point options... - fstype source options.
func parseMount(line string) (mountEntry, bool) {
	before, after, ok := strings.Cut(line, " - ")
	f, g := strings.Fields(before), strings.Fields(after)
	if !ok || len(f) < 5 || len(g) < 1 {
		return mountEntry{}, false
	}
	return mountEntry{device: f[2], point: unescape(f[4]), fstype: g[0]}, true
}

// unescape undoes the \ooo that stand for blanks, newlines and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mounted says whether one of our mounts is on top at path, which must be absolute and without symlinks.
func mounted(path string) (bool, error) {
	e, err := topMount(path)
	return e != nil && e.fstype == "fuse."+subtype, err
}

// topMount is the mount that is seen at path, nil where path is none.
func topMount(path string) (*mountEntry, error) {
	all, err := mounts()
	if err != nil {
		return nil, err
	}
	for i := len(all) - 1; i >= 0; i-- { // the table is in the order of mounting
		if all[i].point == path {
			return &all[i], nil
		}
	}
	return nil, nil
}
