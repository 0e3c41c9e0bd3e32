package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// processesBelow lists the processes whose executable or working directory lies below a directory.
func processesBelow(dir string) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		for _, what := range []string{"exe", "cwd"} {
			to, err := os.Readlink(filepath.Join(p, what))
			if err != nil || !strings.HasPrefix(to, dir+"/") {
				continue
			}
			if pid, err := strconv.Atoi(filepath.Base(p)); err == nil {
				pids = append(pids, pid)
			}
			break
		}
	}
	return pids
}
