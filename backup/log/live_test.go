package log

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"emberfs/backup"
	"emberfs/backup/coldtest"
)

// What lists commits knows live ones, and a time means the newest of both.
func TestLiveInHistory(t *testing.T) {
	v := newVolume(t, backup.Options{Source: coldtest.NewRemote(t)})
	f, ids, when := v.LiveHistory()
	ref := "emberfs-live/main/" + strings.Split(coldtest.LiveRefs(t, v.Dir)[0], ":")[0]
	var got []string
	for p, err := range v.Points(t.Context()) {
		coldtest.Check(t, err)
		got = append(got, fmt.Sprintf("%d live %v remote %v %s", slices.Index(ids, p.ID), p.Live, p.Remote,
			strings.Join(p.Refs, ";")))
	}
	want := []string{"3 live true remote false " + ref, "2 live true remote true remote: main, live",
		"1 live false remote true main;remote: main", "0 live false remote true "}
	if !slices.Equal(got, want) {
		t.Errorf("Points: got %q\nwant %q", got, want)
	}
	for _, dir := range []string{v.Dir, v.CopyTo(filepath.Join(t.TempDir(), "copy.git"))} {
		ro := openVolumeReadOnly(t, dir)
		coldtest.CompareTrees(t, ro.ReadTree(ro.NewestSnapshot()), f)
		ro.WantAt("read only", ids[1], ids[3])
		for rev, want := range map[string]int{
			"HEAD": 1, "main": 1, ref: 3, ref + "~1": 2, ref + "~2": 1,
			when.Add(10 * time.Hour).Format(time.RFC3339): 3, when.Add(150 * time.Minute).Format(time.RFC3339): 2,
			when.Add(90 * time.Minute).Format(time.RFC3339): 1,
		} {
			if id, err := ro.Resolve(t.Context(), rev, when); err != nil || id != ids[want] {
				t.Errorf("Resolve(%s) = %s, %v, want %s", rev, id, err, ids[want])
			}
		}
	}
}
