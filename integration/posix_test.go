package integration

import (
	"testing"
	"time"
)

// TestPosix runs the posix suite on a native directory and on a fresh root mount; the whole matrix is a slow test.
func TestPosix(t *testing.T) {
	t.Parallel()
	deadline(t, 3*time.Minute)
	skipped := nativeCell(t, user{})
	t.Run("mount", func(t *testing.T) {
		v := newVolume(t, "v", withOpts("allow_other")).mount()
		k := cell{dir: v.mnt}
		k.prepare(t)
		k.run(t, skipped)
		v.umount()
	})
}
