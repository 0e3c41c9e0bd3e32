package fs

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"

	"emberfs/tiers"
	"emberfs/tiers/cold"
)

// maxErrno is the highest errno that the kernel accepts in a reply. It refuses a reply with a higher one (EINVAL), and
// the caller would hang.
const maxErrno = 511

// errnoOf is the only place where errors are turned into what programs see. known is false if the error has no errno
// that would mean something to a program: then the answer is EIO, and the error should be logged.
func errnoOf(err error) (errno syscall.Errno, known bool) {
	if e, ok := err.(syscall.Errno); ok { // the common case, without the walk of errors.As
		return cleanErrno(e)
	}
	switch {
	case errors.Is(err, cold.ErrMissing), errors.Is(err, cold.ErrCorrupt):
		return syscall.EIO, false
	case errors.Is(err, tiers.ErrStandsIn): // no need to log it, since status lists it
		return syscall.EIO, true
	case errors.Is(err, context.Canceled):
		return syscall.EINTR, true
	case errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT, true
	}
	var e syscall.Errno
	if errors.As(err, &e) {
		return cleanErrno(e)
	}
	return syscall.EIO, false
}

// cleanErrno replaces errnos that the kernel would misunderstand.
func cleanErrno(e syscall.Errno) (syscall.Errno, bool) {
	switch {
	case e == syscall.ENOSYS: // the kernel would never ask again and, for fsync, report success from then on
		return syscall.EOPNOTSUPP, true
	case e == syscall.EIO: // right for the program, but it has to be logged, since the disk may be failing
		return syscall.EIO, false
	case e == 0 || e > maxErrno:
		return syscall.EIO, false
	}
	return e, true
}

// status turns the result of operation op on a node into the status of the reply.
func (f *filesystem) status(op string, node uint64, err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	errno, known := errnoOf(err)
	if !known {
		f.quiet.report(f.log, op, node, err)
	}
	return fuse.Status(errno)
}

// throttle logs at most one line per second and counts the others, so that a failing disk does not fill the log as
// well.
type throttle struct {
	last    atomic.Int64 // unix nanoseconds of the last line
	dropped atomic.Uint64
	now     func() time.Time // nil: time.Now
}

func (t *throttle) report(log logrus.FieldLogger, op string, node uint64, err error) {
	now := time.Now
	if t.now != nil {
		now = t.now
	}
	n, last := now().UnixNano(), t.last.Load()
	if n-last < int64(time.Second) || !t.last.CompareAndSwap(last, n) {
		t.dropped.Add(1)
		return
	}
	l := log.WithFields(logrus.Fields{"op": op, "inode": node})
	if d := t.dropped.Swap(0); d > 0 {
		l = l.WithField("more", d)
	}
	l.WithError(err).Error("operation failed, the program got EIO")
}
