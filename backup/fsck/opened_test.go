package fsck

import (
	"testing"

	"emberfs/backup"
	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
)

// TestCheckOpened: the list of what was opened first is nothing to complain of, but where it lies.
func TestCheckOpened(t *testing.T) {
	t.Parallel()
	const file = ".emberfs/opened"
	for name, script := range map[string]string{
		"sound":      "",
		"up inside":  `echo '{"path":"a/../../x"}' >` + file,
		"no JSON":    `echo hello >` + file,
		"symlink":    "rm " + file + "; ln -s /etc/passwd " + file,
		"directory":  "rm " + file + "; mkdir " + file + "; echo >" + file + "/x",
		"executable": "chmod +x " + file,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVolume(t, backup.Options{})
			if _, err := v.CommitBy(v.Begin, coldtest.StockBase(),
				cold.CommitOptions{Opened: []string{"a"}}); err != nil {
				t.Fatal(err)
			}
			if script == "" {
				if list := runCheck(t, v.Dir, Options{Deep: true, Volume: true}); problemsOf(list) > 0 {
					t.Errorf("check: %s", describe(list))
				}
				return
			}
			v.StockEdit(script)
			if list := runCheck(t, v.Dir, Options{Volume: true}); !hasFinding(list, cold.Damaged, file) {
				t.Errorf("check: %s", describe(list))
			}
		})
	}
}

// TestCheckLinked: a repository that shares packs with its remote is as sound as any other.
func TestCheckLinked(t *testing.T) {
	t.Parallel()
	remote, _, _ := linkRemote(t)
	v := newVolume(t, backup.Options{Source: remote})
	v.MustFetch()
	if len(v.Shared(remote)) == 0 {
		t.Fatal("nothing was linked")
	}
	if list := runCheck(t, v.Dir, Options{Deep: true, Volume: true}); problemsOf(list) > 0 {
		t.Errorf("check: %s", describe(list))
	}
}
