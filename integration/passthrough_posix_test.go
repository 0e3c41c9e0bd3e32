//go:build slow

package integration

import (
	"testing"
	"time"
)

// TestPosixPassthrough runs the posix suite where the kernel reads and writes warm itself, with its caches of names and
// without.
func TestPosixPassthrough(t *testing.T) {
	skipped := nativeCell(t, user{})
	onAndOff(t, "cache=", 6*time.Minute, func(t *testing.T, cache string) {
		v := passthroughVolume(t, "v", withOpts("allow_other", "kernel_cache="+cache))
		k := cell{dir: mkdir(t, v.at("build"), user{})}
		k.prepare(t)
		k.run(t, skipped)
		v.noneOpen()
		v.umount()
		fsck(t, v.cold())
	})
}
