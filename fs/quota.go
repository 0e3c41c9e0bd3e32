package fs

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// openQuota shares out this process's descriptors among open files and directories. Some are set aside for commits,
// commands, directories that are kept open and the kernel's own needs; of the rest one user gets half at most, but for
// root and whoever mounted. So nobody can keep the others, or the backup, from opening anything. Safe for concurrent
// use.
type openQuota struct {
	most, perUser int64
	exempt        uint32 // the user who mounted

	mu struct {
		sync.Mutex
		total  int64
		byUser map[uint32]int64
	}
}

// newOpenQuota goes by the process's limit of open files.
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

// take counts an open of a user's; ENFILE where that would be too many.
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

// give takes back what take counted.
func (q *openQuota) give(uid uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.total--
	if q.mu.byUser[uid]--; q.mu.byUser[uid] == 0 {
		delete(q.mu.byUser, uid)
	}
}
