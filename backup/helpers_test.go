package backup

import (
	"path/filepath"
	"testing"

	"emberfs/backup/coldtest"
)

// testVolume is a Cold in a directory of its own.
type testVolume struct {
	*Cold
	coldtest.Volume
}

func testVolumeOf(t *testing.T, c *Cold, dir string) *testVolume {
	return &testVolume{Cold: c, Volume: coldtest.Volume{Cold: c, T: t, Dir: dir}}
}

func newVolume(t *testing.T, o Options) *testVolume {
	t.Helper()
	return openVolume(t, filepath.Join(t.TempDir(), "cold.git"), o)
}

func openVolume(t *testing.T, dir string, o Options) *testVolume {
	t.Helper()
	if o.Log == nil {
		o.Log = coldtest.Quiet()
	}
	return testVolumeOf(t, coldtest.Opened(t, func() (*Cold, error) { return Open(dir, o) }), dir)
}

func openVolumeReadOnly(t *testing.T, dir string) *testVolume {
	t.Helper()
	open := func() (*Cold, error) { return OpenRepository(dir, Options{}) }
	return testVolumeOf(t, coldtest.Opened(t, open), dir)
}
