package fs

import (
	"sync"
	"sync/atomic"
)

const (
	// listersMax bounds how many threads are watched at once.
	listersMax = 256
	// probed is how many files of a directory go out without their attributes to find out whether a program wants them.
	probed = 8
)

// listers finds out which programs look at the attributes of what they list. For one that does, a listing with
// attributes (READDIRPLUS) saves a LOOKUP an entry; for one that does not, such as find(1), it costs the daemon a look
// at each file and an inode in memory on both sides. The kernel's own guess is the first piece of each directory, and
// whether attributes were used it does not say; so a few entries of a program's second directory go out without, and
// whether LOOKUPs for them follow decides about the next ones. Directories always go out with attributes: whoever lists
// a tree opens them next. Where attributes are costly, in directories that are not listed yet, they go out once a
// LOOKUP has come. Safe for concurrent use.
type listers struct {
	watching atomic.Int32 // entries in byPID: LOOKUPs of nobody's business cost nothing

	mu struct {
		sync.Mutex
		byPID map[uint32]*lister
		tick  uint64
	}
}

// lister is one thread that lists directories.
type lister struct {
	used   uint64 // mu.tick of the last use
	listed int    // directories
	dir    uint64 // the last one
	looks  int    // LOOKUPs since that one was begun, of files in it
	held   bool   // some files of the last one went out without attributes
	plain  bool   // attributes are not wanted
	wants  bool   // they are; neither: nobody knows
}

// begin notes that pid lists dir from its beginning and says of how many files the attributes stay away; negative: of
// all. costly says that giving them takes the daemon much longer than the names: only who is known to want them gets
// them.
func (l *listers) begin(pid uint32, dir uint64, costly bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.byPID == nil {
		l.mu.byPID = make(map[uint32]*lister)
	}
	l.mu.tick++
	p := l.mu.byPID[pid]
	if p == nil {
		l.expire()
		p = new(lister)
		l.mu.byPID[pid] = p
		l.watching.Store(int32(len(l.mu.byPID)))
	}
	p.used = l.mu.tick
	if p.dir != dir && p.held {
		p.plain, p.wants = p.looks == 0, p.looks != 0
	}
	if p.dir != dir {
		p.listed++
	}
	p.dir, p.looks, p.held = dir, 0, true
	switch {
	case p.plain, costly && !p.wants:
		return -1
	case p.listed == 1:
		p.held = false
		return 0
	}
	return probed
}

// expire drops the thread that listed nothing for longest; mu is held.
func (l *listers) expire() {
	if len(l.mu.byPID) < listersMax {
		return
	}
	var oldest uint32
	least := l.mu.tick
	for pid, p := range l.mu.byPID {
		if p.used < least {
			oldest, least = pid, p.used
		}
	}
	delete(l.mu.byPID, oldest)
}

// looked notes a LOOKUP by pid of a file in dir.
func (l *listers) looked(pid uint32, dir uint64) {
	if l.watching.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.mu.byPID[pid]; p != nil && p.dir == dir {
		if p.looks++; p.looks > 1 { // one may be a name that it came for
			p.plain, p.wants = false, p.held
		}
	}
}
