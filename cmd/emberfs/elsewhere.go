package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"emberfs/fs"
)

// mountedElsewhere returns where a file system, given by its device (major:minor), is still mounted: paths in this
// mount namespace, and for each other namespace a process in it. Namespaces that we may not look into are not found.
func mountedElsewhere(device string) []string {
	if device == "" {
		return nil
	}
	var places []string
	table, err := fs.Mounts()
	if err != nil {
		return nil
	}
	for _, m := range table {
		if m.Device == device {
			places = append(places, "at "+m.Path)
		}
	}
	own, _ := here()
	seen := map[string]bool{own: true}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		ns, err := os.Readlink(filepath.Join(p, "ns/mnt"))
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		f, err := os.Open(filepath.Join(p, "mountinfo"))
		if err != nil {
			continue
		}
		theirs, err := fs.ParseMounts(f)
		_ = f.Close()
		if err == nil && slices.ContainsFunc(theirs, func(m fs.MountEntry) bool { return m.Device == device }) {
			pid, _ := strconv.Atoi(filepath.Base(p))
			places = append(places, fmt.Sprintf("in the mount namespace of process %d (%s)", pid, commandOf(pid)))
		}
	}
	return places
}

// commandOf returns the name of a process, or "?" if it is not known.
func commandOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || len(b) == 0 {
		return "?"
	}
	return oneLine(string(b[:len(b)-1]))
}
