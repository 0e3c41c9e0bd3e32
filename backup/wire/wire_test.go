package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"emberfs/backup/odb"
	"emberfs/integration/testprog"
	"emberfs/tiers/cold"
)

func TestPushAndFetch(t *testing.T) {
	ctx := t.Context()
	dir, r := newRemote(t)
	git(t, dir, "config", "receive.fsckObjects", "true")
	git(t, dir, "config", "receive.denyDeleteCurrent", "ignore")
	refs, err := r.Refs(ctx)
	if err != nil || len(refs) != 0 {
		t.Fatalf("empty remote: %v, %v", refs, err)
	}
	a, b := newVolume(t), newVolume(t)
	if _, _, err := r.Fetch(ctx, b.db, mainRef, nil); !errors.Is(err, odb.ErrNoRef) {
		t.Fatalf("fetch from an empty remote: %v", err)
	}
	var old cold.ID
	var have []cold.ID
	for i := range 5 {
		id := a.commit(strings.Repeat(fmt.Sprintf("line %d\n", i), 1000))
		check(t, r.push(ctx, one(old, id), a.pack))
		check(t, r.push(ctx, one(old, id), a.pack)) // it has it already
		if refs, err = r.Refs(ctx); err != nil || refs[mainRef] != id {
			t.Fatalf("after push: %v, %v", refs, err)
		}
		if !old.IsZero() {
			have = append([]cold.ID{old}, have...) // git acknowledges more than the newest
		}
		if i == 3 {
			git(t, dir, "gc", "-q") // so that what comes has deltas
		}
		tip, release, err := r.Fetch(ctx, b.db, mainRef, have)
		check(t, err)
		if tip != id {
			t.Fatalf("fetched %s, pushed %s", tip, id)
		}
		check(t, b.db.UpdateRef(mainRef, old, tip))
		check(t, release())
		old = id
	}
	if tip, release, err := r.Fetch(ctx, b.db, mainRef, []cold.ID{old}); err != nil || tip != old || release() != nil {
		t.Fatalf("fetch of nothing: %v", err)
	}
	for _, d := range []string{dir, a.dir, b.dir} {
		if out := git(t, d, "fsck", "--strict", "--full"); out != "" {
			t.Fatal(out)
		}
		if n := git(t, d, "rev-list", "--count", "main"); n != "5" {
			t.Fatalf("%s has %s commits", d, n)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(b.dir, "objects/pack/*.keep")); len(left) != 0 {
		t.Fatal(left)
	}
	check(t, r.push(ctx, one(old, cold.ID{}), nil))
	if refs, err = r.Refs(ctx); err != nil || len(refs) != 0 {
		t.Fatalf("after deletion: %v, %v", refs, err)
	}
}

func TestPushDiverged(t *testing.T) {
	ctx := t.Context()
	_, r := newRemote(t)
	a, b := newVolume(t), newVolume(t)
	first := a.commit("a")
	check(t, r.push(ctx, one(cold.ID{}, first), a.pack))
	other := b.commit("b")
	for _, old := range []cold.ID{{}, {1}} {
		if err := r.push(ctx, one(old, other), b.pack); !errors.Is(err, cold.ErrDiverged) {
			t.Fatalf("push over another's work: %v", err)
		}
	}
	if refs, err := r.Refs(ctx); err != nil || refs[mainRef] != first {
		t.Fatalf("the remote changed: %v, %v", refs, err)
	}
	// It moves while we send.
	second := a.commit("a2")
	pack := a.pack
	err := r.push(ctx, one(first, second), func(w io.Writer) error {
		ids, tip := a.ids, a.tip
		third := a.commit("a3")
		a.ids = append(a.ids, ids...)
		check(t, r.push(ctx, one(first, third), a.pack))
		a.ids, a.tip = ids, tip
		return pack(w)
	})
	if !errors.Is(err, cold.ErrDiverged) {
		t.Fatalf("the remote moved during the push: %v", err)
	}
}

func TestPushRefused(t *testing.T) {
	ctx := t.Context()
	dir, r := newRemote(t)
	hook := filepath.Join(dir, "hooks", "pre-receive")
	v := newVolume(t)
	id := v.commit("x")
	refused := func(what, reason string, write func(io.Writer) error) {
		t.Helper()
		err := r.push(ctx, one(cold.ID{}, id), write)
		var re *cold.RefusedError
		if !errors.As(err, &re) || !strings.Contains(re.Reason, reason) {
			t.Fatalf("%s: %v", what, err)
		}
		if refs, err := r.Refs(ctx); err != nil || len(refs) != 0 {
			t.Fatalf("%s: the remote changed: %v, %v", what, refs, err)
		}
	}
	check(t, os.MkdirAll(filepath.Dir(hook), 0o755))
	check(t, testprog.Write(hook, "#!/bin/sh\necho policy says no >&2\nprintf '\\033[31mred' >&2\nexit 1\n"))
	refused("hook", "policy says no; [31mred", v.pack)
	check(t, os.Remove(hook))
	refused("cut off pack", "unpack", func(w io.Writer) error {
		var b bytes.Buffer
		check(t, v.pack(&b))
		_, err := w.Write(b.Bytes()[:b.Len()-30])
		return err
	})
	refused("missing objects", "", func(w io.Writer) error {
		all := v.ids
		defer func() { v.ids = all }()
		v.ids = all[:2]
		return v.pack(w)
	})
	git(t, dir, "config", "receive.maxInputSize", "10")
	refused("size", "exceeds", v.pack)
	git(t, dir, "config", "--unset", "receive.maxInputSize")

	if err := r.push(ctx, one(cold.ID{}, id), func(io.Writer) error {
		return cold.ErrCorrupt
	}); !errors.Is(err, cold.ErrCorrupt) {
		t.Fatalf("our own error: %v", err)
	}
	// The answer is lost, but the push was done.
	post := filepath.Join(dir, "hooks", "post-receive")
	check(t, testprog.Write(post, "#!/bin/sh\nkill -9 $PPID\n"))
	check(t, r.push(ctx, one(cold.ID{}, id), v.pack))
	if refs, err := r.Refs(ctx); err != nil || refs[mainRef] != id {
		t.Fatalf("%v, %v", refs, err)
	}
}

func TestBigRefusedPushDoesNotHang(t *testing.T) {
	dir, r := newRemote(t)
	git(t, dir, "config", "receive.maxInputSize", "1000")
	v := newVolume(t)
	id := v.commit("x")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := r.push(ctx, one(cold.ID{}, id), func(w io.Writer) error {
		s, err := odb.NewPackStream(w, 1000)
		for range 1000 {
			if err == nil {
				err = s.Add(odb.Blob, bytes.Repeat([]byte("0123456789abcdef"), 1<<14))
			}
		}
		return err
	})
	var re *cold.RefusedError
	if !errors.As(err, &re) && !errors.Is(err, cold.ErrDiverged) {
		t.Logf("%v", err)
	}
	if err == nil || ctx.Err() != nil {
		t.Fatalf("push: %v, %v", err, ctx.Err())
	}
}

func TestBigPush(t *testing.T) {
	ctx := t.Context()
	dir, r := newRemote(t)
	v, b := newVolume(t), newVolume(t)
	big := make([]byte, 3*smallPack)
	rand.NewChaCha8([32]byte{}).Read(big)
	id := v.commit(string(big))
	if err := r.push(ctx, one(cold.ID{1}, id), v.pack); !errors.Is(err, cold.ErrDiverged) {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := r.push(ctx, one(cold.ID{}, id), func(w io.Writer) error {
		s, err := odb.NewPackStream(w, 2)
		if err == nil {
			err = s.Add(odb.Blob, big)
		}
		return errors.Join(err, broken)
	}); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	check(t, r.push(ctx, one(cold.ID{}, id), v.pack))
	check(t, r.push(ctx, one(cold.ID{}, id), v.pack))
	if m, _ := filepath.Glob(filepath.Join(dir, "objects/pack/*.pack")); len(m) != 1 {
		t.Fatalf("the remote has the packs %v", m)
	}
	tip, release, err := r.Fetch(ctx, b.db, mainRef, nil)
	check(t, err)
	if tip != id {
		t.Fatal(tip)
	}
	check(t, release())
	if got, err := b.db.Read(v.ids[2], odb.Blob, 1<<30); err != nil || !bytes.Equal(got, big) {
		t.Fatal(err)
	}
}

func TestContextEndsAHangingHook(t *testing.T) {
	dir, r := newRemote(t)
	check(t, os.MkdirAll(filepath.Join(dir, "hooks"), 0o755))
	started := filepath.Join(dir, "started")
	check(t, testprog.Write(filepath.Join(dir, "hooks", "pre-receive"),
		"#!/bin/sh\n>'"+started+"'\nexec sleep 300\n"))
	v := newVolume(t)
	id := v.commit("x")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(started); err == nil {
				cancel()
			}
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	if err := r.push(ctx, one(cold.ID{}, id), v.pack); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	dir, _ := newRemote(t)
	work := t.TempDir()
	git(t, work, "init", "-q")
	file := filepath.Join(work, "file")
	check(t, os.WriteFile(file, nil, 0o644))
	sha256 := filepath.Join(t.TempDir(), "sha256.git")
	git(t, work, "init", "-q", "--bare", "--object-format=sha256", sha256)
	for source, want := range map[string]error{
		sha256: ErrObjectFormat,
		dir:    nil,
		"file://" + strings.ReplaceAll(dir, " ", "%20"): nil,
		filepath.Join(dir, "missing"):                   fs.ErrNotExist,
		work:                                            ErrNotRepository,
		file:                                            ErrNotRepository,
		t.TempDir():                                     ErrNotRepository,
		"":                                              fs.ErrNotExist,
		"https://example.org/x.git":                     nil,
		"git://example.org/x.git":                       nil,
		"ftp://example.org/x.git":                       ErrNotSupported,
		"git://example.org/x%00y.git":                   errControl,
		"ssh://git@example.org/x.git":                   nil,
		"ssh://git:secret@example.org/x.git":            ErrPassword,
		"ssh://-oProxyCommand=x/x.git":                  errBadHost,
		"git@example.org:x.git":                         nil,
		"git@[::1]:x.git":                               nil,
		"file://example.org/x.git":                      ErrNotSupported,
	} {
		if _, err := Open(source, Options{}); !errors.Is(err, want) {
			t.Errorf("Open(%q): %v, want %v", source, err, want)
		} else if err != nil && !strings.Contains(err.Error(), strings.ReplaceAll(source, "secret", "xxxxx")) {
			t.Errorf("Open(%q): %v does not name it", source, err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	check(t, os.Symlink(dir, link))
	r, err := Open(link, Options{})
	if err != nil || r.String() != dir {
		t.Errorf("through a symbolic link: %v, %v", r, err)
	}
	if os.Geteuid() == 0 {
		foreign := filepath.Join(t.TempDir(), "foreign.git")
		check(t, os.Mkdir(foreign, 0o755))
		git(t, foreign, "init", "-q", "--bare")
		check(t, os.Chown(foreign, 12345, 12345))
		if _, err := Open(foreign, Options{}); !errors.Is(err, ErrForeignOwner) {
			t.Errorf("foreign repository: %v", err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrNoGit) {
		t.Errorf("without git: %v", err)
	}
	t.Setenv("PATH", "")
	r, err = Open(dir, Options{})
	check(t, err)
	if _, err := r.Refs(t.Context()); err != nil {
		t.Errorf("without PATH: %v", err)
	}
}

func TestFetchFromADamagedRemote(t *testing.T) {
	dir, r := newRemote(t)
	v, b := newVolume(t), newVolume(t)
	id := v.commit("some text")
	check(t, r.push(t.Context(), one(cold.ID{}, id), v.pack))
	h := v.ids[2].String()
	check(t, os.Remove(filepath.Join(dir, "objects", h[:2], h[2:])))
	if _, _, err := r.Fetch(t.Context(), b.db, mainRef, nil); err == nil {
		t.Fatal("fetch from a remote that lacks an object succeeded")
	} else if !strings.Contains(err.Error(), h) {
		t.Fatalf("the error does not say what the remote said: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(b.dir, "objects/pack/*")); len(left) != 0 {
		t.Fatal(left)
	}
}

// A push whose git was killed leaves a lock in the remote; the next push breaks it, and nobody else's.
func TestStaleRemoteLock(t *testing.T) {
	v := newVolume(t)
	path, r := newRemote(t)
	journal := filepath.Join(t.TempDir(), "push")
	r.Journal(journal, logrus.New())
	tip := v.commit("one")
	lock := filepath.Join(path, mainRef+".lock")
	check(t, os.WriteFile(lock, nil, 0o600))
	if err := r.push(t.Context(), one(cold.ID{}, tip), v.pack); err == nil {
		t.Fatal("pushed over a lock of somebody else's")
	}
	if _, err := os.Stat(journal); err == nil {
		t.Fatal("a push that ended in order left its note")
	}
	dead := exec.Command("true")
	check(t, dead.Run())
	check(t, os.WriteFile(filepath.Join(path, "HEAD.lock"), nil, 0o600))
	check(t, os.Chtimes(lock, time.Now(), time.Now())) // left by the push that the note is about
	check(t, r.note(&session{end: &process{cmd: dead}}, one(cold.ID{}, tip)))
	check(t, r.push(t.Context(), one(cold.ID{}, tip), v.pack))
	if _, err := os.Stat(journal); err == nil {
		t.Fatal("the note is still there")
	}
}

// TestReportNamesAll: a push is acknowledged when the report names each reference.
func TestReportNamesAll(t *testing.T) {
	old, fresh := cold.ID{1}, cold.ID{2}
	intro := pkt(old.String()+" "+mainRef+"\x00report-status side-band-64k atomic delete-refs ofs-delta\n") + "0000"
	for named, updates := range map[string][]Update{"refs/heads/other": one(old, fresh),
		mainRef: {{mainRef, old, old}, {"refs/heads/live", cold.ID{}, fresh}}} {
		report := inBand([]byte(pkt("unpack ok\n") + pkt("ok "+named+"\n") + "0000"))
		r := &Remote{path: "fake", net: fakeDialer{script{say(intro, report)}}}
		err := r.push(t.Context(), updates, func(w io.Writer) error { _, err := w.Write([]byte("PACK")); return err })
		if !errors.Is(err, errNoReport) {
			t.Errorf("%s is named: %v", named, err)
		}
	}
}
