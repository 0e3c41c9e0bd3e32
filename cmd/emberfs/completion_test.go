package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"emberfs/fs"
)

func TestCompletionOfMountpoints(t *testing.T) {
	table := []fs.MountEntry{{Path: "/mnt/b", FSType: "fuse.emberfs"}, {Path: "/mnt/a", FSType: "fuse.emberfs"},
		{Path: "/mnt/a", FSType: "fuse.emberfs"}, {Path: "/mnt/c", FSType: "ext4"},
		{Path: "/mnt/of-user", FSType: "fuse.emberfs", UID: 7}, {Path: "/mnt/x\ny", FSType: "fuse.emberfs"}}
	for _, c := range []struct {
		uid    int
		prefix string
		want   string
	}{{0, "", "/mnt/a /mnt/b /mnt/of-user"}, {7, "/mnt/", "/mnt/of-user"}, {0, "/mnt/b", "/mnt/b"}, {0, "/srv", ""}} {
		if got := strings.Join(mountpoints(table, c.uid, c.prefix), " "); got != c.want {
			t.Errorf("uid %d, %q: %q, want %q", c.uid, c.prefix, got, c.want)
		}
	}
}

// TestCompletionScripts: there is one for each shell, and the program answers what they ask.
func TestCompletionScripts(t *testing.T) {
	for shell, has := range map[string]string{"bash": "complete -o default", "zsh": "#compdef emberfs",
		"fish": "complete -c emberfs"} {
		var out, errs bytes.Buffer
		if code := run([]string{"emberfs", "completion", shell}, world{out: &out, err: &errs}); code != 0 ||
			!strings.Contains(out.String(), has) {
			t.Errorf("%s: exit %d, %s\n%.200s", shell, code, errs.String(), out.String())
		}
	}
	for _, args := range [][]string{{"um", "umount"}, {"mount", "--offl", "--offline"},
		{"mount", "--offline", "refu", "refuse"}} {
		args, want := args[:len(args)-1], args[len(args)-1]
		var out, errs bytes.Buffer
		run(append([]string{"emberfs", "__complete"}, args...), world{out: &out, err: &errs})
		if !slices.ContainsFunc(strings.Split(out.String(), "\n"), func(line string) bool {
			word, _, _ := strings.Cut(line, "\t")
			return strings.TrimSuffix(word, "=") == want
		}) {
			t.Errorf("%v: no %s in\n%s%s", args, want, out.String(), errs.String())
		}
	}
}
