package odb

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInitAndOpen(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "a", "b", "cold.git")
	for range 2 {
		check(t, Init(dir, "main"))
	}
	for key, want := range map[string]string{"core.bare": "true", "core.repositoryformatversion": "0", "gc.auto": "0",
		"maintenance.auto": "false",
		"receive.autogc":   "false", "repack.writeBitmaps": "false"} {
		if got := strings.TrimSpace(git(t, dir, "config", key)); got != want {
			t.Errorf("%s = %s", key, got)
		}
	}
	if n := strings.Count(git(t, dir, "config", "--list"), "gc.auto="); n != 1 {
		t.Errorf("gc.auto stands there %d times", n)
	}
	if got := git(t, dir, "symbolic-ref", "HEAD"); got != "refs/heads/main\n" {
		t.Errorf("HEAD is %s", got)
	}
	// What somebody else made keeps its settings and gets ours.
	other := filepath.Join(base, "other.git")
	check(t, os.Mkdir(other, 0o755))
	git(t, other, "init", "-q", "--bare", "-b", "old")
	git(t, other, "config", "gc.auto", "77")
	git(t, other, "config", "remote.x y.url", `a"b\c`)
	check(t, Init(other, "work"))
	for key, want := range map[string]string{"gc.auto": "0", "remote.x y.url": `a"b\c`, "core.bare": "true"} {
		if got := strings.TrimSpace(git(t, other, "config", key)); got != want {
			t.Errorf("%s = %s", key, got)
		}
	}
	if got := git(t, other, "symbolic-ref", "HEAD"); got != "refs/heads/work\n" {
		t.Errorf("HEAD is %s", got)
	}
	for _, branch := range []string{"", "a..b", "x.lock"} {
		if err := Init(filepath.Join(base, "never"), branch); err == nil {
			t.Errorf("branch %q was accepted", branch)
		}
	}
	full := t.TempDir()
	check(t, os.WriteFile(filepath.Join(full, "file"), nil, 0o644))
	if err := Init(full, "main"); !errors.Is(err, ErrNotRepository) {
		t.Errorf("a full directory: %v", err)
	}
	if _, err := Open(full, Options{}); !errors.Is(err, ErrNotRepository) {
		t.Errorf("a full directory: %v", err)
	}
	if _, err := Open(filepath.Join(base, "missing"), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
}

func TestUnsupportedRepositories(t *testing.T) {
	for i, c := range []struct {
		file, text string
		ok         bool
	}{
		{"config", "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tpartialClone = origin\n", true},
		{"config", "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tobjectformat = sha1\n", true},
		{"config", "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tobjectFormat = sha256\n", false},
		{"config", "[core]\n\trepositoryformatversion = 1\n[extensions]\n\trefStorage = reftable\n", false},
		{"config", "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tsomethingNew = true\n", false},
		{"config", "[extensions \"sub\"]\n\tkey = true\n", false},
		{"config", "[core]\n\trepositoryformatversion = 2\n", false},
		{"config", "[core]\n\trepositoryformatversion = many\n", false},
		{"objects/info/alternates", "/somewhere/objects\n", false},
		{"objects/info/alternates", "\n", true},
	} {
		dir, _ := newRepo(t, Options{})
		check(t, os.WriteFile(filepath.Join(dir, c.file), []byte(c.text), 0o644))
		for name, open := range map[string]func() error{
			"Open":         func() error { _, err := Open(dir, Options{}); return err },
			"OpenReadOnly": func() error { _, err := OpenReadOnly(dir, Options{}); return err },
			"Init":         func() error { return Init(dir, "main") },
		} {
			if err := open(); (err == nil) != c.ok || !c.ok && !errors.Is(err, ErrUnsupported) {
				t.Errorf("%d: %s: %v", i, name, err)
			}
		}
	}
}

func TestReadOnlyWritesNothing(t *testing.T) {
	dir, db := newRepo(t, Options{})
	tip := mustAdd(t, db, ID{}, 0, crashFiles("a"))
	stale := filepath.Join(dir, "objects/pack", owner{"old-boot", 1}.tempName("pack"))
	check(t, os.WriteFile(stale, nil, 0o644))
	ro, err := OpenReadOnly(dir, Options{})
	check(t, err)
	if _, err := ro.Read(tip, Commit, 1<<20); err != nil {
		t.Fatal(err)
	}
	_, werr := ro.NewWriter()
	_, _, ierr := ro.IndexPack(strings.NewReader(""), 0)
	for _, err := range []error{werr, ierr, ro.UpdateRef("refs/heads/x", ID{}, tip),
		ro.DeleteRef("refs/heads/main", tip)} {
		if !errors.Is(err, ErrReadOnly) {
			t.Error(err)
		}
	}
	if _, err := os.Stat(stale); err != nil {
		t.Error(err)
	}
	for range 2 {
		check(t, ro.Close())
	}
	if _, err := ro.Read(tip, Commit, 1<<20); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	reopen(t, dir, Options{})
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Error(err)
	}
}

func ExampleInit() {
	dir, err := os.MkdirTemp("", "emberfs")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	repo := filepath.Join(dir, "cold.git")
	if err := Init(repo, "main"); err != nil {
		fmt.Println(err)
		return
	}
	db, err := Open(repo, Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()
	w, err := db.NewWriter()
	if err != nil {
		fmt.Println(err)
		return
	}
	id, err := w.Put(Blob, []byte("hello\n"))
	if err == nil {
		err = w.Publish() // then DB.UpdateRef to a commit that reaches it, then Release
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	data, err := db.Read(id, Blob, 100)
	fmt.Printf("%s %s%v\n", id, data, err)
	// Output: ce013625030ba8dba906f756967f9e9ca394464a hello
	// <nil>
}
