//go:build slow

package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestBlocksWithAttributes: EmberFS's own attribute may take a block of the disk beside those of the user's. No file
// shows it: not when it is committed, released, brought back or restored.
func TestBlocksWithAttributes(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	disk := smallDisk(t, "ext4", 200, "mkfs.ext4", "-q", "-b", "4096")
	repo := newBareRepo(t, "remote.git", user{})
	one := newVolume(t, "one", withSource(repo), withState(disk+"/one")).mount()
	want := map[string]int64{}
	for i, attrs := range []int{0, 30, 200, 900} {
		name := fmt.Sprint("f", i)
		check(t, os.WriteFile(one.at(name), noise(10000, name), 0o644))
		if attrs > 0 {
			check(t, unix.Setxattr(one.at(name), "user.k", []byte(strings.Repeat("v", attrs)), 0))
		}
		want[name] = 24
		if attrs >= 200 { // they have no place in the inode
			want[name] = 32
		}
	}
	shown := func(v *volume, when string) {
		t.Helper()
		for name, blocks := range want {
			fd, err := unix.Open(v.at(name), unix.O_RDONLY, 0)
			check(t, err)
			check(t, unix.Fsync(fd)) // delayed allocation
			var st unix.Statx_t
			check(t, unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st))
			check(t, unix.Close(fd))
			if int64(st.Blocks) != blocks {
				t.Errorf("%s: %s has %d blocks, want %d", when, name, st.Blocks, blocks)
			}
		}
	}
	shown(one, "made")
	one.sync()
	shown(one, "committed")
	must(t, "/", env.bin, "tier", one.mnt)
	shown(one, "released")
	for range 4 {
		must(t, one.mnt, "sh", "-c", "cat f*")
	}
	shown(one, "brought back")
	one.umount()
	for _, tiering := range []string{"on", "off"} {
		two := newVolume(t, "two-"+tiering, withSource(repo), withState(disk+"/two-"+tiering),
			withOpts("tiering="+tiering)).mount()
		shown(two, "restored, tiering "+tiering)
		two.umount()
	}
}
