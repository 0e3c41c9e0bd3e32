//go:build slow

package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"emberfs/integration/effort"
)

// TestFailpoints kills the daemon at every step of writing objects, publishing, moving the reference, recording,
// restoring, consolidating and pruning, and separately has each step fail with EIO and ENOSPC. Nothing acknowledged is
// lost, the repository passes git fsck --strict, no temporary file is left, and the next machine has everything.
// EMBERFS_FAILPOINT_AREA, "live." for one, asks for some steps alone.
func TestFailpoints(t *testing.T) {
	bin := filepath.Join(filepath.Dir(env.bin), "emberfs-failpoints")
	check(t, goBuild(bin, "-tags", "failpoints"))
	steps := strings.Fields(must(t, "/", bin, "failpoints"))
	if len(steps) < 20 {
		t.Fatalf("only %d steps: %q", len(steps), steps)
	}
	half := [2][]string{}
	for i, step := range steps {
		if strings.HasPrefix(step, os.Getenv("EMBERFS_FAILPOINT_AREA")) {
			half[i%2] = append(half[i%2], step)
		}
	}
	for i, action := range []string{"kill", "EIO", "ENOSPC"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			for k, steps := range half {
				// In the suite each step is killed, and has one of the two errors: the long form has both.
				if i > 0 && k == i%2 && !effort.Soaking() && os.Getenv("EMBERFS_FAILPOINT_AREA") == "" {
					continue
				}
				t.Run([]string{"even", "odd"}[k], func(t *testing.T) {
					t.Parallel()
					deadline(t, 15*time.Minute)
					failAtEach(t, bin, action, steps)
				})
			}
		})
	}
}

// failAtEach has one step after the other fail in the life of one volume.
func failAtEach(t *testing.T, bin, action string, steps []string) {
	f := &failing{t: t, bin: bin, action: action, model: map[string]string{}, unsure: map[string][]string{},
		torn: map[string]string{}}
	f.repo = newBareRepo(t, "remote.git", user{})
	f.v = newVolume(t, "v", withSource(f.repo))
	f.v.bin = bin
	for i := range 20 {
		f.model[fmt.Sprintf("old/%d", i)] = fmt.Sprint("old ", i)
	}
	f.work(f.v, nil) // The files of the model are in the volume before the first failure.
	for _, step := range steps {
		if f.step(step); t.Failed() {
			return
		}
	}
}

// failing is a volume that lives through one failure after the other, and what must be in it.
type failing struct {
	t      *testing.T
	bin    string
	action string
	repo   string
	v      *volume
	model  map[string]string
	round  int

	// unsure is what files may hold, besides what the model says, whose change the daemon did not live to acknowledge.
	unsure map[string][]string
	// torn is what a write that came back with an error was to lead to. Any beginning of it may be there: a kill ends a
	// write(2) between two pages, on every file system of the kernel (generic_perform_write looks for a fatal signal).
	torn map[string]string
}

// noFile stands among what a file may hold for its not being there.
const noFile = "\x00no file"

// may notes what a change that came back with an error may have led to. A request that met no daemon has done nothing.
func (f *failing) may(name string, err error, hold ...string) {
	if !errors.Is(err, unix.ENOTCONN) {
		f.unsure[name] = append(f.unsure[name], hold...)
	}
}

// change works in the mount; what was acknowledged is in the model. It ends when the daemon does.
func (f *failing) change() {
	f.round++
	big := strings.Repeat(fmt.Sprintf("round %d ", f.round), 30_000)
	put := func(name, text string) {
		if os.MkdirAll(filepath.Dir(f.v.at(name)), 0o755) != nil {
			return
		}
		file, err := os.Create(f.v.at(name))
		if err != nil {
			f.may(name, err, "")
			return
		}
		_, err = file.WriteString(text)
		if err := errors.Join(err, file.Close()); err != nil {
			f.model[name] = "" // what it held was cut off, and that was acknowledged
			f.torn[name] = text
			return
		}
		f.model[name] = text
		delete(f.torn, name)
	}
	for name, text := range maps.Clone(f.model) {
		if _, err := os.Lstat(f.v.at(name)); err != nil {
			put(name, text)
		}
	}
	put(fmt.Sprintf("new/%d/a", f.round), fmt.Sprint("a ", f.round))
	put(fmt.Sprintf("new/%d/b", f.round), fmt.Sprint("b ", f.round))
	put("rewritten", fmt.Sprint(f.round))
	put("big", big)
	from, to := fmt.Sprintf("new/%d/a", f.round), fmt.Sprintf("new/%d/moved", f.round)
	if text, ok := f.model[from]; ok {
		if err := os.Rename(f.v.at(from), f.v.at(to)); err == nil {
			delete(f.model, from)
			f.model[to] = text
			if torn, ok := f.torn[from]; ok {
				delete(f.torn, from)
				f.torn[to] = torn
			}
		} else {
			f.may(from, err, noFile)
			f.may(to, err, text)
		}
	}
	gone := fmt.Sprintf("new/%d/b", f.round-1)
	if err := os.Remove(f.v.at(gone)); err == nil {
		delete(f.model, gone)
	} else if _, ok := f.model[gone]; ok {
		f.may(gone, err, noFile)
	}
}

// step has one step fail and everything after it go well.
func (f *failing) step(step string) {
	f.t.Helper()
	hit := filepath.Join(testDir(f.t), "hit")
	_ = os.Remove(hit)
	armed := []string{"EMBERFS_FAILPOINT=" + step + "=" + f.action, "EMBERFS_FAILPOINT_HIT=" + hit}
	wasHit := func() bool { _, err := os.Stat(hit); return err == nil }
	f.t.Logf("%s at %s", f.action, step)

	subject, critical := f.v, false
	area, _, _ := strings.Cut(step, ".")
	switch area {
	case "restore", "index", "link", "list", "browse":
		// These happen on the next machine.
		f.work(f.v, nil)
		subject = newVolume(f.t, fmt.Sprint("next", f.round), withSource(f.repo))
		if area == "link" {
			must(f.t, "/", "git", "-C", f.repo, "repack", "-q", "-d") // small pushes are loose
		}
		if area == "index" {
			// A repository that may borrow objects is fetched, not linked; git takes this line for none.
			alternates := filepath.Join(f.repo, "objects/info/alternates")
			check(f.t, os.WriteFile(alternates, []byte("# none\n"), 0o644))
			defer func() { check(f.t, os.Remove(alternates)) }()
		}
		subject.bin = f.bin
		subject.env = armed
		r := subject.tryMount()
		if wasHit() && f.action != "kill" && r.code == 0 && area == "restore" {
			f.t.Errorf("%s: the mount says that all is well\n%v", step, r)
		}
		if area == "list" || area == "browse" { // for names alone nothing is listed
			_ = filepath.WalkDir(subject.mnt, func(_ string, d fs.DirEntry, _ error) error {
				if area == "list" && d != nil {
					_, _ = d.Info()
				}
				return nil
			})
		}
	case "release", "return":
		f.v.env = armed
		f.v.tryMount()
		f.change()
		f.try("sync", f.v.mnt)
		f.try("tier", f.v.mnt)
		if area == "return" {
			f.extend()
		}
	case "verify":
		// The next machine looks through what it linked after its first commit, for which a copy of the remote will do.
		f.work(f.v, nil)
		repo := filepath.Join(testDir(f.t), fmt.Sprint("copy", f.round, ".git"))
		must(f.t, "/", "cp", "-a", f.repo, repo)
		must(f.t, "/", "git", "-C", repo, "repack", "-q", "-d")
		subject = newVolume(f.t, fmt.Sprint("next", f.round), withSource(repo))
		subject.bin = f.bin
		subject.env = armed
		subject.tryMount()
		check(f.t, os.Chmod(subject.at("rewritten"), 0o600))
		subject.emberfs("sync", subject.mnt)
		waitFor(10*time.Second, wasHit)
	case "rebuild":
		f.work(f.v, nil)
		f.spoil(slices.Contains([]string{"rebuild.salvage", "rebuild.quarantine", "rebuild.release"}, step))
		f.v.env = armed
		f.v.tryMount()
		f.try("sync", f.v.mnt)
	case "live":
		f.v.env = armed
		f.v.tryMount()
		f.v.rules(`- {match: "**", class: critical, critical_delay: 100ms}`)
		f.v.sync() // new rules have everything looked at
		f.change()
		waitFor(30*time.Second, wasHit)
		critical = true
	case "gc":
		f.work(f.v, nil)
		f.v.env = armed
		f.v.tryMount()
		f.try("gc", f.v.mnt, "--grace", "0s")
	case "consolidate":
		f.v.env = armed
		f.v.tryMount()
		for range 80 {
			if wasHit() {
				break
			}
			f.change()
			f.try("sync", f.v.mnt)
		}
		waitFor(10*time.Second, wasHit)
	default:
		f.v.env = armed
		f.v.tryMount()
		f.change()
		f.try("sync", f.v.mnt)
	}
	if !wasHit() {
		f.t.Errorf("%s was never passed", step)
	}
	// A daemon that was not killed goes on as if nothing had been.
	if f.action != "kill" && mountAt(subject.mnt) != nil {
		if subject == f.v {
			f.change()
		}
		subject.sync()
		subject.umount()
	}
	subject.waitGone()
	subject.clearDeadMount()
	subject.env = nil
	subject.mount()
	f.compare(subject, step)
	if subject == f.v {
		f.change()
	}
	if critical {
		f.v.rules("")
	}
	subject.sync()
	subject.umount()
	f.sound(subject, step)
}

// extend appends to files that were released. What was acknowledged is in the model.
func (f *failing) extend() {
	for _, name := range slices.Sorted(maps.Keys(f.model)) {
		file, err := os.OpenFile(f.v.at(name), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			continue
		}
		if _, err := file.WriteString(" and more"); err == nil {
			f.model[name] += " and more"
		} else {
			f.torn[name] = f.model[name] + " and more"
		}
		_ = file.Close() // a dead daemon's
	}
}

// try runs a command that may fail.
func (f *failing) try(args ...string) {
	r := f.v.emberfs(args...)
	if r.code == 2 {
		f.t.Errorf("%v", r)
	}
}

// work mounts a volume, changes it and leaves it clean.
func (f *failing) work(v *volume, env []string) {
	v.env = env
	v.mount()
	f.change()
	v.sync()
	v.umount()
}

// spoil damages the index of a pack, and, where the pack itself is to be, one of which git has made a copy before.
func (f *failing) spoil(pack bool) {
	f.t.Helper()
	list, err := filepath.Glob(filepath.Join(f.v.cold(), "objects/pack/*.idx"))
	check(f.t, err)
	if len(list) == 0 {
		f.t.Fatal("no index to spoil")
	}
	check(f.t, os.Chmod(list[0], 0o644))
	check(f.t, os.Truncate(list[0], 100))
	if !pack {
		return
	}
	shell(f.t, f.v.cold(), `rm `+list[0]+`; git index-pack -o `+list[0]+` `+strings.TrimSuffix(list[0], ".idx")+
		`.pack >/dev/null; git repack -aq`)
	path := strings.TrimSuffix(list[0], ".idx") + ".pack"
	check(f.t, os.Chmod(path, 0o644))
	check(f.t, os.Chmod(list[0], 0o644))
	data, err := os.ReadFile(path)
	check(f.t, err)
	data[len(data)-30] ^= 0x55 // in the last entry, before the trailer
	check(f.t, os.WriteFile(path, data, 0o644))
	check(f.t, os.Truncate(list[0], 100))
	old := time.Now().Add(-time.Hour) // what is young may still be on its way
	check(f.t, os.Chtimes(path, old, old))
}

// settle takes what is seen of the changes that were not acknowledged into the model.
func (f *failing) settle(v *volume) {
	for name, could := range f.unsure {
		b, err := os.ReadFile(v.at(name))
		got := string(b)
		if os.IsNotExist(err) {
			got = noFile
		}
		switch {
		case !slices.Contains(could, got): // as the model says, or wrong
		case got == noFile:
			delete(f.model, name)
		default:
			f.model[name] = got
		}
	}
	clear(f.unsure)
	for name, text := range f.torn {
		b, err := os.ReadFile(v.at(name))
		if got := string(b); err == nil && len(got) >= len(f.model[name]) && strings.HasPrefix(text, got) {
			f.model[name] = got
		}
	}
	clear(f.torn)
}

// compare holds the mount to the model.
func (f *failing) compare(v *volume, step string) {
	f.t.Helper()
	f.settle(v)
	for name, want := range f.model {
		got, err := os.ReadFile(v.at(name))
		if err != nil || string(got) != want {
			f.t.Errorf("%s at %s: %s holds %.40q, %d bytes (%v), want %.40q, %d bytes", f.action, step, name, got,
				len(got), err, want, len(want))
		}
	}
	count := 0
	check(f.t, filepath.WalkDir(v.mnt, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			count++
		}
		return err
	}))
	if count != len(f.model) {
		f.t.Errorf("%s at %s: %d files, want %d", f.action, step, count, len(f.model))
	}
}

// isLinked says that a .keep marks a pack that was linked from the remote and not looked through yet.
func isLinked(keep string) bool {
	data, err := os.ReadFile(keep)
	return err == nil && strings.HasPrefix(string(data), "emberfs: linked ")
}

// sound looks at the repository of a volume that is not mounted.
func (f *failing) sound(v *volume, step string) {
	f.t.Helper()
	fsck(f.t, v.cold())
	check(f.t, filepath.WalkDir(v.state, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path == filepath.Join(v.state, "warm") {
			return filepath.SkipDir
		}
		name := filepath.Base(path)
		if err == nil && (strings.Contains(name, "tmp") || strings.HasSuffix(name, ".lock") ||
			strings.HasSuffix(name, ".keep") && !isLinked(path)) {
			f.t.Errorf("%s at %s: %s is left", f.action, step, path)
		}
		return err
	}))
}
