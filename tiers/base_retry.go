package tiers

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

func retryAfter(b *backoff.ExponentialBackOff, err error, interval time.Duration) time.Duration {
	d := b.NextBackOff()
	if permanent(err) && interval > 0 {
		return max(d, interval)
	}
	if interval > 0 {
		return min(d, interval)
	}
	return d
}

// backupWithin makes a commit of everything due within d, unless one is due earlier.
func (v *Volume) backupWithin(d time.Duration) {
	due := time.Now().Add(d).UnixNano()
	for {
		old := v.backupDue.Load()
		if old != 0 && old <= due {
			return
		}
		if v.backupDue.CompareAndSwap(old, due) {
			break
		}
	}
	select {
	case v.backupBy <- struct{}{}:
	default:
	}
}
