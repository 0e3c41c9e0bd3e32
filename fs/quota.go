package fs

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// openQuota limits how many of this process's descriptors are used for open files and directories. A quarter is set
// aside for commits, commands, directories that are kept open and the kernel. Of the rest, one user gets half at most,
// except root and the user who mounted. So nobody can keep other users, or the backup, from opening files. It is safe
// for concurrent use.
type openQuota struct {
	most, perUser int64
	exempt        uint32 // the user who mounted

	mu struct {
		sync.Mutex
		total  int64
		byUser map[uint32]int64
	}
}

// newOpenQuota derives the limits from the process's limit of open files.
func newOpenQuota(exempt uint32) *openQuota {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil || lim.Cur == 0 {
		lim.Cur = 1024
	}
	most := int64(min(lim.Cur, 1<<30)) / 4 * 3
	q := &openQuota{most: most, perUser: most / 2, exempt: exempt}
	q.mu.byUser = make(map[uint32]int64)
	return q
}

// take counts an open by a user. If that exceeds a limit, it returns ENFILE.
func (q *openQuota) take(uid uint32) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.total >= q.most || uid != 0 && uid != q.exempt && q.mu.byUser[uid] >= q.perUser {
		return syscall.ENFILE
	}
	q.mu.total++
	q.mu.byUser[uid]++
	return nil
}

// give undoes one take.
func (q *openQuota) give(uid uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.total--
	if q.mu.byUser[uid]--; q.mu.byUser[uid] == 0 {
		delete(q.mu.byUser, uid)
	}
}
