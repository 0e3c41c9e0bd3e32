package tiers

import "emberfs/tiers/rules"

// memoryDir says whether the directory at this slash path (no leading slash) of the volume is the root of a memory area
// or inside one. It is asked for each directory that is looked up.
func (v *Volume) memoryDir(path string) bool {
	return v.Rules().Decide(path, true).Class() == rules.Memory
}

// memoryRules says whether memoryDir can be true of any path.
func (v *Volume) memoryRules() bool { return v.Rules().HasMemory() }
