package backup

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"emberfs/backup/coldtest"
	"emberfs/tiers/cold"
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

// wantPeek fails the test unless a look at the remote finds that it moved, or did not.
func (v *testVolume) wantPeek(want bool, what string, args ...any) {
	v.T.Helper()
	if moved, err := v.Peek(v.T.Context()); moved != want || err != nil {
		v.T.Errorf("%s = %v, %v", fmt.Sprintf(what, args...), moved, err)
	}
}

func openVolumeReadOnly(t *testing.T, dir string) *testVolume {
	t.Helper()
	open := func() (*Cold, error) { return OpenRepository(dir, Options{}) }
	return testVolumeOf(t, coldtest.Opened(t, open), dir)
}

// collect returns the objects to send for the commits, if the other side has all of old (zero: it has nothing).
func (c *Cold) collect(ctx context.Context, commits []cold.ID, old cold.ID) ([]cold.ID, error) {
	return c.objects(ctx, []part{{commits: commits, base: old}}, nil)
}
