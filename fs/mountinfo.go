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
	UID    int    // of a FUSE mount: who mounted it
	Flags  []string
}

// Ours says whether EmberFS is mounted there.
func (m MountEntry) Ours() bool { return m.FSType == "fuse."+subtype }

// Mounts lists what is mounted in this mount namespace. It reads the kernel's table and never touches a mountpoint: a
// lookup under a mount whose daemon hangs would hang too.
func Mounts() ([]MountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	defer f.Close()
	return ParseMounts(f)
}

// MountAt returns the mount on top at path, which must be absolute and without symlinks, if there is one.
func MountAt(table []MountEntry, path string) (MountEntry, bool) {
	for i := len(table) - 1; i >= 0; i-- { // the table is in the order of mounting
		if table[i].Path == path {
			return table[i], true
		}
	}
	return MountEntry{}, false
}

// ParseMounts reads a mount table. It leaves out lines that describe no mount.
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

// parseMount reads "id parent major:minor root mountpoint options [tags...] - type source superoptions".
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
	table, err := Mounts()
	m, _ := MountAt(table, path)
	return m.Ours(), err
}
