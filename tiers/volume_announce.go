package tiers

import (
	"context"
	"errors"
	"time"
)

// announceAgain is how long after a failure the remote is told again, at the soonest.
const announceAgain = 30 * time.Second

// announceLoop tells the remote AnnounceDelay after the first change of a session, or of what follows a final commit
// after which the mount went on, that there is a session: else the machine that comes next would not know that this
// one was lost with what it had. A commit that comes sooner says so too. Where nothing changes there is nothing to say.
func (v *Volume) announceLoop(ctx context.Context) {
	delay := v.cfg.AnnounceDelay
	pause := func(wait time.Duration) bool { return sleep(ctx, max(wait, 10*time.Millisecond)) }
	for wait := delay / 4; pause(wait); {
		wait = delay / 4
		since := v.risk.lanes[laneMain].count().plus(v.risk.lanes[laneCritical].count()).since
		if since == 0 || v.sessionOpen.Load() {
			continue
		}
		if left := time.Until(time.Unix(0, since).Add(delay)); left > 0 {
			wait = min(wait, left)
			continue
		}
		if err := v.announce(ctx); err != nil && ctx.Err() == nil {
			v.log.WithError(err).Warn("cannot tell the remote that this session has changed something")
			wait = max(delay, announceAgain)
		}
	}
}

// announce makes the commit that says that the session has changed something, and asks for a push of it.
func (v *Volume) announce(ctx context.Context) error {
	select {
	case v.syncing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	rc := &Receipt{Reason: reasonOpen, Started: time.Now()}
	err := v.commitOpen(ctx, rc)
	<-v.syncing
	if errors.Is(err, errNeedWhole) {
		_, err = v.Sync(ctx, reasonOpen)
		return err
	}
	if err == nil && rc.New {
		v.pushSoon(false)
	}
	return err
}
