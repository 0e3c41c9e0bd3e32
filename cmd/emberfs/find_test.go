package main

import (
	"slices"
	"testing"

	"emberfs/fs"
)

// TestFindReusedDevice checks whom commands ask about a mount if the kernel gave it the device number of a volume whose
// daemon still finishes.
func TestFindReusedDevice(t *testing.T) {
	mount := func(path, device string) fs.MountEntry {
		return fs.MountEntry{Path: path, FSType: "fuse.emberfs", Device: device}
	}
	entry := func(mountpoint, state, device string) registration {
		return registration{Mountpoint: mountpoint, State: state, Device: device}
	}
	finishing, here := entry("/a", "/state/a", "0:40"), entry("/b", "/state/b", "0:40")
	bound, starting := entry("/c", "/state/c", "0:40"), entry("/b", "/state/b", "")
	for _, c := range []struct {
		what  string
		table []fs.MountEntry
		list  []registration
		want  []registration
	}{
		{"its own daemon", []fs.MountEntry{mount("/b", "0:40")}, []registration{finishing, here}, []registration{here}},
		{"its daemon has not noted the device yet", []fs.MountEntry{mount("/b", "0:40")},
			[]registration{finishing, starting}, []registration{starting}},
		{"a bind mount", []fs.MountEntry{mount("/c", "0:40"), mount("/b", "0:40")},
			[]registration{finishing, bound}, []registration{bound}},
		{"mounted again elsewhere", []fs.MountEntry{mount("/a", "0:41"), mount("/c", "0:40"), mount("/b", "0:40")},
			[]registration{finishing, bound}, []registration{bound}},
		{"bound over another's mountpoint", []fs.MountEntry{mount("/b", "0:39"), mount("/c", "0:40"),
			mount("/b", "0:40")},
			[]registration{entry("/b", "/state/b", "0:39"), bound},
			[]registration{bound, entry("/b", "/state/b", "0:39")}},
		{"a bind mount that was left", []fs.MountEntry{mount("/b", "0:40")}, []registration{bound},
			[]registration{bound}},
	} {
		m, _ := fs.MountAt(c.table, "/b")
		if got := (found{path: "/b", mount: &m}).daemonsIn(c.list, c.table); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
	list := []registration{finishing, here}
	if got := (found{path: "/state/a"}).daemonsIn(list, nil); !slices.Equal(got, list[:1]) {
		t.Errorf("a state directory: %v", got)
	}
}
