package tiers

import (
	"context"
	"fmt"
	"testing"

	"emberfs/tiers/cold"
)

// TestMarksAside commits with all but a few file marks put aside: afterwards everything is clean, and the next commit
// takes only what changed.
func TestMarksAside(t *testing.T) {
	v, repo := newVolume(t)
	defer v.Close()
	v.marksInMemory = 3
	for d := range 5 {
		dir := mkdir(t, v, v.Root(), fmt.Sprint("d", d))
		for i := range 10 {
			write(t, v, dir, fmt.Sprintf("file %d\n", i), fmt.Sprint(d, i))
		}
	}
	v.mustSync(t)
	if !v.rootClean() {
		t.Error("the root is not clean after a commit")
	}
	reads := repo.reads
	dir, _, err := v.Lookup(context.Background(), v.Root(), "d3")
	if err != nil {
		t.Fatal(err)
	}
	write(t, v, dir, "file 7\n", "changed")
	if rc := v.mustSync(t); rc.Files != 1 || repo.reads != reads+1 {
		t.Errorf("the commit of one file took %d and read %d", rc.Files, repo.reads-reads)
	}
	c := &capture{v: v}
	m := &dirMark{n: dir, files: []fileMark{{name: "a"}, {name: "b\n", ino: 1, gen: 2, read: 3, id: cold.ID{4}, size: 5,
		mtime: cold.Time{Sec: -6, Nsec: 7}}, {name: "c"}, {name: "d"}}}
	want := append([]fileMark{}, m.files...)
	c.keepMarks(m)
	defer c.markFile.close()
	if m.files != nil || c.markFile == nil {
		t.Fatal("nothing was put aside")
	}
	var got []fileMark
	c.eachFile(m, func(f *fileMark) { got = append(got, *f) })
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("came back as %v, were %v", got, want)
	}
}
