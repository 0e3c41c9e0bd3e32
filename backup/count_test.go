package backup

import (
	"bytes"
	"testing"

	"emberfs/backup/coldtest"
)

// TestFiles: each name counts as often as it is named, a file in chunks once, and a bound ends the count.
func TestFiles(t *testing.T) {
	v := newVolume(t, Options{ChunkThreshold: 256 << 10})
	f := coldtest.NewDir(0o755)
	for _, dir := range []string{"a", "b", "a/c"} { // one tree, three times
		f.Text(dir+"/x", "same")
		f.Text(dir+"/y", "same too")
	}
	f.Text("big", string(bytes.Repeat([]byte("0123456789abcdef"), 1<<16)))
	f.Text("small", "s")
	v.CommitTree(f, nil)
	head := v.HeadSnapshot()
	const dirs, files = 3, 3*2 + 2
	if f, n, err := head.Files(t.Context(), 1000); err != nil || f != files || n != files+dirs {
		t.Errorf("Files = %d, %d, %v, want %d, %d", f, n, err, files, files+dirs)
	}
	if _, n, err := head.Files(t.Context(), 3); err != nil || n <= 3 {
		t.Errorf("Files with a bound of 3 = %d, %v", n, err)
	}
}
