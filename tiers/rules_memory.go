package tiers

import "emberfs/tiers/rules"

// memoryDir says whether the rules give the directory at this slash path (no leading slash) the class memory. It is
// asked for each directory that is looked up.
func (v *Volume) memoryDir(path string) bool {
	return v.Rules().Decide(path, true).Class() == rules.Memory
}

// memoryRules says whether memoryDir can be true of any path.
func (v *Volume) memoryRules() bool { return v.Rules().HasMemory() }
