//go:build slow

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRestoreMissingPath: a PATH that the commit does not hold is refused with exit 1 before anything is made, whatever
// else was asked for; all of them are named at once.
func TestRestoreMissingPath(t *testing.T) {
	deadline(t, time.Minute)
	v := newVolume(t, "v")
	repo := filepath.Join(testDir(t), "stock")
	shell(t, testDir(t), `git init -q stock && cd stock && mkdir a && echo 1 >a/x && echo 2 >y && git add . &&
		git -c user.name=u -c user.email=u@example.org commit -qm x`)
	for _, b := range []struct{ ask, lacks []string }{
		{[]string{"nothing"}, []string{"nothing"}},
		{[]string{"nothing/below"}, []string{"nothing/below"}},
		{[]string{"a/nothing"}, []string{"a/nothing"}}, // made the directory a, exit 3
		{[]string{"y/below"}, []string{"y/below"}},     // made the file y, exit 3
		{[]string{"a/x", "nothing", "./y/", "a/none"}, []string{"nothing", "a/none"}},
	} {
		to := filepath.Join(testDir(t), "to")
		for _, there := range []bool{false, true} {
			if there {
				mkdir(t, to, user{})
			}
			r := v.emberfs(append([]string{"restore", "--from", repo, "--to", to}, b.ask...)...)
			expectFailure(t, r, 1)
			for _, p := range b.lacks {
				if !strings.Contains(r.stderr, p+": not in commit") {
					t.Errorf("%q: the message does not name %s: %s", b.ask, p, r.stderr)
				}
			}
			if strings.Contains(r.stderr, "x: not in commit") {
				t.Errorf("%q: the message names what is there: %s", b.ask, r.stderr)
			}
			if list, err := os.ReadDir(to); len(list) > 0 || there != (err == nil) {
				t.Errorf("%q: %v, %v are left", b.ask, list, err)
			}
			check(t, os.RemoveAll(to))
		}
	}
}
