package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers"
)

// umount backs up, unmounts and waits for the final receipt. What has begun goes on even if the caller goes away.
func (d *daemon) umount(ctx context.Context, in umountRequest) (*tiers.Receipt, error) {
	d.umounting.Lock()
	start := time.Now()
	err := d.detach(in)
	d.umounting.Unlock()
	if err != nil {
		return nil, err
	}
	if in.Lazy {
		return d.wait(ctx)
	}
	limit := d.limitOf(in)
	left := func(most time.Duration) time.Duration {
		if limit > 0 {
			most = min(most, limit-time.Since(start))
		}
		return max(most, 100*time.Millisecond)
	}
	var places []string
	for _, patience := range []time.Duration{d.elsewhere, elsewhereLong} {
		select {
		case <-d.gone:
			if limit > 0 {
				d.limit(limit - time.Since(start))
			}
			return d.wait(ctx)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(left(patience)):
		}
		if places = mountedElsewhere(d.device); len(places) > 0 {
			break
		}
	}
	return d.stays(ctx, left(defaultDeadline), places), nil
}

const (
	// elsewhereSoon is how long the kernel may take to release a file system after its unmount before we look whether
	// it is mounted elsewhere too, and elsewhereLong how long if no other mount is found.
	elsewhereSoon = 2 * time.Second
	elsewhereLong = 10 * time.Second
)

// stays returns the receipt of an unmount after which the volume is still mounted in other places. The daemon goes on
// serving it there, and takes its final backup when the last of them is gone.
func (d *daemon) stays(ctx context.Context, limit time.Duration, places []string) *tiers.Receipt {
	d.mu.Lock()
	prior := d.mu.prior
	d.mu.prior = nil // it does not belong to the final backup
	d.mu.Unlock()
	d.asked.Store(0)
	work, cancel := context.WithTimeoutCause(ctx, limit, errDeadline)
	defer cancel()
	r, err := d.syncWithin(work, tiers.ReasonLeaving)
	if err != nil && (r == nil || len(r.Missing) == 0) {
		r = incomplete(r, "backup: "+err.Error())
	}
	r = joinReceipts(prior, r)
	if len(places) == 0 {
		places = []string{"in a place that cannot be seen from here"}
	}
	for _, p := range places {
		r = incomplete(r, "still mounted "+p+
			": what is written there is backed up as before, and finally when it is unmounted there")
	}
	return r
}

// limitOf returns how long the backups of an unmount may take; negative means without limit.
func (d *daemon) limitOf(in umountRequest) time.Duration {
	switch {
	case in.Deadline != 0:
		return in.Deadline
	case d.config.Deadline > 0:
		return d.config.Deadline
	}
	return defaultDeadline
}

// detach unmounts. What nobody can change any more needs one backup only, which says that the session has ended, so the
// unmount comes first. A mount that stays in use is backed up as it is.
func (d *daemon) detach(in umountRequest) error {
	select {
	case <-d.gone:
		return nil
	default:
	}
	start, limit := time.Now(), d.limitOf(in)
	if limit > 0 {
		d.asked.Store(start.Add(limit).UnixNano())
	}
	err := d.mount.Unmount(in.Lazy)
	if err == nil || isGone(err) {
		if in.Lazy {
			d.detached(limit)
		}
		return nil
	}
	d.asked.Store(0)
	if !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("unmount: %w", err)
	}
	work, cancel := context.Background(), context.CancelFunc(func() {})
	if limit > 0 {
		work, cancel = context.WithTimeoutCause(work, limit, errDeadline)
	}
	defer cancel()
	if _, err := d.syncWithin(work, tiers.ReasonLeaving); err != nil {
		d.log.WithError(err).Warn("the mount is in use, and the backup of it as it is failed")
	}
	return errBusy
}

// detached backs up a volume that was detached from its place and that programs may still use, and cuts them off when
// the time is over.
func (d *daemon) detached(limit time.Duration) {
	if d.goneSoon() {
		return
	}
	if limit > 0 {
		d.limit(time.Until(time.Unix(0, d.asked.Load())))
		d.wg.Go(func() { d.awaitGone(limit) })
	}
	d.backup(d.ending)
}

// detachedSoon is how long the kernel may take to release a file system that nobody uses.
const detachedSoon = 200 * time.Millisecond
