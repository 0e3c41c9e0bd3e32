package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// stateWith makes the state directory of a volume that is not mounted, with a stock client's repository.
func stateWith(t *testing.T, scripts ...string) (state string) {
	t.Helper()
	state = t.TempDir()
	noError(t, os.Rename(filepath.Join(stockRepo(t, scripts...), ".git"), filepath.Join(state, coldName)))
	noError(t, os.WriteFile(filepath.Join(state, lockName), nil, 0o600))
	return state
}

func TestGCCommand(t *testing.T) {
	state := stateWith(t, "echo 0 >a", "echo 1 >a")
	cold := filepath.Join(state, coldName)
	// Take back the last commit: its three objects are of no use. All of them are loose.
	old, err := os.ReadFile(filepath.Join(cold, "refs/heads/main"))
	noError(t, err)
	parent := ""
	if data, err := os.ReadFile(filepath.Join(cold, "logs/refs/heads/main")); err == nil {
		parent = strings.Fields(strings.Split(string(data), "\n")[1])[0]
	}
	noError(t, os.WriteFile(filepath.Join(cold, "refs/heads/main"), []byte(parent+"\n"), 0o644))
	for _, name := range []string{"logs", "index"} { // they keep what they name
		noError(t, os.RemoveAll(filepath.Join(cold, name)))
	}
	gc := func(code int, args ...string) (r gcResult) {
		t.Helper()
		got, out, errs := emberfs(t, append([]string{"gc", state, "--json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &r); err != nil || got != code {
			t.Fatalf("%q: exit %d, %v, %q, %q", args, got, err, out, errs)
		}
		return r
	}
	if r := gc(0); r.Objects != 0 || r.Kept != 6 {
		t.Errorf("within the grace period: %+v", r)
	}
	dry := gc(0, "--dry-run", "--grace", "0")
	if dry.Objects != 3 || dry.Bytes == 0 || !dry.DryRun || dry.Kept != 3 {
		t.Errorf("%+v", dry)
	}
	code, out, errs := emberfs(t, "gc", state, "--grace=0s", "--dry-run")
	if want := "would remove 3 objects, "; code != 0 || !strings.HasPrefix(out, want) || errs != "" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	if r := gc(0, "--grace", "0"); r.Objects != 3 || r.Bytes != dry.Bytes || r.Kept != 3 || r.DryRun {
		t.Errorf("%+v", r)
	}
	code, out, errs = emberfs(t, "gc", state, "--grace=0s")
	if want := "nothing to remove; 3 objects in use or younger than the grace period\n"; code != 0 || out != want ||
		errs != "" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}

	// Where something is missing nothing goes.
	noError(t, os.WriteFile(filepath.Join(cold, "refs/heads/gone"), old, 0o644))
	for _, c := range []struct {
		code int
		args []string
		want string
	}{
		{1, []string{"gc", state, "--grace", "0"}, "nothing was removed"},
		{2, []string{"gc"}, "missing MOUNTPOINT or STATE"},
		{2, []string{"gc", state, "--grace", "-1h"}, "less than nothing"},
		{2, []string{"gc", state, "--grace", "soon"}, "invalid"},
		{1, []string{"gc", t.TempDir()}, "no emberfs is mounted there"},
	} {
		code, out, errs := emberfs(t, c.args...)
		if code != c.code || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%q: exit %d, %q, %q", c.args, code, out, errs)
		}
	}
	lock, err := lockState(state)
	noError(t, err)
	defer lock.Close()
	if code, _, errs := emberfs(t, "gc", state); code != 1 || !strings.Contains(errs, "in use by") {
		t.Errorf("exit %d, %q", code, errs)
	}
}

func TestGCThroughTheSocket(t *testing.T) {
	x := serveFake(t, &config{Mountpoint: "/m"}, nil)
	s := must(serveControl(x.config.State, x.daemon))(t)
	defer s.close()
	cl, ctx := newClient(x.config.State), t.Context()
	if r, err := cl.gc(ctx, gcRequest{Grace: time.Hour}); err != nil || r.Objects != 5 || r.Bytes != int64(time.Hour) ||
		r.Busy {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := cl.gc(ctx, gcRequest{Grace: 1, DryRun: true}); err != nil || !r.Busy {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := cl.gc(ctx, gcRequest{Grace: -1}); err == nil || r.Objects != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	x.mount.leave()
	x.final(t)
}
