package tiers

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/warm"
)

// nodes is the component that holds warm's open directory and what is known of the inodes in it.
type nodes struct {
	warmFD    int // O_PATH descriptor of the warm directory
	warmMount uint64
	fsType    int64
	noatime   bool   // warm's mount has noatime
	relatime  bool   // warm's mount has relatime
	records   bool   // this process can set trusted.* attributes in warm
	mayChown  bool   // the daemon is root
	uid, gid  uint32 // the daemon's
	atime     atimes
	times     *warm.Times     // the times that warm's file system stores
	held      *heldback.Table // what is held back
	flagged   atomic.Bool     // of an area: some of its files may have flags of chattr(1)

	root  *Inode
	table table
	dirs  dirFDs

	barrier   rwMutex[lockBarrier]
	epoch     atomic.Uint64
	mainEpoch atomic.Uint64            // the epoch that began with the last commit of everything
	capturing atomic.Uint64            // the epoch of the commit under way, or 0
	boundary  atomic.Pointer[boundary] // of the commit whose walk is under way; nil: there is none
	// late has the inodes that left the table during a commit although they were touched since its boundary.
	late        inoSet
	marks       mutex[lockMarks]
	ns          rwMutex[lockNS]
	nameChanges atomic.Uint64 // changed under ns: renames and unlinks so far
	nameless    atomic.Int64  // about how many inodes have anon set
	writers     sync.Map      // *Inode open for writing -> struct{}
	// dirtyHint is for volumes without records: the inodes that left the table and whose bytes no commit has.
	dirtyHint inoSet

	moved     moved
	forgotten forgotten
}

// Inode is a file, directory or other node of warm that the kernel or the daemon knows. It lives while somebody holds a
// reference: a kernel lookup, an open handle, a child inode, a commit.
type Inode struct {
	vol  *Volume // the mounted volume, or the area of its memory class
	id   uint64  // FUSE node id
	ino  uint64  // warm's inode number
	gen  uint64  // birth time in ns, odd
	kind cold.Kind

	refs       int64        // table.mu
	prev, next *Inode       // guarded by table.mu: neighbours on the clock; nil for the root
	used       atomic.Bool  // it was used since the clock's hand came by last
	opens      atomic.Int32 // open handles

	// Volume.ns guards these three. parent is nil for the root, and for an inode that lost the name it was known by;
	// the latter has anon.
	parent *Inode
	name   string
	anon   int // O_PATH descriptor of an inode without a known name, or -1

	io        rwMutex[lockIO] // guards the content; see doc.go
	version   uint64          // guarded by io: the version under which hot keeps the content
	hotHint   atomic.Bool     // hot may hold pages of this version
	stub      atomic.Bool     // changed under io: the bytes are in cold only, as mu.rec says
	untracked atomic.Bool     // written under mu; see direct_untracked.go

	// back is held while a stub's bytes come back, go, or are given up for good. io and mu may be locked under it.
	back      mutex[lockBack]
	lastUse   atomic.Uint32 // a time of Volume.clock; 0: not used in this session
	coldReads atomic.Uint32 // handles through which a stub was read
	noted     atomic.Bool   // is in the list of files that this session opened

	// host is set on the root of a memory directory: the directory of warm in whose place it stands. Both are shown
	// under the inode number of host.
	host         atomic.Pointer[Inode]
	alsoCritical atomic.Bool // it has several names, and the rules said critical of one

	writeSeq atomic.Uint64 // rises with every change of content
	// written notes which parts changed; nil: they are not noted (the file is small, or no commit has read it yet).
	written      atomic.Pointer[written]
	epoch        atomic.Uint64 // the last epoch in which the inode was touched
	contentEpoch atomic.Uint64 // the last epoch in which its bytes were touched

	// These concern the commit under way: each of the first three holds that commit's epoch where it is true.
	born      atomic.Uint64 // the inode was made since the boundary
	taken     atomic.Uint64 // the walk has taken all of it
	readIn    atomic.Uint64 // the walk has read its bytes
	preserved atomic.Pointer[preserved]

	mu struct {
		mutex[lockInode]
		rec         warm.Record // what the attribute holds; zero: no record, or one that is not believed
		mode        uint32      // with S_IFMT
		writers     int         // handles open for writing
		lent        uint32      // the mode that lend has set and stat does not show; 0: none
		ungranted   bool        // no commit has the contents (needed on volumes without records)
		marks       uint32      // rises with each change of the record, of a name or of attributes
		marksSynced uint32      // the value of marks up to which fsync made changes durable
		noXattrs    bool        // just created: it has no ACL and no attributes of the user's
		cached      int         // handles that the daemon serves; 0 while direct > 0
		direct      int         // handles that the kernel serves from warm itself
		backing     int32       // while direct > 0: the id that Backing gave
		lingers     bool        // it is in Volume.direct.lingering
		stale       bool        // it became untracked after the kernel got attributes to keep
		looked      bool        // it was checked for writers that an earlier daemon left
		captured    cold.ID     // what the last commit stored of a file that stays dirty; zero: unknown
	}

	dir *dirState // directories only
}

// dirState is what only directories have.
type dirState struct {
	fd   int  // O_PATH, or -1; dirFDs.mu
	pins int  // users of fd; dirFDs.mu
	hot  bool // second-chance bit; dirFDs.mu

	lazy    atomic.Bool        // it is a lazy directory, as the record says
	listing mutex[lockListing] // held while its children are made
	nlink   atomic.Int64       // link count of a lazy directory, from the commit; 0: not known

	// browsed is set once the directories in it were made while it was lazy: the commit's directory that it stood for.
	browsed    atomic.Pointer[cold.DirID]
	browsers   atomic.Int32                  // streams that browse it
	names      atomic.Pointer[[]warm.Dirent] // what the browsers give; nil when there are none
	browseKept atomic.Bool                   // the kernel may have kept names from a browser
	absent     atomic.Int32                  // lookups of names that the commit lacks, while it was lazy

	// ordinary is the value of memory.seq at which the directory was found to be no memory directory.
	ordinary atomic.Uint64
	mu       struct {
		mutex[leaf]
		tracking bool             // base and changed are complete
		pending  bool             // changed is complete since the capture under way began to read the directory
		missed   uint64           // the epoch of the last change of a name that was not noted in changed
		counted  counted          // the names that were not noted, as far as they count as at risk
		base     cold.DirID       // what the last commit stored for this directory
		changed  map[string]touch // the names that were touched since base
		links    bool             // it holds a name of a file with several names
		acl      int8             // default ACL: aclUnknown, aclNone or aclPresent
	}
}

// ID is the FUSE node id. It is never used twice in one process; the root's is 1.
func (n *Inode) ID() uint64 { return n.id }

// Gen tells apart inodes that had the same number one after the other. It is never zero.
func (n *Inode) Gen() uint64 { return n.gen }

// Kind is the inode's type.
func (n *Inode) Kind() cold.Kind { return n.kind }

// Mode is n's mode with S_IFMT, as the last look at warm found it.
func (n *Inode) Mode() uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.mode
}

// Volume is the volume to call for operations on n: the mounted one, or the area of its memory class.
func (n *Inode) Volume() *Volume { return n.vol }

// isRoot says whether n is the root of its volume. A root keeps its descriptor and is on no clock.
func (n *Inode) isRoot() bool { return n.id&^areaBit == rootID }

// shownIno is the inode number that programs see.
func (n *Inode) shownIno() uint64 {
	if host := n.host.Load(); host != nil {
		return host.ino
	}
	return n.vol.shownIno(n.ino)
}

// touch is the last change of a name: its epoch, and whether it counts as at risk (opening a file for writing alone
// does not).
type touch struct {
	epoch   uint64
	risk    bool
	earlier bool // the name was also touched in an earlier epoch, so the commit under way has to take it
}

// areaBit is set in an area's node ids, and in the inode numbers that it shows, to keep them apart from warm's.
const areaBit = 1 << 62

// rootID is the root's node id, which is the first one given.
const rootID = 1

// Root is the volume's root directory.
func (v *Volume) Root() *Inode { return v.root }

func (v *Volume) openRoot() error {
	var st unix.Statx_t
	if err := warm.StatAt(v.warmFD, "", &st); err != nil {
		return err
	}
	n, _ := v.intern(&st)
	v.loadRecord(n, warm.ByFD(v.warmFD), &st)
	n.attrLocked(&st)
	n.mu.Unlock()
	fd, err := unix.Open(warm.FDPath(v.warmFD), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	v.dirs.put(n, fd)
	v.unpin(n)
	v.root = n
	return nil
}

// shownIno is the number that programs see for warm's inode number ino.
func (v *Volume) shownIno(ino uint64) uint64 { return ino | v.areaBit() }

func (v *Volume) areaBit() uint64 {
	if v.areaOf != nil {
		return areaBit
	}
	return 0
}

// AttrChanged makes the kernel drop its copy of n's attributes. It is for a request that changed them as a side effect,
// about which the kernel does not know.
func (v *Volume) AttrChanged(n *Inode) {
	if inval := v.inval.Load(); inval != nil {
		(*inval).InvalAttr(n.id)
	}
}
