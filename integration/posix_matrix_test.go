//go:build slow

package integration

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// TestPosixMatrix runs the posix suite in root's mount with allow_other and in a plain user's, with the kernel's cache
// and without, on a fresh volume and on one restored from a commit, once in a directory of class memory without the
// kernel's cache, once with one processor, and once on files that have left warm.
func TestPosixMatrix(t *testing.T) {
	skipped := map[bool]map[string]bool{
		true:  nativeCell(t, user{}),
		false: nativeCell(t, plainUser()),
	}
	for _, u := range []user{{}, plainUser()} {
		for _, cache := range []string{"on", "off"} {
			for _, restored := range []bool{false, true} {
				name := fmt.Sprintf("uid=%d,cache=%s,restored=%v", u.uid, cache, restored)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					posixCell(t, u, cache, restored, skipped[u.isRoot()])
				})
			}
		}
	}
	t.Run("memory,cache=off", func(t *testing.T) {
		t.Parallel()
		memoryCell(t, user{}, "off", skipped[true])
	})
	t.Run("one_processor", func(t *testing.T) {
		t.Parallel()
		posixCell(t, user{}, "on", true, skipped[true], "GOMAXPROCS=1")
	})
	t.Run("released", func(t *testing.T) {
		t.Parallel()
		deadline(t, 6*time.Minute)
		v := newVolume(t, "v", withOpts("allow_other"), onlyByCommand()).mount()
		k := cell{dir: v.mnt}
		k.prepare(t)
		v.release()
		k.run(t, skipped[true])
		v.umount()
		fsck(t, v.cold())
	})
}

func posixCell(t *testing.T, u user, cache string, restored bool, skipped map[string]bool, daemonEnv ...string) {
	deadline(t, 6*time.Minute)
	options := []volumeOption{withUser(u), withOpts("kernel_cache=" + cache), withEnv(daemonEnv...)}
	if u.isRoot() {
		options = append(options, withOpts("allow_other"))
	}
	if restored {
		options = append(options, withSource(newBareRepo(t, "remote.git", u)))
	}
	v := newVolume(t, "one", options...).mount()
	k := cell{dir: filepath.Join(v.mnt), as: u}
	k.prepare(t)
	if restored {
		v.umount()
		v = newVolume(t, "two", options...)
		v.mount()
		k.dir = v.mnt
	}
	k.run(t, skipped)
	v.umount()
	if restored {
		fsck(t, v.source)
	}
	fsck(t, v.cold())
}

// TestPosixMemory runs the posix suite in a directory of class memory: for root and for a plain user in root's mount.
func TestPosixMemory(t *testing.T) {
	for _, u := range []user{{}, plainUser()} {
		skipped := nativeCell(t, u)
		t.Run(fmt.Sprintf("uid=%d", u.uid), func(t *testing.T) {
			t.Parallel()
			memoryCell(t, u, "on", skipped)
		})
	}
}

func memoryCell(t *testing.T, u user, cache string, skipped map[string]bool) {
	deadline(t, 6*time.Minute)
	v := newVolume(t, "v", withOpts("allow_other", "memory_class_limit=1GB", "kernel_cache="+cache), withMemory("mem"))
	v.mount()
	k := cell{dir: mkdir(t, filepath.Join(v.mnt, "mem"), u), as: u}
	k.prepare(t)
	if st := v.status(); st.Memory.Files == 0 {
		t.Fatalf("the fixtures are not in memory: %+v", st.Memory)
	}
	k.run(t, skipped)
	v.umount()
}
