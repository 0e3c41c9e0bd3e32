package wire

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"emberfs/tiers/warm"
)

// Journal makes r note in the file at path which push is under way. If our git is killed, it leaves a lock in the
// remote, for ever; by the note, the next push can tell it from somebody else's. Journal must be called before the
// first Push.
func (r *Remote) Journal(path string, log logrus.FieldLogger) { r.journal, r.log = path, log }

// pushNote is the journal's content.
type pushNote struct {
	Boot    string    `json:"boot"`
	PID     int       `json:"pid"` // git receive-pack's, which leads a process group of its own
	Remote  string    `json:"remote"`
	Ref     string    `json:"ref"`            // the first of Refs; older versions read and write only this
	Refs    []string  `json:"refs,omitempty"` // all references that the push moves
	Started time.Time `json:"started"`
}

// lockPatience is how long a lock must stay unchanged before it is broken; git holds one for milliseconds.
const lockPatience = time.Second

// note writes the journal durably: it must be there however the push ends.
func (r *Remote) note(p *session, updates []Update) error {
	service, here := p.end.(*process)
	if r.journal == "" || r.net != nil || !here {
		return nil
	}
	boot, err := warm.BootID()
	if err != nil {
		return err
	}
	n := pushNote{Boot: boot, PID: service.cmd.Process.Pid, Remote: r.path, Ref: updates[0].Ref, Started: time.Now()}
	for _, u := range updates {
		n.Refs = append(n.Refs, u.Ref)
	}
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return warm.WriteFileDurable(r.journal, data, 0o600)
}

// done removes the journal after a push has ended normally.
func (r *Remote) done() {
	if r.journal != "" {
		_ = os.Remove(r.journal) // if it stays, recover will find no lock to break
	}
}

// recover breaks the lock that a push of ours left in the remote because its git was killed.
func (r *Remote) recover(ctx context.Context) error {
	if r.journal == "" || r.net != nil {
		return nil
	}
	data, err := os.ReadFile(r.journal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the note of an interrupted push: %w", err)
	}
	var n pushNote
	boot, err := warm.BootID()
	if err != nil {
		return err
	}
	if json.Unmarshal(data, &n) != nil || n.Remote != r.path {
		return nil
	}
	if len(n.Refs) == 0 {
		n.Refs = []string{n.Ref}
	}
	if slices.ContainsFunc(n.Refs, func(ref string) bool {
		return !strings.HasPrefix(ref, "refs/") || strings.Contains(ref, "..")
	}) {
		return nil
	}
	if n.Boot == boot && !errors.Is(syscall.Kill(-n.PID, 0), syscall.ESRCH) {
		return nil // it is still running; git will report its lock
	}
	h, err := r.hold()
	if err != nil {
		return err
	}
	defer h.close()
	if h.why != nil {
		return nil // others can write there, so it is not safe to remove files by name
	}
	// git also locks HEAD while it moves the branch that HEAD names, and packed-refs while it deletes.
	for _, name := range append(n.Refs, "HEAD", "packed-refs") {
		if err := r.breakLock(ctx, h.at(name+".lock"), n.Started); err != nil {
			return err
		}
	}
	return nil
}

// breakLock removes a lock that is as old as the interrupted push and that nobody is using.
func (r *Remote) breakLock(ctx context.Context, lock string, since time.Time) error {
	before, err := os.Lstat(lock)
	if err != nil || before.ModTime().Before(since.Add(-time.Second)) {
		return nil // there is none, or it is older than the push
	}
	select {
	case <-time.After(lockPatience):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	after, err := os.Lstat(lock)
	if err != nil || !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
		return nil // it belongs to somebody who is at work
	}
	if err := os.Remove(lock); err != nil {
		return fmt.Errorf("remove the lock that a killed push left: %w", err)
	}
	r.log.WithField("path", lock).Warn("removed the lock that a killed push of ours left in the remote")
	return nil
}
