package wire

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"emberfs/tiers/cold"
)

// TestPushWaitsForABusyRemote: somebody else holds the reference's lock for a moment, or for long; neither is a refusal
// for good.
func TestPushWaitsForABusyRemote(t *testing.T) {
	v := newVolume(t)
	dir, r := newRemote(t)
	first := v.commit("one")
	check(t, r.push(t.Context(), one(cold.ID{}, first), v.pack))
	second := v.commit("two")
	lock := filepath.Join(dir, mainRef+".lock")
	check(t, os.WriteFile(lock, nil, 0o600))
	released := make(chan error, 1)
	time.AfterFunc(300*time.Millisecond, func() { released <- os.Remove(lock) })
	if err := r.push(t.Context(), one(first, second), v.pack); err != nil {
		t.Errorf("push beside a lock that went away: %v", err)
	}
	check(t, <-released)
	if got := git(t, dir, "rev-parse", "main"); got != second.String() {
		t.Errorf("the remote is at %s, want %s", got, second)
	}

	third := v.commit("three")
	check(t, os.WriteFile(lock, nil, 0o600))
	err := r.push(t.Context(), one(second, third), v.pack)
	var refused *cold.RefusedError
	if err == nil || errors.As(err, &refused) {
		t.Errorf("push beside a lock that stays: %v", err)
	}
}

func TestRefusal(t *testing.T) {
	for reason, passing := range map[string]bool{
		"command error on refs/heads/main: unable to migrate objects to permanent storage": true,
		"command error on refs/heads/main: failed to update ref":                           true,
		"command error on refs/heads/main: pre-receive hook declined":                      false,
		"unpack error: index-pack abnormal exit":                                           false,
	} {
		var refused *cold.RefusedError
		if got := !errors.As((&refusalError{reason}).sorted(""), &refused); got != passing {
			t.Errorf("%s: passing %v, want %v", reason, got, passing)
		}
	}
}
