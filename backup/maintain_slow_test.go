//go:build slow

package backup

import (
	"fmt"
	"testing"

	"emberfs/backup/coldtest"
)

// A volume whose commits made many packs has few after Maintain, and the same content.
func TestMaintain(t *testing.T) {
	t.Parallel()
	v := newVolume(t, Options{})
	f, links := oddTree()
	for i := range 900 { // over 512: the metadata is a trie of blobs
		f.Text(fmt.Sprintf("big/f%03d", i), fmt.Sprint(i))
	}
	for i := range 40 {
		f.Text(fmt.Sprintf("big/f%03d", i), fmt.Sprint("changed ", i))
		v.CommitTree(f, links)
	}
	if n := v.Stats().Packs; n < 40 {
		t.Fatalf("%d packs", n)
	}
	coldtest.Check(t, v.Maintain(t.Context()))
	s := v.Stats()
	if s.Packs > 8 || len(s.Problems) > 0 {
		t.Errorf("%+v", s)
	}
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
	v.CheckGit()
	f.Text("big/f000", "and on")
	v.CommitTree(f, links)
	if err := v.Maintain(t.Context()); err != nil || v.Stats().Packs != s.Packs+1 {
		t.Error("few packs are left alone", err)
	}
	coldtest.CompareTrees(t, v.ReadTree(v.HeadSnapshot()), f)
}
