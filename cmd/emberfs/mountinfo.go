package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// mountEntry is one line of /proc/self/mountinfo.
type mountEntry struct {
	path   string
	fstype string
	source string
	device string // major:minor
	uid    int    // of a FUSE mount: who mounted it
	flags  []string
}

// ours says whether EmberFS is mounted there.
func (m mountEntry) ours() bool { return m.fstype == "fuse.emberfs" }

// mounts lists what is mounted in this mount namespace. It reads the kernel's table and never touches a mountpoint: a lookup
// under a mount whose daemon hangs would hang too.
func mounts() ([]mountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	defer f.Close()
	return parseMountinfo(f)
}

// mountAt returns the mount on top at path, if there is one.
func mountAt(table []mountEntry, path string) (mountEntry, bool) {
	for i := len(table) - 1; i >= 0; i-- {
		if table[i].path == path {
			return table[i], true
		}
	}
	return mountEntry{}, false
}

func parseMountinfo(r io.Reader) ([]mountEntry, error) {
	var table []mountEntry
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			if m, ok := parseMountinfoLine(line); ok {
				table = append(table, m)
			}
		}
		if err == io.EOF {
			return table, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the mount table: %w", err)
		}
	}
}

// parseMountinfoLine reads "id parent major:minor root mountpoint options [tags...] - type source superoptions".
func parseMountinfoLine(line string) (mountEntry, bool) {
	front, back, ok := strings.Cut(line, " - ")
	if !ok {
		return mountEntry{}, false
	}
	f, b := strings.Split(front, " "), strings.Split(back, " ")
	if len(f) < 6 || len(b) < 2 {
		return mountEntry{}, false
	}
	m := mountEntry{path: unescapeOctal(f[4]), fstype: unescapeOctal(b[0]), source: unescapeOctal(b[1]), device: f[2], flags: strings.Split(f[5], ",")}
	if len(b) > 2 {
		for _, o := range strings.Split(b[2], ",") {
			if v, ok := strings.CutPrefix(o, "user_id="); ok {
				m.uid, _ = strconv.Atoi(v)
			}
		}
	}
	return m, true
}

// unescapeOctal undoes the kernel's \040 for space and the like.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
