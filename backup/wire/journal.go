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

// Journal makes r note in the file at path which push is under way, so that the next one can tell a lock that our own
// killed git left in the remote from somebody else's: git itself leaves that to its users for ever. Call it before the
// first Push.
func (r *Remote) Journal(path string, log logrus.FieldLogger) { r.journal, r.log = path, log }

// pushNote is the journal's content.
type pushNote struct {
	Boot    string    `json:"boot"`
	PID     int       `json:"pid"` // of git receive-pack, which leads a process group of its own
	Remote  string    `json:"remote"`
	Ref     string    `json:"ref"`            // the first of Refs: what an older version reads, and writes alone
	Refs    []string  `json:"refs,omitempty"` // all that it moves
	Started time.Time `json:"started"`
}

// lockPatience is how long a lock must stay as it is before it is broken; git holds one for milliseconds.
const lockPatience = time.Second

// note writes the journal, durably: it must be there after whatever ends the push.
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

// done removes the journal: the push has ended in order.
func (r *Remote) done() {
	if r.journal != "" {
		_ = os.Remove(r.journal) // one too many is looked at and found harmless
	}
}

// recover breaks the lock that a push of ours left in the remote when its git was killed.
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
		return nil // it still runs; git will say what it makes of that
	}
	h, err := r.hold()
	if err != nil {
		return err
	}
	defer h.close()
	if h.why != nil {
		return nil // others may have put anything there: nothing is removed by its name
	}
	// git locks HEAD too while it moves the branch that HEAD names, and packed-refs while it deletes.
	for _, name := range append(n.Refs, "HEAD", "packed-refs") {
		if err := r.breakLock(ctx, h.at(name+".lock"), n.Started); err != nil {
			return err
		}
	}
	return nil
}

// breakLock removes a lock that is as old as the interrupted push and at which nobody works.
func (r *Remote) breakLock(ctx context.Context, lock string, since time.Time) error {
	before, err := os.Lstat(lock)
	if err != nil || before.ModTime().Before(since.Add(-time.Second)) {
		return nil // none, or one that was there before
	}
	select {
	case <-time.After(lockPatience):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	after, err := os.Lstat(lock)
	if err != nil || !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
		return nil // somebody else's, who is at work
	}
	if err := os.Remove(lock); err != nil {
		return fmt.Errorf("remove the lock that a killed push left: %w", err)
	}
	r.log.WithField("path", lock).Warn("removed the lock that a killed push of ours left in the remote")
	return nil
}
