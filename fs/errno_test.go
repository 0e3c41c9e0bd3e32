package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"

	"emberfs/tiers/cold"
)

func TestErrnoOf(t *testing.T) {
	for _, c := range []struct {
		err   error
		want  syscall.Errno
		known bool
	}{
		{syscall.ENOSPC, syscall.ENOSPC, true},
		{fmt.Errorf("write %q: %w", "x", syscall.EDQUOT), syscall.EDQUOT, true},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}, syscall.EACCES, true},
		{context.Canceled, syscall.EINTR, true},
		{fmt.Errorf("fetch: %w", context.DeadlineExceeded), syscall.ETIMEDOUT, true},
		{fmt.Errorf("object 12: %w", cold.ErrMissing), syscall.EIO, false},
		{errors.Join(syscall.ENOENT, cold.ErrCorrupt), syscall.EIO, false}, // damage is never "no such file"
		{syscall.EIO, syscall.EIO, false},
		{errors.New("whatever"), syscall.EIO, false},
		{syscall.Errno(0), syscall.EIO, false},
		{syscall.Errno(512), syscall.EIO, false}, // the kernel would drop the reply
		{syscall.ENOSYS, syscall.EOPNOTSUPP, true},
		{fmt.Errorf("fsync: %w", syscall.ENOSYS), syscall.EOPNOTSUPP, true},
	} {
		if got, known := errnoOf(c.err); got != c.want || known != c.known {
			t.Errorf("%v: %v %v, want %v %v", c.err, got, known, c.want, c.known)
		}
	}
}

func TestStatusLogsOneLineASecond(t *testing.T) {
	var out bytes.Buffer
	log := logrus.New()
	log.SetOutput(&out)
	now := time.Unix(100, 0)
	f := &filesystem{log: log}
	f.quiet.now = func() time.Time { return now }
	for range 5 {
		if st := f.status("read", 42, cold.ErrCorrupt); st != fuse.EIO {
			t.Fatal(st)
		}
	}
	now = now.Add(time.Second)
	if st := f.status("open", 43, errors.New("odd")); st != fuse.EIO {
		t.Fatal(st)
	}
	if st := f.status("open", 43, syscall.ENOENT); st != fuse.ENOENT {
		t.Fatal(st)
	}
	if st := f.status("open", 43, nil); st != fuse.OK {
		t.Fatal(st)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "inode=42") || !strings.Contains(lines[0], "op=read") ||
		!strings.Contains(lines[1], "more=4") {
		t.Fatalf("%q", lines)
	}
}
