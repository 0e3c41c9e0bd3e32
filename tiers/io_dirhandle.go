package tiers

// DirHandle is an open directory stream. The kernel serialises its use.
type DirHandle struct {
	v       *Volume
	n       *Inode
	fd      int
	buf     []byte // entries read and not yet taken
	room    []byte
	pos     uint64 // position of the stream: the cookie before buf's first entry
	browser bool   // it gave names by the commit
	cache   DirCache

	noatime  bool // fd has O_NOATIME
	accessed bool // the first read was made, and moved the access time if that was due

	// Opener belongs to the caller: the user for whom the stream was opened.
	Opener uint32
	// Without belongs to the caller: for how many more files it gives the names alone; -1: for all.
	Without int
}

// DirCache says whether the kernel may keep what it reads from a directory stream.
type DirCache uint8

// The kernel keeps either the commit's names or warm's own: their cookies differ, and a stream that found the other
// kind would miss names.
const (
	DirKeep  DirCache = iota // it may keep it, and what it kept before
	DirAnew                  // it may keep it, but what it kept before is from before the directory was listed
	DirNever                 // it may keep nothing: streams of both kinds are open
)
