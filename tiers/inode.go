package tiers

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/heldback"
	"emberfs/tiers/warm"
)

// nodes is warm's directory as it is open, and what is known of the inodes in it.
type nodes struct {
	warmFD    int // O_PATH descriptor of the warm directory
	warmMount uint64
	fsType    int64
	noatime   bool   // warm's mount moves no atime
	relatime  bool   // or only an old one
	records   bool   // warm takes trusted.* attributes from us
	mayChown  bool   // the daemon is root
	uid, gid  uint32 // the daemon's own
	atime     atimes
	times     *warm.Times     // that warm's file system keeps
	held      *heldback.Table // what commits have and this machine cannot make
	flagged   atomic.Bool     // of an area: files may have flags

	root  *Inode
	table table
	dirs  dirFDs

	barrier   rwMutex[lockBarrier]
	epoch     atomic.Uint64
	mainEpoch atomic.Uint64            // the epoch since the last boundary of a commit of everything
	capturing atomic.Uint64            // the epoch of the commit under way, or 0
	boundary  atomic.Pointer[boundary] // what the commit under way is to show; nil: none walks
	// Inodes that the kernel forgot although they were touched since that commit's boundary.
	late        inoSet
	marks       mutex[lockMarks]
	ns          rwMutex[lockNS]
	nameChanges atomic.Uint64 // ns: renames and unlinks so far
	nameless    atomic.Int64  // inodes whose anon is set, about
	writers     sync.Map      // *Inode open for writing -> struct{}
	// dirtyHint holds, on volumes without records, forgotten inodes whose bytes no commit has.
	dirtyHint inoSet

	moved     moved
	forgotten forgotten
}

// Inode is a file, directory or other node of warm that the kernel or the daemon knows. It lives while somebody holds a
// reference: a kernel lookup, an open handle, a child inode, a commit.
type Inode struct {
	vol  *Volume // the one it belongs to: the mounted volume, or the area of its memory class
	id   uint64  // FUSE node id
	ino  uint64  // warm's inode number
	gen  uint64  // birth time in ns, odd
	kind cold.Kind

	refs       int64        // table.mu
	prev, next *Inode       // table.mu: neighbours on the clock, nil for the root
	used       atomic.Bool  // since the clock's hand came by last
	opens      atomic.Int32 // open handles

	// Volume.ns guards these. parent is nil for the root and for an inode whose known name is gone; then anon is set.
	parent *Inode
	name   string
	anon   int // O_PATH descriptor of an inode without a known name, or -1

	io        rwMutex[lockIO] // content; see doc.go
	version   uint64          // io: hot's content version
	hotHint   atomic.Bool     // hot may hold pages of this version
	stub      atomic.Bool     // io: the bytes are in cold only; as n.mu.rec says
	untracked atomic.Bool     // mu: the bytes may change without the daemon's knowledge (direct_untracked.go)

	// back is held while a stub's bytes come back, go, or are given up for good. Nothing but io and mu is locked under
	// it.
	back      mutex[lockBack]
	lastUse   atomic.Uint32 // by Volume.clock; 0: not in this session
	coldReads atomic.Uint32 // handles through which a stub was read
	noted     atomic.Bool   // is in the list of files that this session opened

	// areaOf is, of the root of a memory directory, the directory of warm at whose place it stands; both shown under
	// its number.
	host         atomic.Pointer[Inode]
	alsoCritical atomic.Bool // has several names, and the rules said critical of one

	writeSeq atomic.Uint64 // rises with every change of content
	// Which parts changed; nil: not noted (small files, or not read by a commit yet).
	written      atomic.Pointer[written]
	epoch        atomic.Uint64 // the last epoch in which the inode was touched
	contentEpoch atomic.Uint64 // the same for its bytes

	// Of the commit under way, by its epoch.
	born      atomic.Uint64 // made since its boundary, where that is so
	taken     atomic.Uint64 // the walk has all of it
	readIn    atomic.Uint64 // the walk has its bytes
	preserved atomic.Pointer[preserved]

	mu struct {
		mutex[lockInode]
		rec         warm.Record // what the attribute holds; zero: nothing that counts
		mode        uint32      // with S_IFMT
		writers     int         // handles open for writing
		lent        uint32      // the mode that lend set, which stat does not show; 0: none
		ungranted   bool        // contents differ from rec though no record says so (volumes without records)
		marks       uint32      // rises with each change of the record, of a name or of attributes
		marksSynced uint32      // as far as fsync goes, what was there when marks was this is durable
		noXattrs    bool        // just created: no attribute of the user's, no ACL
		cached      int         // handles of which the kernel keeps pages
		direct      int         // handles that the kernel serves from warm itself; never both
		backing     int32       // while direct > 0: of Backing
		lingers     bool        // is in Volume.direct.lingering
		stale       bool        // untracked: the kernel may have got attributes before that it keeps for long
		looked      bool        // for writers that an earlier daemon left
		captured    cold.ID     // what the last commit stored for a file that is open for writing; zero: unknown
	}

	dir *dirState // directories only
}

// dirState is what only directories have.
type dirState struct {
	fd   int  // O_PATH, or -1; dirFDs.mu
	pins int  // users of fd; dirFDs.mu
	hot  bool // second-chance bit; dirFDs.mu

	lazy    atomic.Bool        // the children are not made in warm yet; as the record says
	listing mutex[lockListing] // held while they are made
	nlink   atomic.Int64       // of a lazy directory, from its listing; 0: not known

	browsed    atomic.Pointer[cold.DirID]    // the directories in it were made while it was lazy: what it stood for
	browsers   atomic.Int32                  // streams that give its names by the commit
	names      atomic.Pointer[[]warm.Dirent] // the names that they give, as long as there are some
	browseKept atomic.Bool                   // the kernel may keep what one of them gave
	absent     atomic.Int32                  // lookups of what the commit has not, while it was lazy

	// ordinary is memory.seq of when the directory was found to be none of class memory.
	ordinary atomic.Uint64
	mu       struct {
		mutex[leaf]
		tracking bool             // base and changed are complete
		pending  bool             // changed is complete since the capture under way read the directory
		missed   touch            // the last epoch in which a name was touched and not noted
		base     cold.DirID       // what the last commit stored for this directory
		changed  map[string]touch // names touched since base
		links    bool             // holds a name of a file with several names
		acl      int8             // default ACL: 0 unknown, 1 none, 2 present
	}
}

// ID is the FUSE node id: never used twice in one process; the root's is 1.
func (n *Inode) ID() uint64 { return n.id }

// Gen tells apart inodes that used the same number one after the other; never zero.
func (n *Inode) Gen() uint64 { return n.gen }

// Kind is the inode's type.
func (n *Inode) Kind() cold.Kind { return n.kind }

// Mode is n's mode with S_IFMT, as it was looked at last.
func (n *Inode) Mode() uint32 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.mode
}

// Volume is where operations on n go: the mounted volume, or the area that its directories of class memory have their
// contents in.
func (n *Inode) Volume() *Volume { return n.vol }

// isRoot says that n is the root of its volume, which never loses its descriptor and is on no clock.
func (n *Inode) isRoot() bool { return n.id&^areaBit == rootID }

// shownIno is the inode number that programs see.
func (n *Inode) shownIno() uint64 {
	if host := n.host.Load(); host != nil {
		return host.ino
	}
	return n.vol.shownIno(n.ino)
}

// touch is the last change of a name: its epoch, and whether it counts as at risk (an open file that nobody wrote does
// not).
type touch struct {
	epoch   uint64
	risk    bool
	earlier bool // not for the first time: a commit whose boundary came in between takes it
}

// areaBit is set in the node ids of an area and in the inode numbers that it shows, so that they never meet those of
// warm.
const areaBit = 1 << 62

// rootID is the root's node id, the first one given.
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

// AttrChanged tells the kernel that attributes of n changed by a request for something else: it has the old ones, and
// would not ask.
func (v *Volume) AttrChanged(n *Inode) {
	if inval := v.inval.Load(); inval != nil {
		(*inval).InvalAttr(n.id)
	}
}
