package fs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// MountEntry is one line of the mount table, /proc/PID/mountinfo.
type MountEntry struct {
	Path   string
	FSType string
	Source string
	Device string // major:minor
	UID    int    // the user who mounted it, if it is a FUSE mount
	Flags  []string
}

// Ours reports whether this is a mount of EmberFS.
func (m MountEntry) Ours() bool { return m.FSType == "fuse."+subtype }

// Mounts returns the mounts in this mount namespace. It reads the kernel's table and never touches a mountpoint,
// because a lookup under a mount whose daemon hangs would hang too.
func Mounts() ([]MountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	defer f.Close()
	return ParseMounts(f)
}

// MountAt returns the topmost mount at path, if there is one. path must be absolute and without symbolic links.
func MountAt(table []MountEntry, path string) (MountEntry, bool) {
	for i := len(table) - 1; i >= 0; i-- { // the table is in the order of mounting
		if table[i].Path == path {
			return table[i], true
		}
	}
	return MountEntry{}, false
}

// ParseMounts parses a mount table. It leaves out lines that it cannot parse.
func ParseMounts(r io.Reader) ([]MountEntry, error) {
	var table []MountEntry
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if m, ok := parseMount(strings.TrimSuffix(line, "\n")); ok {
			table = append(table, m)
		}
		if err == io.EOF {
			return table, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the mount table: %w", err)
		}
	}
}

// parseMount parses "id parent major:minor root mountpoint options [tags...] - type source superoptions".
func parseMount(line string) (MountEntry, bool) {
	front, back, _ := strings.Cut(line, " - ")
	f, b := strings.Split(front, " "), strings.Split(back, " ")
	if len(f) < 6 || len(b) < 2 {
		return MountEntry{}, false
	}
	m := MountEntry{Path: unescape(f[4]), FSType: unescape(b[0]), Source: unescape(b[1]), Device: f[2],
		Flags: strings.Split(f[5], ",")}
	if len(b) > 2 {
		for _, o := range strings.Split(b[2], ",") {
			if v, ok := strings.CutPrefix(o, "user_id="); ok {
				m.UID, _ = strconv.Atoi(v)
			}
		}
	}
	return m, true
}

// unescape decodes the \ooo that stand for blanks, newlines and backslashes.
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

// mounted reports whether the topmost mount at path is one of EmberFS. path must be absolute and without symbolic
// links.
func mounted(path string) (bool, error) {
	table, err := Mounts()
	m, _ := MountAt(table, path)
	return m.Ours(), err
}
