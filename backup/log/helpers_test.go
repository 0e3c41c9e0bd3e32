package log

import (
	"path/filepath"
	"testing"

	"emberfs/backup"
	"emberfs/backup/coldtest"
)

// testVolume is a Cold in a directory of its own.
type testVolume struct {
	*Reader
	coldtest.Volume
}

func testVolumeOf(t *testing.T, c *backup.Cold, dir string) *testVolume {
	return &testVolume{Reader: Of(c), Volume: coldtest.Volume{Cold: c, T: t, Dir: dir}}
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

func openVolumeReadOnly(t *testing.T, dir string) *testVolume {
	t.Helper()
	open := func() (*backup.Cold, error) { return backup.OpenRepository(dir, backup.Options{}) }
	return testVolumeOf(t, coldtest.Opened(t, open), dir)
}
