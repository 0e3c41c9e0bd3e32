//go:build slow

package integration

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"
)

// TestAsyncDirectWritesAreSeen: what asynchronous O_DIRECT writes wrote, buffered readers see once the writes have
// returned, though they read all the time meanwhile.
func TestAsyncDirectWritesAreSeen(t *testing.T) {
	t.Parallel()
	deadline(t, 2*time.Minute)
	lookPath(t, "fio")
	v := newVolume(t, "v").mount()
	file := v.at("f")
	const size = 1 << 20
	check(t, os.WriteFile(file, make([]byte, size), 0o644))
	for _, engine := range []string{"libaio", "io_uring"} {
		wrong := 0
		for round := range 15 {
			pattern := byte(round + 1)
			stop := keepReading(file)
			r := command{args: []string{"fio", "--name=w", "--filename=" + file, "--rw=randwrite", "--bs=16k",
				fmt.Sprint("--size=", size), "--ioengine=" + engine,
				"--iodepth=16", "--direct=1", "--overwrite=1", fmt.Sprintf("--buffer_pattern=0x%02x", pattern),
				"--minimal"}}.run(t)
			stop()
			check(t, r.failure())
			got, err := os.ReadFile(file)
			check(t, err)
			if n := bytes.Count(got, []byte{pattern}); n != size {
				wrong++
			}
		}
		if wrong > 0 {
			t.Errorf("%s: in %d of 15 rounds a reader saw old bytes after the writes had returned", engine, wrong)
		}
	}
	v.umount()
}
