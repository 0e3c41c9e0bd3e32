//go:build slow

package integration

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestCriticalOrder: no live commit shows a later change without an earlier one, in one directory and in two; a file
// that is replaced by renaming another over it is in each of them, and whole.
func TestCriticalOrder(t *testing.T) {
	deadline(t, 4*time.Minute+4*commitTime(t))
	v := newVolume(t, "one", withOpts("backup_interval=5s")).mount()
	v.rules(`- {match: "{one,two,replaced}/", class: critical, critical_delay: 200ms}`)
	for _, d := range []string{"one", "two/deep", "replaced", "other"} {
		check(t, os.MkdirAll(v.at(d), 0o755))
	}
	v.sync()
	// Each writes a number into a, then into b.
	overwrite := func(f *os.File, i int) error {
		_, err := f.WriteAt(fmt.Appendf(nil, "%012d\n", i), 0)
		return err
	}
	var files []*os.File
	open := func(path string) *os.File {
		f, err := os.Create(v.at(path))
		check(t, err)
		files = append(files, f)
		return f
	}
	padding := strings.Repeat("x", 100_000)
	pairs := []struct{ name, a, b string }{
		{"one directory", "one/a", "one/b"}, {"the later name first", "one/z", "one/y"},
		{"two directories", "two/deep/a", "one/c"},
		{"the upper one later", "one/d", "two/deep/d"}, {"replaced", "replaced/a", "replaced/b"},
	}
	w := &writers{t: t}
	for _, p := range pairs {
		if p.name == "replaced" {
			continue
		}
		a, b := open(p.a), open(p.b)
		w.run(func(i int) error {
			err := errors.Join(overwrite(a, i), overwrite(b, i))
			if i%50 == 0 {
				err = errors.Join(err, b.Sync())
			}
			return err
		})
	}
	text := func(i int) string { return fmt.Sprintf("%d %s end", i, padding) }
	for _, name := range []string{"replaced/a", "replaced/b"} {
		check(t, replaceFile(v.at(name), text(0)))
	}
	v.sync()
	w.run(func(i int) error {
		return errors.Join(replaceFile(v.at("replaced/a"), text(i)), replaceFile(v.at("replaced/b"), text(i)))
	})
	w.run(func(i int) error { // what is not critical is in nobody's way
		return os.WriteFile(v.at(fmt.Sprintf("other/%d", i%300)), []byte(padding), 0o644)
	})
	taken := v.watchCommits(commitTime(t), nil)
	w.end()
	for _, f := range files {
		check(t, f.Close())
	}
	live := v.critical()
	v.umount()
	v.noComplaints()
	moved := 0
	for _, c := range taken {
		number := func(path string) int {
			text := v.inCommit(c.id, path)
			if n, ok := strings.CutSuffix(text, " "+padding+" end"); strings.HasPrefix(path, "replaced/") {
				if !ok {
					t.Errorf("commit %s has %s with %d bytes", c.id, path, len(text))
				}
				text = n
			}
			if text = strings.TrimSpace(text); text == "" {
				return 0
			}
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Errorf("commit %s has %s with %.40q", c.id, path, text)
			}
			return n
		}
		for _, p := range pairs {
			a, b := number(p.a), number(p.b)
			if a < b || a > b+1 {
				t.Errorf("%s: commit %s has %d and then %d", p.name, c.id, a, b)
			}
			moved += b
		}
	}
	if moved == 0 {
		t.Error("nothing was written")
	}
	t.Logf("%d commits; %+v", len(taken), live)
	fsck(t, v.cold())
}
