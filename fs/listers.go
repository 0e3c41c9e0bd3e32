package fs

import (
	"sync"
	"sync/atomic"
)

const (
	// listersMax is how many threads are watched at the same time.
	listersMax = 256
	// probed is how many files of a directory are sent without attributes to find out whether a program wants them.
	probed = 8
)

// listers finds out which programs look at the attributes of what they list. If one does, a listing with attributes
// (READDIRPLUS) saves one LOOKUP per entry. If one does not, such as find(1), it costs the daemon a look at each file,
// and both sides an inode in memory. The kernel's own heuristic covers only the first piece of each directory, and the
// kernel does not say whether attributes were used. So a few entries of a program's second directory are sent without
// attributes, and whether LOOKUPs for them follow decides about the next directories. Subdirectories always go out with
// attributes, because whoever lists a tree opens them next. If attributes are costly, as in lazy directories, they are
// sent only once LOOKUPs have come. It is safe for concurrent use.
type listers struct {
	watching atomic.Int32 // number of entries in byPID; if it is 0, a LOOKUP need not take mu

	mu struct {
		sync.Mutex
		byPID map[uint32]*lister
		tick  uint64
	}
}

// lister is one thread that lists directories.
type lister struct {
	used   uint64 // mu.tick of the last use
	listed int    // how many directories it has listed
	dir    uint64 // the last one that it listed
	looks  int    // LOOKUPs of files in dir since it began to list dir
	held   bool   // some files of dir were sent without attributes
	plain  bool   // it is known not to want attributes
	wants  bool   // it is known to want them
}

// begin notes that thread pid begins to list dir, and returns for how many files attributes are left out; a negative
// number means for all. costly says that getting the attributes takes much longer than getting the names; then only
// threads known to want them get them.
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

// expire drops the thread that has listed nothing for longest. l.mu must be held.
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
		if p.looks++; p.looks > 1 { // a single LOOKUP may be of a file that it was looking for
			p.plain, p.wants = false, p.held
		}
	}
}
