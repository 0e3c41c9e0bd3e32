package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// withMemory makes directories of a volume, by their slash paths, ones of class memory.
func withMemory(dirs ...string) volumeOption {
	return func(v *volume) {
		var text strings.Builder
		text.WriteString("rules:\n")
		for _, d := range dirs {
			fmt.Fprintf(&text, "  - {match: %q, class: memory}\n", d+"/")
		}
		v.config = text.String()
	}
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
