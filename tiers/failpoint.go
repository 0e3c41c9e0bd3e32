package tiers

import "fmt"

// Steps names the failpoints of this package in the order in which a commit and a restore pass them: where a test may kill the
// process, or have it fail with an error, through Config.Fail.
var Steps = []string{
	"commit.begin",    // nothing is done yet
	"commit.walked",   // everything is in the transaction
	"commit.moved",    // the branch points to the new commit
	"state.write",     // before volume.json says so
	"commit.noted",    // it does
	"record.file",     // before a file is recorded clean
	"record.dir",      // before a directory is recorded clean
	"commit.recorded", // all is done
	"restore.note",    // the branch was followed, before volume.json says that warm is being brought to it
	"restore.entry",   // before an entry is made
	"restore.record",  // before a directory's record is written
	"restore.done",    // before volume.json says that warm is what the commit says
}

// step passes the failpoint name.
func (v *Volume) step(name string) error {
	if v.cfg.Fail == nil {
		return nil
	}
	if err := v.cfg.Fail(name); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
