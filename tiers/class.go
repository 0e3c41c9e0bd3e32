package tiers

import "strings"

// This file stands in for the rules: which class a path has.

// memoryDir says whether the directory at this slash path (no leading slash) of the volume is the root of a memory area or inside
// one. Cheap: it is asked for each directory that is looked up.
func (v *Volume) memoryDir(path string) bool {
	for _, d := range v.cfg.MemoryDirs {
		if path == d || strings.HasPrefix(path, d) && path[len(d)] == '/' {
			return true
		}
	}
	return false
}

// memoryRules says whether memoryDir can be true of any path.
func (v *Volume) memoryRules() bool { return len(v.cfg.MemoryDirs) > 0 }
