package tiers

import (
	"context"
	"sync"
)

// errands are what programs' requests wait for while it may take as long as a repository, or the network behind it,
// takes: listing a directory, bringing a file back. Each runs on a goroutine of its own, so that a request whose
// program was killed leaves at once, even where the errand itself is in a system call that nothing ends.
type errands struct {
	ctx   context.Context // ends with the volume; errands get it
	stop  context.CancelFunc
	under sync.WaitGroup
}

func (e *errands) init() { e.ctx, e.stop = context.WithCancel(context.Background()) }

// end asks the errands that are under way to stop. No request is under way any more.
func (e *errands) end() {
	if e.stop != nil {
		e.stop()
	}
}

// errand runs f, which is for n, and returns what it returns. When ctx ends before, it returns ctx's error at once, and
// f goes on without its caller: f must not use what the caller owns. Nothing is locked.
func (v *Volume) errand(ctx context.Context, n *Inode, f func(ctx context.Context) error) error {
	e := &v.errands
	// No goroutine is needed where nobody can leave, within an errand, and in an area, where nothing takes long.
	if ctx.Done() == nil || ctx == e.ctx || e.ctx == nil {
		return f(ctx)
	}
	v.ref(n)
	done := make(chan error, 1)
	e.under.Go(func() {
		defer v.unref(n, 1)
		done <- f(e.ctx)
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitBack waits until nobody moves n's bytes. Nothing is locked.
func (v *Volume) awaitBack(ctx context.Context, n *Inode) error {
	return v.errand(ctx, n, func(context.Context) error {
		n.back.Lock()
		defer n.back.Unlock()
		return nil
	})
}

// withRoom runs f, which makes names in warm for a program that looks at n, as an errand. If the disk was full, it
// makes room and runs f once more. Nothing is locked.
func (v *Volume) withRoom(ctx context.Context, n *Inode, f func(ctx context.Context) error) error {
	return v.errand(ctx, n, func(ctx context.Context) error {
		err := f(ctx)
		for r := (again{}); err != nil && r.try(ctx, v, n, &err); {
			err = f(ctx)
		}
		return err
	})
}
