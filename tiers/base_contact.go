package tiers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// contactWait is how long a start waits for the remote's first answer where there is something local to go on with.
const contactWait = 10 * time.Second

// contactNoted is how old the time of the last contact in volume.json may become while the remote answers.
const contactNoted = time.Minute

// contact is what is known of the remote's answers.
type contact struct {
	mu      mutex[leaf]
	last    time.Time // when the remote last answered; zero: it is not known
	noted   time.Time // what volume.json has of that
	offline string    // the volume was mounted without the remote, which has not answered since: what to say of that
	why     error     // while offline is set: what is wrong with the remote
}

// OfflineError says that a start was refused because the volume could not be brought up to the remote.
type OfflineError struct {
	Source string
	Err    error
}

// Error implements error.
func (e *OfflineError) Error() string {
	return fmt.Sprintf("%s: %v; the volume on this machine may be older (offline=refuse)", e.Source, e.Err)
}

// Unwrap returns why.
func (e *OfflineError) Unwrap() error { return e.Err }

// errNoContact says that the remote was not waited for any longer.
var errNoContact = errors.New("it has not answered in time")

// awaitContact returns a context that ends if the remote has not answered within the time for which a start with
// something local waits. stop must be called.
func (v *Volume) awaitContact(ctx context.Context) (limited context.Context, stop func()) {
	most := v.cfg.ContactWait
	if most == 0 {
		most = contactWait
	}
	ctx, cancel := context.WithCancelCause(ctx)
	began := time.Now()
	t := time.AfterFunc(most, func() {
		if v.cold.Contact().Before(began) {
			cancel(fmt.Errorf("%w (%v)", errNoContact, most))
		}
	})
	return ctx, func() { t.Stop(); cancel(nil) }
}

// contacted notes that the remote answered.
func (v *Volume) contacted() {
	now := time.Now()
	c := &v.contact
	c.mu.Lock()
	back := c.offline != ""
	c.last, c.offline, c.why = now, "", nil
	note := v.started.Load() && now.Sub(c.noted) > contactNoted
	if note {
		c.noted = now
	}
	c.mu.Unlock()
	if back {
		v.log.Info("the remote answers again")
	}
	if note {
		if err := v.state.Update(func(s *warm.StateFile) { s.Contact = now }); err != nil {
			v.log.WithError(err).Warn("cannot write volume.json")
		}
	}
}

// putContact puts the time of the last contact into s.
func (v *Volume) putContact(s *warm.StateFile) {
	c := &v.contact
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Contact, c.noted = c.last, c.last
}

// goOffline notes that the volume goes on with what is here, and says why and how old that may be.
func (v *Volume) goOffline(err error) {
	here := "there is no commit here yet"
	if head, herr := v.cold.Newest(context.Background()); herr == nil && head != nil {
		here = "the last commit here is of " + agoText(head.Info().Made)
	}
	seen := "it is not known when the remote answered last"
	if t := v.lastContact(); t != nil {
		seen = "the remote last answered at " + agoText(*t)
	}
	what, next := "cannot be reached", "it is tried again until it answers"
	var refused *cold.RefusedError
	switch {
	case errors.As(err, &refused):
		what = "refuses"
		next = "somebody has to mend that; it is tried again every backup_interval and by emberfs sync"
	case !v.cold.Contact().IsZero():
		what = "answers, but cannot be followed"
	}
	text := fmt.Sprintf("offline: %s %s (%v): what is mounted is what this machine has, and may be older than the "+
		"remote: %s, %s; %s", v.cfg.Source, what, err, here, seen, next)
	v.log.Warn(text)
	c := &v.contact
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offline, c.why = text, err
}

// Offline returns for people that the volume was mounted without its remote, why, and how old it may be. It returns ""
// and nil where the remote answered, then or since.
func (v *Volume) Offline() (text string, why error) {
	c := &v.contact
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offline, c.why
}

func (v *Volume) isOffline() bool {
	_, why := v.Offline()
	return why != nil
}

// lastContact returns when the remote last answered, or nil if that is not known.
func (v *Volume) lastContact() *time.Time {
	c := &v.contact
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last.IsZero() {
		return nil
	}
	t := c.last
	return &t
}

// agoText is a time, and how long ago it was.
func agoText(t time.Time) string {
	return fmt.Sprintf("%s (%v ago)", cold.DateText(t.Truncate(time.Second)), time.Since(t).Round(time.Second))
}
