package tiers

// The types below are the ranks of this package's locks: whoever holds a lock takes only locks of higher ranks. doc.go
// says what each lock is for. A build with the tag lockorder asserts the order (base_locks_ordered.go); the tests with
// the race detector are such a build.

// ranked is a rank in the order of locks.
type ranked interface {
	rank() int
	// several says whether one goroutine may hold several locks of this rank. The users of the rank agree on their
	// order.
	several() bool
}

// leafRank is the rank of a lock under which no other is taken.
const leafRank = 100

type (
	lockMaking   struct{}
	lockSweeping struct{}
	lockRules    struct{}
	lockListed   struct{}
	lockListing  struct{}
	lockBack     struct{}
	lockBarrier  struct{}
	lockIO       struct{}
	lockMarks    struct{}
	lockInode    struct{}
	lockNS       struct{}
	lockBoundary struct{}
	lockCounting struct{}
	lockNotes    struct{}
	lockTable    struct{}
	leaf         struct{}
)

func (lockMaking) rank() int   { return 2 }
func (lockSweeping) rank() int { return 3 }
func (lockRules) rank() int    { return 1 }
func (lockListed) rank() int   { return 4 }
func (lockListing) rank() int  { return 5 }
func (lockBack) rank() int     { return 6 }
func (lockBarrier) rank() int  { return 7 }
func (lockIO) rank() int       { return 8 }
func (lockMarks) rank() int    { return 9 }
func (lockInode) rank() int    { return 10 }
func (lockNS) rank() int       { return 11 }
func (lockBoundary) rank() int { return 12 }
func (lockCounting) rank() int { return 13 }
func (lockNotes) rank() int    { return 14 }
func (lockTable) rank() int    { return 15 }
func (leaf) rank() int         { return leafRank }

func (lockMaking) several() bool   { return false }
func (lockSweeping) several() bool { return false }
func (lockRules) several() bool    { return false }
func (lockListed) several() bool   { return false }
func (lockListing) several() bool  { return true } // listTogether: in the order of their paths
func (lockBack) several() bool     { return true } // recallBatch: in the order of their ids
func (lockBarrier) several() bool  { return false }
func (lockIO) several() bool       { return true } // copyRange: in the order of their ids
func (lockMarks) several() bool    { return false }
func (lockInode) several() bool    { return true } // Rename: of both inodes, which the kernel has locked
func (lockNS) several() bool       { return false }
func (lockBoundary) several() bool { return false }
func (lockCounting) several() bool { return false }
func (lockNotes) several() bool    { return false }
func (lockTable) several() bool    { return false }
func (leaf) several() bool         { return false }
