package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/sirupsen/logrus"

	"emberfs/cmd/emberfs/notice"
)

const (
	// expiryLead is how long before the end of a machine whose end is known it is as after a notice: what AWS gives.
	expiryLead = 2 * time.Minute
	// hookPatience bounds the notice_command.
	hookPatience = time.Minute
	// noticeGone is how long the end of the watching may take.
	noticeGone = 3 * time.Second
	// noticeSync bounds the backup after a warning.
	noticeSync = 10 * time.Minute
)

// noticed does what a notice asks for: the volume learns when the machine goes away, and the notice_command is run. Its
// methods are safe for concurrent use.
type noticed struct {
	config *config
	vol    volume
	log    logrus.FieldLogger
	board  *notice.Board
	ctx    context.Context // ends with the watching
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // hooks, backups after a warning, signals

	mu struct {
		sync.Mutex
		watcher *notice.Watcher
		last    *notice.Notice  // what was acted on
		known   map[string]bool // what was acted on ever, however its time was changed
		over    *time.Timer     // for a machine that is still there
	}
}

func newNoticed(c *config, vol volume, log logrus.FieldLogger) *noticed {
	n := &noticed{config: c, vol: vol, log: log}
	n.ctx, n.cancel = context.WithCancelCause(context.Background())
	n.mu.known = map[string]bool{}
	n.board = notice.NewBoard(n.changed)
	return n
}

// begin begins to watch what the settings name. Each of signals is a notice too.
func (n *noticed) begin(signals <-chan os.Signal) {
	spec, err := notice.Parse(n.config.Notice)
	if err != nil { // it was checked when the settings were read
		spec = notice.Spec{Kind: notice.None}
	}
	expires, lead := expiry(n.config, time.Now())
	w := notice.Start(notice.Options{Spec: spec, Board: n.board, Log: n.log, Expires: expires, Lead: lead})
	n.mu.Lock()
	n.mu.watcher = w
	n.mu.Unlock()
	n.wg.Go(func() {
		for {
			select {
			case sig := <-signals:
				n.board.Signal(fmt.Sprint(sig))
			case <-n.ctx.Done():
				return
			}
		}
	})
}

// expiry returns when the machine goes away by its settings (zero: they do not say), and how long before it that is
// acted on.
func expiry(c *config, mounted time.Time) (at time.Time, lead time.Duration) {
	lead = expiryLead
	if c.ExpiresIn > 0 {
		at, lead = mounted.Add(c.ExpiresIn), min(lead, c.ExpiresIn/2)
	}
	if t, err := time.Parse(time.RFC3339, c.ExpiresAt); err == nil && (at.IsZero() || t.Before(at)) {
		at, lead = t, expiryLead
	}
	return at, lead
}

// end ends the watching, the hook and a backup after a warning, and does not wait for long if they hang. The notice
// that there is stays in status.
func (n *noticed) end() {
	n.cancel(errors.New("the volume has been unmounted"))
	n.mu.Lock()
	w := n.mu.watcher
	if n.mu.over != nil {
		n.mu.over.Stop()
	}
	n.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if w != nil {
			w.Stop()
		}
		n.wg.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(noticeGone):
	}
}

// changed is called by the board.
func (n *noticed) changed(now *notice.Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		return
	}
	before := n.mu.last
	n.mu.last = now
	if n.mu.over != nil {
		n.mu.over.Stop()
	}
	if before != nil && before.Final() && (now == nil || !now.Final()) {
		n.vol.Expire(time.Time{})
	}
	if now == nil {
		n.log.Warn("the notice is withdrawn: this machine stays, as far as is known")
		return
	}
	key := fmt.Sprint(now.Source, now.What, now.When.UnixNano())
	known := n.mu.known[key]
	n.mu.known[key] = true
	n.log.WithFields(logrus.Fields{"what": now.What, "source": now.Source, "until": dateText(now.Until)}).
		Warn("notice: " + noticeText(now, time.Now()))
	if now.Final() {
		n.vol.Expire(now.Until)
		n.mu.over = time.AfterFunc(max(0, time.Until(now.Until))+notice.Overdue, func() { n.overdue(now) })
	} else if !known {
		n.wg.Go(n.backup)
	}
	if n.config.NoticeCommand != "" && !known {
		n.wg.Go(func() { n.hook(now) })
	}
}

// overdue is called a while after the time of a notice. Another one may matter from then on.
func (n *noticed) overdue(of *notice.Notice) {
	n.mu.Lock()
	if n.mu.last == of && n.ctx.Err() == nil {
		n.log.Warn("the time of the notice has passed and this machine is still here: backups are as before it")
		n.vol.Expire(time.Time{})
	}
	n.mu.Unlock()
	n.board.Look()
}

// backup takes one backup, after a warning.
func (n *noticed) backup() {
	ctx, cancel := context.WithTimeoutCause(n.ctx, noticeSync, errDeadline)
	defer cancel()
	r, err := n.vol.Sync(ctx, "notice")
	switch {
	case n.ctx.Err() != nil:
	case err != nil:
		n.log.WithError(err).Error("the backup after the notice failed")
	case !r.Complete:
		n.log.WithField("missing", r.Missing).Error("the backup after the notice is incomplete")
	}
}

// hook runs the notice_command, and logs the beginning of its output.
func (n *noticed) hook(of *notice.Notice) {
	out, err := notice.Shell(n.ctx, hookPatience, n.config.NoticeCommand, hookEnvironment(of, n.config.Mountpoint)...)
	log := n.log
	if text := oneLine(strings.Join(strings.Fields(out), " ")); text != "" {
		log = log.WithField("output", redact(text))
	}
	if err != nil {
		log.WithError(err).Error("the notice_command failed")
		return
	}
	log.Info("the notice_command is done")
}

// hookEnvironment returns the variables of the notice_command. None is named as that of a setting is: the command may
// run emberfs or mount(8), which obey those.
func hookEnvironment(of *notice.Notice, mountpoint string) []string {
	return []string{"EMBERFS_NOTICE_WHAT=" + of.What, "EMBERFS_NOTICE_UNTIL=" + dateText(of.Until),
		"EMBERFS_MOUNTPOINT=" + mountpoint}
}

// dateText returns a time in UTC as in RFC 3339, or "" for the zero value.
func dateText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// noticeText describes a notice for people.
func noticeText(n *notice.Notice, now time.Time) string {
	text := fmt.Sprintf("%s (%s: %s), since %s", n.What, n.Source, n.Detail,
		humanize.RelTime(n.When, now, "ago", "from now"))
	if !n.Final() {
		return text + "; this machine may go away"
	}
	guess := ""
	if n.Guessed {
		guess = " (a guess: nobody said when)"
	}
	switch left := n.Until.Sub(now).Round(time.Second); {
	case left > 0:
		return fmt.Sprintf("%s; this machine goes away at %s, in %v%s", text, dateText(n.Until), left, guess)
	default:
		return fmt.Sprintf("%s; this machine was to go away at %s%s", text, dateText(n.Until), guess)
	}
}

// noticeFile returns the file that is watched for a notice, or "".
func noticeFile(c *config) string {
	if spec, err := notice.Parse(c.Notice); err == nil && spec.Kind == notice.File {
		return spec.Arg
	}
	return ""
}
