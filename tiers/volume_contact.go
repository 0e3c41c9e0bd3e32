package tiers

import (
	"context"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"

	"emberfs/tiers/cold"
)

// contactAgain is after what time a remote that answers, but cannot be followed, is tried again.
const contactAgain = 5 * time.Minute

// contactLoop tries the remote that the start did without until it answers.
func (v *Volume) contactLoop(ctx context.Context) {
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval, retry.MaxInterval = time.Second, 30*time.Second
	var last error
	for {
		pause := retryAfter(retry, last, v.cfg.BackupInterval)
		if !v.cold.Contact().IsZero() && last != nil { // what is wrong comes after much was transferred
			pause = max(pause, min(contactAgain, v.cfg.BackupInterval))
		}
		if !sleep(ctx, pause) || !v.isOffline() { // a push was quicker
			return
		}
		moved, err := v.cold.Peek(ctx)
		if ctx.Err() != nil {
			return
		}
		if last = err; err != nil {
			v.points.setError("fetch", err)
			v.log.WithError(err).Debug("the remote is still not there")
			continue
		}
		v.contacted()
		if moved {
			err = fmt.Errorf("%w, which came while it could not be reached: unmount this volume, and mount it again",
				cold.ErrDiverged)
			v.log.Warn(err)
		}
		v.points.setError("fetch", err)
		return
	}
}
