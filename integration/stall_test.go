//go:build slow

package integration

import (
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestWriteStall tells how long small writes take while a commit with 100 MB dirty is under way: into a file that is being
// committed, into new files, and over files that are being committed. It measures and does not judge.
func TestWriteStall(t *testing.T) {
	deadline(t, 3*time.Minute)
	for _, layout := range []struct {
		name        string
		files, size int
	}{{"one file of 100 MB", 1, 100 << 20}, {"100 files of 1 MB", 100, 1 << 20}, {"10,000 files of 10 KB", 10_000, 10 << 10}} {
		t.Run(layout.name, func(t *testing.T) {
			v := newVolume(t, "one").mount()
			mkdir(t, v.at("d"), user{})
			name := func(i int) string { return v.at(fmt.Sprintf("d/%d", i)) }
			buf := make([]byte, layout.size)
			rnd := rand.New(rand.NewSource(1))
			for round := range 2 { // dirty anew
				for i := range layout.files {
					rnd.Read(buf)
					check(t, os.WriteFile(name(i), buf, 0o644))
				}
				for _, kind := range []string{"idle", "committing"} {
					done := make(chan struct{})
					if kind == "idle" {
						time.AfterFunc(time.Second, func() { close(done) })
					} else {
						go func() { defer close(done); v.sync() }()
					}
					writes, creates := v.stall(done, name, layout.files, layout.size)
					t.Logf("round %d, %s: write %s; create %s", round, kind, writes, creates)
				}
			}
			check(t, os.RemoveAll(filepath.Join(v.mnt, "new")))
			v.umount()
		})
	}
}

// stalls are how long calls took.
type stalls []time.Duration

func (s stalls) String() string {
	if len(s) == 0 {
		return "none"
	}
	slices.Sort(s)
	at := func(q float64) time.Duration { return s[int(q*float64(len(s)-1))].Round(10 * time.Microsecond) }
	return fmt.Sprintf("p50 %v, p99 %v, most %v (%d)", at(0.5), at(0.99), at(1), len(s))
}

// stall writes 4 KiB at random into the files, and makes new ones, until done is closed.
func (v *volume) stall(done chan struct{}, name func(int) string, files, size int) (writes, creates stalls) {
	mkdir(v.t, v.at("new"), user{})
	rnd := rand.New(rand.NewSource(2))
	small := make([]byte, 4096)
	for i := 0; ; i++ {
		select {
		case <-done:
			return writes, creates
		default:
		}
		rnd.Read(small)
		f, err := os.OpenFile(name(rnd.Intn(files)), os.O_WRONLY, 0)
		check(v.t, err)
		from := time.Now()
		_, err = f.WriteAt(small, int64(rnd.Intn(size-len(small))))
		writes = append(writes, time.Since(from))
		check(v.t, err)
		check(v.t, f.Close())
		from = time.Now()
		check(v.t, os.WriteFile(v.at(fmt.Sprintf("new/%d", i%1000)), small, 0o644))
		creates = append(creates, time.Since(from))
		time.Sleep(time.Millisecond)
	}
}
