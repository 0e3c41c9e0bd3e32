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
	c, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	v := testVolumeOf(t, c, dir)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

func openVolumeReadOnly(t *testing.T, dir string) *testVolume {
	t.Helper()
	c, err := OpenRepository(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return testVolumeOf(t, c, dir)
}
