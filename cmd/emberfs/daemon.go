package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"emberfs/tiers"
	"emberfs/tiers/cold"
)

const (
	// defaultDeadline limits the final backup after SIGTERM, whose sender is going to kill the process soon, and that
	// of `emberfs umount`, if no deadline is set. After umount(8), if the mount disappears, or where the sender is a
	// service manager that grants more time, there is no deadline of ours.
	defaultDeadline = 30 * time.Second
	// lazyGrace is how long processes that keep a mount busy may go on after SIGTERM has detached it.
	lazyGrace = 5 * time.Second
	// abortGrace is how long the kernel may take to release an aborted connection.
	abortGrace = 5 * time.Second
)

var errDeadline = errors.New("the deadline for the final backup has passed")

// volume is what the daemon needs of a tiers.Volume.
type volume interface {
	Sync(ctx context.Context, reason string) (*tiers.Receipt, error)
	GC(ctx context.Context, o cold.GCOptions) (cold.GCReport, error)
	Tier(ctx context.Context, paths []string) (tiers.TierReport, error)
	FileStatus(ctx context.Context, path string) (tiers.FileStatus, error)
	Status() tiers.Status
	Progress() tiers.Progress
	Alive()
	ListRules() tiers.RulesList
	SetAtime(tiers.Atime)
	ExplainRules(path string, dir bool) tiers.RulesReport
	Expire(at time.Time)
	EndMemory() error
	Close() error
}

// kernelMount is what the daemon needs of a mounted file system.
type kernelMount interface {
	Wait() error // returns once the kernel has gone away
	Unmount(lazy bool) error
}

// daemon serves one mount until it is gone, and then finishes the backup. However the end begins (umount, umount -l, a
// signal, the control socket), the kernel goes away, and then finish runs.
type daemon struct {
	config *config
	vol    volume
	mount  kernelMount
	log    logrus.FieldLogger
	// Cuts the kernel's connection although processes still use the mount; returns when it is cut.
	abort      func()
	transfers  *transfers // with the remote
	supervisor *supervisor
	pulse      *pulse
	grace      time.Duration // lazyGrace, except in tests
	device     string        // the mount's device, major:minor; "" if not known
	elsewhere  time.Duration // elsewhereSoon, except in tests
	// patience is how long a backup whose deadline has passed may take to report how far it came.
	patience time.Duration

	ending context.Context // cancelled when the deadline of the final backup has passed
	due    atomic.Int64    // UnixNano of that deadline, the earliest of those that were set; 0: there is none
	asked  atomic.Int64    // UnixNano of the deadline of the unmount under way; 0: there is none
	cut    context.CancelCauseFunc
	gone   chan struct{} // closed when the kernel has gone away
	giveUp chan struct{} // closed when the kernel does not go away and waiting makes no sense
	once   sync.Once     // closes giveUp
	wg     sync.WaitGroup
	done   chan struct{} // closed when final is set

	leaving chan struct{} // closed when the end begins
	left    sync.Once     // closes leaving

	mu struct {
		sync.Mutex
		phase   string
		stopped bool           // a signal arrived
		signals int            // how many have arrived
		prior   *tiers.Receipt // receipt of the backup taken just before the unmount
		reason  string         // why the daemon ends
		final   *tiers.Receipt
	}
	umounting sync.Mutex // one umount at a time
	noticed   *noticed   // what says that the machine goes away

	// The volume's last status, set just before the volume is closed. Until then the volume is asked.
	last struct {
		sync.RWMutex
		status *tiers.Status
	}
}

func newDaemon(c *config, vol volume, mount kernelMount, log logrus.FieldLogger) *daemon {
	d := &daemon{config: c, vol: vol, mount: mount, log: log, grace: lazyGrace, patience: time.Second,
		elsewhere: elsewhereSoon,
		transfers: new(transfers), supervisor: nobodySupervises(), pulse: &pulse{check: vol.Alive},
		abort: func() {}, leaving: make(chan struct{}),
		gone: make(chan struct{}), giveUp: make(chan struct{}), done: make(chan struct{})}
	ending, cut := context.WithCancelCause(context.Background())
	d.ending, d.cut = limited{ending, &d.due}, cut
	d.mu.phase = phaseMounted
	d.mu.reason = "unmount"
	d.noticed = newNoticed(c, vol, log)
	return d
}

// serve returns the final receipt once the mount has ended, everything that could be saved is saved, and the volume is
// closed. A signal ends the mount; further signals do not end the backup.
func (d *daemon) serve(signals <-chan os.Signal) *tiers.Receipt {
	defer d.cut(nil)
	if d.supervisor.there {
		d.wg.Go(d.watch)
	}
	go func() {
		if err := d.mount.Wait(); err != nil {
			d.log.WithError(err).Error("the kernel connection failed")
		}
		close(d.gone)
	}()
	stopped := make(chan struct{})
	defer func() {
		<-stopped
		d.wg.Wait()
	}()
	go func() {
		defer close(stopped)
		for {
			select {
			case sig := <-signals:
				d.stop(sig)
			case <-d.done:
				return
			}
		}
	}()
	select {
	case <-d.gone:
	case <-d.giveUp:
	}
	return d.finish()
}

// stop handles a signal: back up, then unmount, lazily if the mount is busy.
func (d *daemon) stop(sig os.Signal) {
	d.mu.Lock()
	first := !d.mu.stopped
	d.mu.stopped = true
	d.mu.signals++
	finishing := d.mu.phase == phaseFinishing
	if first && !finishing {
		d.mu.reason = "terminate"
	}
	d.mu.Unlock()
	if !first {
		d.log.Warnf("%v again: the final backup is under way and goes on", sig)
		return
	}
	deadline := d.config.Deadline
	if deadline == 0 && !d.supervisor.there {
		deadline = defaultDeadline
	}
	if deadline > 0 {
		d.log.WithField("deadline", deadline).Infof("%v: taking the final backup", sig)
		d.limit(deadline)
	} else {
		d.log.Infof("%v: taking the final backup, for which the service manager waits", sig)
	}
	if finishing {
		return
	}
	d.wg.Go(d.leave)
}

// leave unmounts and makes sure that the kernel goes away. What programs may still change is backed up before that too.
func (d *daemon) leave() {
	stopTicking := d.extendTimeout()
	defer stopTicking()
	err := d.mount.Unmount(false)
	if err != nil && !isGone(err) || !d.goneSoon() {
		d.backup(d.ending)
	}
	if errors.Is(err, unix.EBUSY) {
		err = d.mount.Unmount(false)
	}
	if errors.Is(err, unix.EBUSY) {
		d.log.Warn("the mount is in use: detaching it, its users may finish")
		err = d.mount.Unmount(true)
	}
	if err != nil && !isGone(err) {
		d.log.WithError(err).Error("cannot unmount")
	}
	d.awaitGone(d.grace)
}

// goneSoon waits a moment for the kernel to go away, as it does after an unmount that leaves no other mount of the
// volume, and says whether it has.
func (d *daemon) goneSoon() bool {
	select {
	case <-d.gone:
		return true
	case <-time.After(detachedSoon):
		return false
	}
}

// awaitGone waits for the kernel to go away, for at most grace or until the deadline, and then cuts the connection.
// After that no write is acknowledged, so the last backup misses nothing.
func (d *daemon) awaitGone(grace time.Duration) {
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-d.gone:
		return
	case <-t.C:
	case <-d.ending.Done():
	}
	d.log.Warn("the mount is still in use: ending it for the processes that use it")
	go d.abort() // in the background, because a request that hangs would block it
	t.Reset(abortGrace)
	select {
	case <-d.gone:
	case <-t.C:
		d.once.Do(func() { close(d.giveUp) })
	}
}

// isGone reports whether an unmount failed because the mount is not there any more.
func isGone(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) }

// limit sets a deadline for the final backup. Of several the earliest applies.
func (d *daemon) limit(after time.Duration) {
	at := time.Now().Add(after).UnixNano()
	for old := d.due.Load(); (old == 0 || at < old) && !d.due.CompareAndSwap(old, at); {
		old = d.due.Load()
	}
	t := time.AfterFunc(after, func() { d.cut(errDeadline) })
	context.AfterFunc(d.ending, func() { t.Stop() })
}

// limited is a context whose deadline may be set later. Something else cancels it then.
type limited struct {
	context.Context
	due *atomic.Int64 // UnixNano; 0: there is none
}

// Deadline implements context.Context.
func (l limited) Deadline() (time.Time, bool) {
	if due := l.due.Load(); due != 0 {
		return time.Unix(0, due), true
	}
	return time.Time{}, false
}

// backup takes a backup of a volume that programs may still change, so that the one after that is quick, and keeps the
// receipt.
func (d *daemon) backup(ctx context.Context) {
	r, err := d.syncWithin(ctx, tiers.ReasonLeaving)
	if err != nil {
		d.log.WithError(err).Warn("the backup before the unmount failed; it is tried again afterwards")
		if r == nil {
			return
		}
	}
	d.mu.Lock()
	d.mu.prior = r
	d.mu.Unlock()
}

// syncWithin is Sync, but returns soon after ctx has ended, even if the Sync is waiting for another backup. That Sync
// ends at the latest when the volume is closed.
func (d *daemon) syncWithin(ctx context.Context, reason string) (*tiers.Receipt, error) {
	type result struct {
		receipt *tiers.Receipt
		err     error
	}
	done := make(chan result, 1)
	d.wg.Go(func() {
		r, err := d.vol.Sync(ctx, reason)
		done <- result{r, err}
	})
	select {
	case r := <-done:
		return r.receipt, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.receipt, r.err
	case <-time.After(d.patience):
		return &tiers.Receipt{Reason: reason, Started: time.Now(), Remote: d.config.Source}, context.Cause(ctx)
	}
}

// finish takes the last backup, closes the volume and publishes the receipt.
func (d *daemon) finish() *tiers.Receipt {
	d.mu.Lock()
	d.mu.phase = phaseFinishing
	reason := d.mu.reason
	prior := d.mu.prior
	d.mu.Unlock()
	d.noticed.end()
	stopTicking := d.extendTimeout()
	defer stopTicking()
	if d.config.Deadline > 0 {
		d.limit(d.config.Deadline)
	}
	if left := time.Until(time.Unix(0, d.asked.Load())); left > 0 {
		d.limit(left)
	}
	select {
	case <-d.gone: // nobody uses the mount any more
		if err := d.vol.EndMemory(); err != nil {
			d.log.WithError(err).Error("the memory class is not unmounted")
		}
	default:
		reason = tiers.ReasonLeaving // somebody still writes, so the session does not end with what is saved now
	}

	r, err := d.finalSync(reason)
	if cause := context.Cause(d.ending); cause != nil && (err != nil || !r.Complete) {
		r = incomplete(r, cause.Error())
	}
	if err != nil && (r == nil || len(r.Missing) == 0) {
		r = incomplete(r, "final backup: "+err.Error())
	}
	r = joinReceipts(prior, r)
	select {
	case <-d.gone:
	default:
		r = incomplete(r, d.config.Mountpoint+
			": still in use; what is written from now on is lost to its writer or waits in "+d.config.State)
	}
	status := d.vol.Status()
	r.AtRisk, r.Total = status.AtRisk, status.Tiers.Cold.Files
	if r.Commit == "" && status.LastCommit != nil {
		r.Commit = status.LastCommit.ID
	}
	if risk := status.AtRisk; !r.Complete && risk.Files > 0 {
		r = incomplete(r, fmt.Sprintf("in all %s are at risk", riskText(risk)))
	}
	d.pulse.end(d.patience)
	d.last.Lock()
	d.last.status = &status
	d.last.Unlock()
	if err := d.vol.Close(); err != nil {
		r = incomplete(r, "closing the volume: "+err.Error())
	}
	if r.Missing == nil {
		r.Missing = []string{} // JSON readers expect a list
	}
	if err := writeReceipt(d.config.State, r, time.Now()); err != nil {
		d.log.WithError(err).Error("the receipt is not on disk")
	}
	d.report(r)
	d.mu.Lock()
	d.mu.final = r
	d.mu.Unlock()
	close(d.done)
	return r
}

// signalledTries is how often the final backup is tried again after a signal.
const signalledTries = 3

// finalSync is Sync. A service manager that loses patience with an unmount sends its signal not only to us, but also to
// the programs that carry the backup, such as ssh or a hook of the source. A backup that fails then is tried again.
func (d *daemon) finalSync(reason string) (r *tiers.Receipt, err error) {
	signals := func() int {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.mu.signals
	}
	for try := 0; ; try++ {
		before := signals()
		r, err = d.syncWithin(d.ending, reason)
		if err == nil && r.Complete || signals() == before || try == signalledTries || d.ending.Err() != nil {
			return r, err
		}
		d.log.WithError(err).Warn("the final backup failed when a signal came: it is tried again")
	}
}

// report logs the outcome.
func (d *daemon) report(r *tiers.Receipt) {
	if r.Complete {
		d.log.Info(summary(r))
		return
	}
	d.log.Errorf("%s; the state directory %s keeps what is missing for the next mount", summary(r), d.config.State)
	for _, m := range r.Missing {
		d.log.Error("missing: " + m)
	}
}

// extendTimeout tells the service manager that the end has begun, and keeps it waiting while a long backup runs, until
// the returned function is called.
func (d *daemon) extendTimeout() (stop func()) {
	d.left.Do(func() {
		close(d.leaving)
		d.supervisor.notify("STOPPING=1")
	})
	return d.supervisor.extend(func() bool { return d.pulse.alive(aliveBound) }, d.doing)
}
