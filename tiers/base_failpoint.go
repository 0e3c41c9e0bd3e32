package tiers

import "fmt"

// Steps names the failpoints of this package, in the order in which a commit and a restore pass them. At each a test
// may kill the process, or make it fail with an error, through Config.Fail.
var Steps = []string{
	"commit.begin",    // nothing is done yet
	"commit.boundary", // what the commit is to show is fixed, nothing is taken yet
	"commit.walked",   // everything is in the transaction
	"commit.moved",    // the branch points to the new commit
	"state.write",     // before volume.json says so
	"commit.noted",    // volume.json says so
	"record.file",     // before a file is recorded clean
	"record.dir",      // before a directory is recorded clean
	"commit.recorded", // all is done
	"live.boundary",   // what a commit to the live branch is to show is fixed
	"live.moved",      // the live branch points to it, before volume.json says so
	"restore.note",    // the branch was followed, before volume.json says that warm is being brought to it
	"restore.entry",   // before an entry is made
	"restore.record",  // before a directory's record is written
	"restore.done",    // before volume.json says that warm is what the commit says
	"list.begin",      // before a directory is listed
	"browse.entry",    // before a directory is made in one that stays lazy
	"list.entry",      // before one of its entries is made
	"list.record",     // before its record says that it is listed
	"release.record",  // before a file's record says that it is a stub
	"release.punch",   // the record says so, before the bytes go
	"release.time",    // the bytes are gone, before warm's file gets its mtime back
	"return.write",    // before a stub's bytes are written to warm
	"return.durable",  // the bytes are written, before they are made durable
	"return.record",   // the bytes are durable, before the record says that it is no stub
}

// step passes the failpoint name. It returns the error that Config.Fail gives there.
func (v *Volume) step(name string) error {
	if v.cfg.Fail == nil {
		return nil
	}
	if err := v.cfg.Fail(name); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
