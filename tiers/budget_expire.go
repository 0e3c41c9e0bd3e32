package tiers

import (
	"errors"
	"slices"
	"time"
)

// expireGrace is how long a volume goes on in short rounds after the time at which its machine should have been gone.
const expireGrace = time.Minute

// errExpired ends a backup that did not end before the machine was to go away.
var errExpired = errors.New("the time at which the machine goes away has come")

// Expire says that the machine goes away at that time; the zero time says that it does not after all. From now on a
// backup begins as soon as something is at risk, critical files first, and writers are slowed so that what they leave
// can be saved in the time that is left, at the measured speed. It returns at once. A machine that is still there a
// minute after the time is taken for one that stays. Expire is safe for concurrent use; the last call counts.
func (v *Volume) Expire(at time.Time) {
	b := &v.budget
	b.mu.Lock()
	changed := !b.expires.Equal(at)
	b.expires = at
	b.mu.Unlock()
	switch {
	case !changed:
		return
	case at.IsZero():
		v.log.Info("the machine stays: backups keep to their intervals again")
	default:
		v.log.WithField("at", at.Format(time.RFC3339)).Warn("the machine goes away: backups begin at once")
	}
	b.look()
}

// ends returns when the machine goes away and when the first of the final backups under way must be over. It forgets
// the former a while after that time.
func (b *budget) ends(now time.Time) (expires, deadline time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.expires.IsZero() && now.After(b.expires.Add(expireGrace)) {
		b.expires = time.Time{}
	}
	for _, at := range b.finals {
		if deadline.IsZero() || at.Before(deadline) {
			deadline = at
		}
	}
	return b.expires, deadline
}

// leavePause is for how long no round begins after the backup before an unmount: the one after the unmount would have
// to wait for it. An unmount that fails because the mount is in use does so at once.
const leavePause = 3 * time.Second

// leaves notes that an unmount follows now.
func (b *budget) leaves() {
	b.mu.Lock()
	b.quiet = time.Now().Add(leavePause)
	b.mu.Unlock()
}

// quietFor is how long no round begins because of leaves; 0 or less: one may.
func (b *budget) quietFor(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.quiet.Sub(now)
}

// crowded says whether more than one final backup is under way or waits for another.
func (b *budget) crowded() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.finals) > 1
}

// finalBy notes by when a final backup that begins must be over, so that writers are slowed; over says that it is over.
// One may begin while another is under way.
func (b *budget) finalBy(at time.Time) (over func()) {
	b.mu.Lock()
	b.finals = append(b.finals, at)
	b.mu.Unlock()
	b.look()
	return func() {
		b.mu.Lock()
		i := slices.Index(b.finals, at)
		b.finals = slices.Delete(b.finals, i, i+1)
		b.mu.Unlock()
		b.look()
	}
}
