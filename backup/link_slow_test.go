//go:build slow

package backup

import (
	"os"
	"path/filepath"
	"testing"

	"emberfs/backup/coldtest"
)

// Where nothing can be linked, or what was linked is not whole, everything is fetched.
func TestFirstFetchWithoutLinks(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, remote string){
		"alternates": func(t *testing.T, remote string) {
			coldtest.PutFile(t, filepath.Join(remote, "objects/info/alternates"), "# none\n/nowhere\n")
		},
		"writable pack": func(t *testing.T, remote string) {
			list, err := filepath.Glob(filepath.Join(remote, "objects/pack/pack-*.pack"))
			if err != nil || len(list) == 0 {
				t.Fatal(list, err)
			}
			coldtest.Check(t, os.Chmod(list[0], 0o666))
		},
		"odd pack": func(t *testing.T, remote string) {
			coldtest.PutFile(t, filepath.Join(remote, "objects/pack/x.idx"), "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			remote, _, f := linkRemote(t)
			spoil(t, remote)
			v := newVolume(t, Options{Source: remote})
			v.MustFetch()
			if n := len(v.Shared(remote)); n != 0 {
				t.Errorf("%d packs are shared", n)
			}
			coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
			v.CheckGit()
		})
	}
}
