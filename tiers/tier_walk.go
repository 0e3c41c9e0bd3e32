package tiers

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// eachEntry calls f for the regular files and directories that warm has in n, until f fails or ctx ends. fd is n's
// descriptor, valid until f returns. If n was removed meanwhile, that is no error.
func (v *Volume) eachEntry(ctx context.Context, n *Inode, f func(fd int, d *warm.Dirent) error) error {
	fd, err := v.dirFD(n)
	if err != nil {
		return gone2nil(err)
	}
	defer v.unpin(n)
	list, err := warm.ListNames(fd)
	if err != nil {
		return gone2nil(err)
	}
	for i := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if d := &list[i]; d.Mode == unix.S_IFDIR || d.Mode == unix.S_IFREG {
			if err := f(fd, d); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// recaller lists directories and brings stubs back, many to one syncfs(2), everywhere below an inode.
type recaller struct {
	v   *Volume
	ctx context.Context
	// With settle, warm becomes the only place that the files, and the directories, need, and the first failure ends
	// the walk. Without it, left counts the files that did not come back.
	settle bool
	left   int
	batch  []*Inode // with a reference each
	bytes  int64    // of the stubs in batch
}

// failed counts a file or directory that cannot be brought back or, with settle, returns err to end the walk.
func (r *recaller) failed(err error) error {
	if r.settle {
		return err
	}
	r.left++
	return nil
}

// below brings back all stubs below a directory.
func (r *recaller) below(n *Inode) error {
	defer r.close()
	if err := r.dir(n, 0); err != nil {
		return err
	}
	return r.flush()
}

func (r *recaller) dir(n *Inode, depth int) error {
	v := r.v
	if err := cold.TooDeepToWalk("", depth); err != nil {
		return r.failed(err)
	}
	if err := v.list(r.ctx, n); err != nil {
		return err
	}
	err := v.eachEntry(r.ctx, n, func(fd int, d *warm.Dirent) error {
		if r.settle && d.Mode == unix.S_IFREG && v.records {
			if _, ok := warm.ReadRecord(warm.ByName(fd, d.Name)); !ok {
				return nil // without a record nothing speaks of cold
			}
		}
		c, a, err := v.lookupAt(r.ctx, n, fd, d.Name)
		if gone2nil(err) != nil {
			return r.failed(err)
		}
		if err != nil {
			return nil
		}
		if c.dir != nil {
			defer v.unref(c, 1)
			return r.dir(c, depth+1)
		}
		stub := c.stub.Load()
		if !stub && !r.settle {
			v.unref(c, 1)
			return nil
		}
		if r.batch = append(r.batch, c); stub {
			r.bytes += int64(a.Size)
		}
		if len(r.batch) >= recallMost || r.bytes >= recallBytes {
			return r.flush()
		}
		return nil
	})
	if err == nil && r.settle {
		if err = r.flush(); err == nil {
			err = v.voidDir(n)
		}
	}
	return err
}

// flush brings back the files of the batch.
func (r *recaller) flush() error {
	defer r.close()
	r.v.recallBatch(r.ctx, r.batch)
	for _, n := range r.batch {
		if r.settle {
			if err := r.v.leaveCold(r.ctx, n); err != nil {
				return fmt.Errorf("%q: %w", r.v.pathOf(n), err)
			}
		} else if n.stub.Load() {
			r.left++
		}
	}
	return r.ctx.Err()
}

// close drops the batch and its references.
func (r *recaller) close() {
	for _, n := range r.batch {
		r.v.unref(n, 1)
	}
	r.batch, r.bytes = r.batch[:0], 0
}
