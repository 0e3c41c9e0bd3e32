package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRegistry(t *testing.T) {
	r := registry{filepath.Join(t.TempDir(), "run"), os.Geteuid()}
	if list := must(r.list())(t); len(list) != 0 {
		t.Fatal(list)
	}
	mountNS, pidNS := here()
	entry := func(mountpoint, state string, pid int) registration {
		return registration{mountpoint, state, pid, mountNS, pidNS, "", ownedBy(r.uid)}
	}
	a, b := entry("/mnt/b", "/state/1", 10), entry("/mnt/a", "/state/2", 11)
	finishing := entry("/mnt/a", "/state/3", 9)
	for _, e := range []registration{a, b, finishing} {
		if err := r.add(e); err != nil {
			t.Fatal(err)
		}
	}
	write(t, r.dir, "odd.json", "{")
	write(t, r.dir, "relative.json", `{"mountpoint":"x","state":"y"}`)
	if list := must(r.list())(t); !slices.Equal(list, []registration{finishing, b, a}) {
		t.Errorf("list: %v", list)
	}
	next := entry("/mnt/b", "/state/1", 20)
	if err := r.add(next); err != nil {
		t.Fatal(err)
	}
	if err := r.remove(a); err != nil {
		t.Fatal(err)
	}
	if list := must(r.list())(t); !slices.Contains(list, next) || len(list) != 3 {
		t.Errorf("an old daemon took the registration of the next: %v", list)
	}
	err := r.prune(func(e registration) bool { return e == b }, func(path string) bool { return path == "/mnt/b" })
	if list := must(r.list())(t); err != nil || !slices.Equal(list, []registration{b, next}) {
		t.Errorf("prune: %v, %v; the living and those with a dead mount stay", list, err)
	}
	write(t, r.dir, "elsewhere.json",
		`{"mountpoint":"/mnt/c","state":"/state/9","pid":1,"mount_ns":"mnt:[1]","pid_ns":"pid:[1]"}`)
	nothing := func(string) bool { return false }
	err = r.prune(func(registration) bool { return false }, nothing)
	if list := must(r.list())(t); err != nil || len(list) != 1 || list[0].Mountpoint != "/mnt/c" {
		t.Errorf("prune: %v, %v; what another namespace has may live there", list, err)
	}
}

// TestRegistryOfOthers checks that files are not read if another user made or could have written them, or if they are
// not regular files or far too long.
func TestRegistryOfOthers(t *testing.T) {
	r := registry{filepath.Join(t.TempDir(), "run"), os.Geteuid()}
	good := registration{Mountpoint: "/mnt/a", State: "/state/1", PID: 1}
	if err := r.add(good); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(r.dir, name) }
	for name, create := range map[string]func() error{
		"fifo.json": func() error { return unix.Mkfifo(at("fifo.json"), 0o600) },
		"zero.json": func() error { return os.Symlink("/dev/zero", at("zero.json")) },
		"link.json": func() error { return os.Symlink(r.file(good.State), at("link.json")) },
		"dir.json":  func() error { return os.Mkdir(at("dir.json"), 0o700) },
		"shared.json": func() error {
			return errors.Join(os.WriteFile(at("shared.json"), []byte(`{"mountpoint":"/x","state":"/y"}`), 0o600),
				os.Chmod(at("shared.json"), 0o666))
		},
		"large.json": func() error { return os.WriteFile(at("large.json"), make([]byte, maxRegistration+1), 0o600) },
		"other.json": func() error {
			err := os.WriteFile(at("other.json"), []byte(`{"mountpoint":"/x","state":"/y"}`), 0o600)
			if os.Geteuid() == 0 {
				return errors.Join(err, os.Chown(at("other.json"), 1000, 1000))
			}
			return errors.Join(err, os.Remove(at("other.json")))
		},
	} {
		if err := create(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if list := must(r.list())(t); len(list) != 1 || list[0].Mountpoint != good.Mountpoint {
		t.Errorf("list: %v", list)
	}
	if _, err := (registry{r.dir, r.uid + 1}).list(); err == nil {
		t.Error("another user's directory is read")
	}
	link := r.dir + ".link"
	if err := os.Symlink(r.dir, link); err != nil {
		t.Fatal(err)
	}
	if _, err := (registry{link, r.uid}).list(); err == nil {
		t.Error("a directory behind a symlink is read")
	}
}

func TestRegistryDirectories(t *testing.T) {
	if r := must(openRegistry(0, func(string) string { return "/elsewhere" }))(t); r.dir != "/run/emberfs" {
		t.Error(r)
	}
	own := t.TempDir()
	get := func(k string) string { return map[string]string{"XDG_RUNTIME_DIR": own, "HOME": "/home/u"}[k] }
	if os.Getuid() == 0 {
		if err := os.Chown(own, 4242, -1); err != nil {
			t.Fatal(err)
		}
	}
	uid := int(must(stat(own))(t).Uid)
	if r := must(openRegistry(uid, get))(t); uid != 0 && r.dir != filepath.Join(own, "emberfs") {
		t.Error(r)
	}
	if r := must(openRegistry(4243, get))(t); strings.HasPrefix(r.dir, own) {
		t.Errorf("another user's runtime directory is used: %v", r)
	}
}

func stat(path string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return st, err
}
