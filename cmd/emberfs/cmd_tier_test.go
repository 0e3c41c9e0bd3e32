package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"emberfs/tiers"
)

// servedVolume is a daemon with a control socket, over fakes. Its mountpoint is a plain directory.
func servedVolume(t *testing.T) *daemonTest {
	t.Helper()
	mnt := must(filepath.EvalSymlinks(t.TempDir()))(t)
	x := serveFake(t, &config{Mountpoint: mnt}, nil)
	write(t, x.config.State, lockName, "")
	s := must(serveControl(x.config.State, x.daemon))(t)
	t.Cleanup(func() {
		x.mount.leave()
		<-x.daemon.done
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func (x *daemonTest) answer(r tiers.TierReport, err error) {
	x.vol.mu.Lock()
	defer x.vol.mu.Unlock()
	x.vol.report, x.vol.tierFail, x.vol.tiered = r, err, nil
}

func (x *daemonTest) asked() [][]string {
	x.vol.mu.Lock()
	defer x.vol.mu.Unlock()
	return x.vol.tiered
}

func TestTierOutcomes(t *testing.T) {
	x := servedVolume(t)
	state := x.config.State
	for name, c := range map[string]struct {
		report tiers.TierReport
		err    error
		code   int
		out    string
		errs   string
	}{
		"all": {tiers.TierReport{Files: 120, Bytes: 3 << 20, Hot: 7}, nil, 0,
			"released 120 files, 3.0 MiB; 7 files left memory\n", ""},
		"nothing": {tiers.TierReport{}, nil, 0, "nothing to release\n", ""},
		"open": {tiers.TierReport{Files: 1, Kept: map[string]int64{"open": 2, "pinned": 9, "empty": 0}}, nil, 0,
			"released 1 file, 0 B; kept: 9 pinned, 2 open\n", ""},
		"unsafe": {tiers.TierReport{Kept: map[string]int64{"open": 1, keptUnpushed: 1}}, nil, 3,
			"nothing to release; kept: 1 not pushed, 1 open\n", "1 file is not safe in cold yet; emberfs status"},
		"uncommitted": {tiers.TierReport{Kept: map[string]int64{keptUncommitted: 2}}, nil, 3,
			"nothing to release; kept: 2 not committed\n", "2 files are not safe"},
		"in part": {tiers.TierReport{Files: 5, Bytes: 1}, errors.New("push: no route"), 3,
			"released 5 files, 1 B\n", "push: no route"},
		"not at all": {tiers.TierReport{}, errors.New("tiering is off"), 1, "", "tiering is off"},
	} {
		x.answer(c.report, c.err)
		code, out, errs := emberfs(t, "tier", state)
		if code != c.code || out != c.out || !strings.Contains(errs, c.errs) || (c.errs == "") != (errs == "") {
			t.Errorf("%s: exit %d, %q, %q", name, code, out, errs)
		}
		if asked := x.asked(); len(asked) != 1 || len(asked[0]) != 0 {
			t.Errorf("%s: asked for %q, want everything", name, asked)
		}
	}
	x.answer(tiers.TierReport{Reason: "command", Files: 3, Bytes: 9}, nil)
	code, out, errs := emberfs(t, "tier", state, "--json")
	var r map[string]any
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || r["files"] != 3. || r["bytes"] != 9. ||
		r["kept"] == nil || r["reason"] != "command" {
		t.Errorf("exit %d, %v, %q, %q", code, err, out, errs)
	}
}

func TestTierPaths(t *testing.T) {
	x := servedVolume(t)
	mnt, state := x.config.Mountpoint, x.config.State
	odd := "odd \xff\n"
	noError(t, os.MkdirAll(filepath.Join(mnt, "d", "e"), 0o755))
	write(t, filepath.Join(mnt, "d"), odd, "")
	write(t, mnt, "f", "")
	outside := write(t, t.TempDir(), "o", "")
	noError(t, os.Symlink(outside, filepath.Join(mnt, "link")))
	t.Chdir(filepath.Join(mnt, "d"))
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{filepath.Join(mnt, "f")}, []string{"f"}},
		{[]string{"e", odd}, []string{"d/e", "d/" + odd}}, // from the working directory
		{[]string{"../f", filepath.Join(mnt, "d/../link")}, []string{"f", "link"}},
		{[]string{mnt}, nil}, // the root is everything
		{[]string{"e", mnt}, nil},
	} {
		x.answer(tiers.TierReport{}, nil)
		code, _, errs := emberfs(t, append([]string{"tier", state}, c.args...)...)
		if asked := x.asked(); code != 0 || len(asked) != 1 || !slices.Equal(asked[0], c.want) {
			t.Errorf("%q: exit %d, %q: asked for %q, want %q", c.args, code, errs, asked, c.want)
		}
	}
	x.answer(tiers.TierReport{}, nil)
	for _, c := range []struct {
		code int
		args []string
		say  string
	}{
		{2, []string{"tier"}, "missing MOUNTPOINT"},
		{2, []string{"tier", state, "--age", "5m"}, "unknown flag"},
		{2, []string{"tier", state, outside}, outside + ": lies outside"},
		{2, []string{"tier", state, "../../../etc"}, "lies outside"},
		{1, []string{"tier", state, "../f", "missing"}, "missing: not in the mount: no such file"},
		{1, []string{"tier", t.TempDir()}, "no emberfs is mounted there"},
	} {
		code, out, errs := emberfs(t, c.args...)
		if code != c.code || out != "" || !strings.Contains(errs, c.say) {
			t.Errorf("%q: exit %d, %q, %q", c.args, code, out, errs)
		}
	}
	if asked := x.asked(); len(asked) != 0 {
		t.Errorf("asked for %q after a mistake", asked)
	}
}

func TestTierRequests(t *testing.T) {
	x := servedVolume(t)
	cl, ctx := newClient(x.config.State), t.Context()
	for _, bad := range []string{"/etc", "..", "a/../../b", "../x"} {
		if _, err := cl.tier(ctx, []string{"ok", bad}); err == nil || len(x.asked()) > 0 {
			t.Errorf("%q: %v, asked for %q", bad, err, x.asked())
		}
		if _, err := cl.file(ctx, bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, err := cl.tier(ctx, []string{"a//b/./c/"}); err != nil || !slices.Equal(x.asked()[0], []string{"a/b/c"}) {
		t.Errorf("asked for %q, %v", x.asked(), err)
	}
	if st, err := cl.file(ctx, "a/\xff&path=b+c %"); err != nil || st.Kind != "file" {
		t.Errorf("%+v, %v", st, err)
	}
	resp := must(cl.do(ctx, "/v1/file?path=none", nil))(t)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("a missing file: %s", resp.Status)
	}
	_, err := call[fileReply](ctx, cl, "/v1/newer", nil, "")
	if err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("what the daemon does not know: %v", err)
	}
	x.mount.mu.Lock()
	x.mount.busy = false
	x.mount.mu.Unlock()
	x.signals <- unix.SIGTERM
	x.final(t)
	if _, err := cl.tier(ctx, nil); err == nil {
		t.Error("tiering after the end")
	}
	if _, err := cl.file(ctx, "f"); err == nil {
		t.Error("a file's status after the end")
	}
}
