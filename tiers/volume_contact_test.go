package tiers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
	"emberfs/tiers/warm"
)

// fetches makes Fetch and Peek answer with err, or with what they found.
func (c *memCold) fetches(moved bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fetching = func(context.Context) (bool, error) {
		if err == nil {
			c.mu.Lock()
			c.contact = time.Now()
			c.mu.Unlock()
		}
		return moved, err
	}
}

// offlineState returns a state directory that a volume with a remote has used.
func offlineState(t *testing.T) (string, *memCold) {
	t.Helper()
	state, repo := t.TempDir(), newMemCold()
	repo.remote = true
	repo.fetches(false, nil)
	v := openTest(t, state, repo)
	v.Start()
	write(t, v, v.Root(), "f", "here")
	v.mustSync(t)
	must(t, v.Close())
	return state, repo
}

func remoteConfig(state string, repo cold.Cold) Config {
	return Config{State: state, Cold: repo, Log: quiet(), Branch: "main", MemoryLimit: 64 << 20, Source: "host:repo",
		BackupInterval: time.Hour}
}

// TestOfflineStart checks that a start without its remote mounts what is here, soon even if the remote does not answer
// at all, that it says why and how old that is, and that it goes back to the remote by itself.
func TestOfflineStart(t *testing.T) {
	state, repo := offlineState(t)
	began := time.Now()
	repo.contact = time.Time{}
	repo.fetching = func(ctx context.Context) (bool, error) {
		<-ctx.Done()
		return false, context.Cause(ctx)
	}
	c := remoteConfig(state, repo)
	c.ContactWait = 100 * time.Millisecond
	v, err := Open(t.Context(), c)
	must(t, err)
	t.Cleanup(v.over)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	said, _ := v.Offline()
	for _, want := range []string{"host:repo cannot be reached", "has not answered in time (100ms)",
		"the last commit here is of 20", "the remote last answered at 20", "s ago)"} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q: %s", want, said)
		}
	}
	st := v.Status()
	if st.Offline != said || st.LastContact == nil || !strings.Contains(strings.Join(st.Errors, "\n"), "fetch: ") {
		t.Errorf("status: %q, %v, %q", st.Offline, st.LastContact, st.Errors)
	}
	mustFind(t, v, "f")
	repo.fetches(true, nil) // another machine has pushed meanwhile
	v.Start()
	for end := time.Now().Add(20 * time.Second); v.isOffline(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not go back to the remote")
		}
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text := strings.Join(v.Status().Errors, "\n")
		if strings.Contains(text, cold.ErrDiverged.Error()) && strings.Contains(text, "mount it again") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("status does not say that the remote has moved on: %s", text)
		}
	}
}

// TestOfflineKinds checks what a start says of a remote that refuses, and that a remote which has moved on is no reason
// to call the volume offline.
func TestOfflineKinds(t *testing.T) {
	state, repo := offlineState(t)
	for _, k := range []struct {
		err   error
		wants []string // nothing: not offline
	}{
		{&cold.RefusedError{Reason: "401"}, []string{"host:repo refuses", "somebody has to mend that"}},
		{unix.ECONNREFUSED, []string{"cannot be reached", "tried again until it answers"}},
		{cold.ErrDiverged, nil},
		{nil, nil},
	} {
		repo.contact = time.Time{}
		repo.fetches(false, k.err)
		v, err := Open(t.Context(), remoteConfig(state, repo))
		must(t, err)
		said, _ := v.Offline()
		for _, want := range k.wants {
			if !strings.Contains(said, want) {
				t.Errorf("%v: it does not say %q: %s", k.err, want, said)
			}
		}
		if k.wants == nil && said != "" {
			t.Errorf("%v: %s", k.err, said)
		}
		must(t, v.Close())
	}
}

// TestOfflineRefuse checks that offline=refuse fails without a remote and leaves the state as it was, and that without
// anything local every start fails.
func TestOfflineRefuse(t *testing.T) {
	state, repo := offlineState(t)
	before, err := warm.LoadState(state)
	must(t, err)
	if before.Contact.IsZero() || !before.Clean {
		t.Fatalf("after a session with its remote: %+v", before.StateFile)
	}
	repo.fetches(false, fmt.Errorf("dial: %w", unix.ENETUNREACH))
	c := remoteConfig(state, repo)
	c.OfflineRefuse = true
	var refused *OfflineError
	if _, err := Open(t.Context(), c); !errors.As(err, &refused) || !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("offline=refuse: %v", err)
	}
	after, err := warm.LoadState(state)
	must(t, err)
	if !after.Clean || after.Head != before.Head || after.Trust != before.Trust ||
		!after.Contact.Equal(before.Contact) {
		t.Errorf("a refused start left %+v, before it was %+v", after.StateFile, before.StateFile)
	}
	repo.fetches(false, cold.ErrDiverged) // what is here may be all that there is of it
	v, err := Open(t.Context(), c)
	must(t, err)
	must(t, v.Close())

	for _, refuse := range []bool{false, true} {
		empty := newMemCold()
		empty.remote = true
		for _, fail := range []error{unix.ENETUNREACH, &cold.NoBranchError{Branch: "main", Others: []string{"trunk"}}} {
			empty.fetches(false, fail)
			c := remoteConfig(t.TempDir(), empty)
			c.OfflineRefuse = refuse
			if _, err := Open(t.Context(), c); !errors.Is(err, fail) || !strings.Contains(err.Error(), "host:repo") {
				t.Errorf("with nothing local and offline=refuse %v: %v, want %v", refuse, err, fail)
			}
		}
	}
}
