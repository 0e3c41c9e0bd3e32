package fsck

import (
	"path/filepath"
	"testing"

	"emberfs/backup"
	"emberfs/backup/coldtest"
)

// testVolume is a Cold in a directory of its own.
type testVolume struct {
	*backup.Cold
	coldtest.Volume
}

func testVolumeOf(t *testing.T, c *backup.Cold, dir string) *testVolume {
	return &testVolume{Cold: c, Volume: coldtest.Volume{Cold: c, T: t, Dir: dir}}
}

func newVolume(t *testing.T, o backup.Options) *testVolume {
	t.Helper()
	return openVolume(t, filepath.Join(t.TempDir(), "cold.git"), o)
}

func openVolume(t *testing.T, dir string, o backup.Options) *testVolume {
	t.Helper()
	if o.Log == nil {
		o.Log = coldtest.Quiet()
	}
	return testVolumeOf(t, coldtest.Opened(t, func() (*backup.Cold, error) { return backup.Open(dir, o) }), dir)
}

// linkRemote is a remote with a pack and loose objects, and the volume that pushed them.
func linkRemote(t *testing.T) (remote string, v *testVolume, f *coldtest.File) {
	t.Helper()
	remote = coldtest.NewRemote(t)
	v = newVolume(t, backup.Options{Source: remote, ChunkThreshold: 256 << 10})
	return remote, v, v.PushPackAndLoose(remote)
}
