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

// maxErrno is the last errno that the kernel accepts in a reply; it refuses others with EINVAL, and the caller would
// hang.
const maxErrno = 511

// errnoOf is the one map from errors to what programs see. known is false where the error says nothing a program could
// use: the answer is then EIO and the error belongs in the log.
func errnoOf(err error) (errno syscall.Errno, known bool) {
	if e, ok := err.(syscall.Errno); ok { // the common case, without the walk of errors.As
		return cleanErrno(e)
	}
	switch {
	case errors.Is(err, cold.ErrMissing), errors.Is(err, cold.ErrCorrupt):
		return syscall.EIO, false
	case errors.Is(err, tiers.ErrStandsIn): // status lists it
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

// cleanErrno keeps answers that the kernel would misunderstand from reaching it.
func cleanErrno(e syscall.Errno) (syscall.Errno, bool) {
	switch {
	case e == syscall.ENOSYS: // the kernel would never ask again and, for fsync, report success from then on
		return syscall.EOPNOTSUPP, true
	case e == syscall.EIO: // right for the program, but somebody has to look at the disk
		return syscall.EIO, false
	case e == 0 || e > maxErrno:
		return syscall.EIO, false
	}
	return e, true
}

// status turns the result of op on a node into the reply's status.
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

// throttle lets one line a second through and counts the rest: a damaged disk must not fill the log as well.
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
