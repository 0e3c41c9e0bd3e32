package tiers

// DirHandle is an open directory stream. The kernel serialises its use.
type DirHandle struct {
	v       *Volume
	n       *Inode
	fd      int
	buf     []byte // entries read and not yet taken
	room    []byte
	pos     uint64 // where the stream stands: the cookie before buf's first entry
	browser bool   // it gave names by the commit
	cache   DirCache

	noatime  bool // fd has O_NOATIME
	accessed bool // the first read has moved the access time, where it was to move

	// Opener is the caller's: which user it was opened for.
	Opener uint32
	// Without is the caller's: of how many more files a listing gives the names alone.
	Without int
}

// DirCache is what the kernel may do with what a directory stream reads.
type DirCache uint8

// The kernel keeps either the commit's names or warm's own: their cookies differ, and a stream that found the other
// kind would miss names.
const (
	DirKeep  DirCache = iota // keep it, and what it has
	DirAnew                  // keep it; what it has is of the time before the directory was listed
	DirNever                 // streams of both kinds are open
)
