package odb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// ErrCannotLink says that the other repository cannot be brought here by hard links. A fetch may be possible.
var ErrCannotLink = errors.New("cannot be brought by hard link")

const (
	// maxLinked is how many packs may be linked. With more, reading would be slow until they are merged, and a fetch
	// makes a single pack anyway.
	maxLinked = 100
	// maxPackFiles is how many files the directory of packs may have, including junk.
	maxPackFiles = 10_000
	// maxLooseCopied is how many loose objects are copied beside the linked packs.
	maxLooseCopied = 10_000
	// maxLinkRounds is how often the other repository may change while it is looked at.
	maxLinkRounds = 10
)

// linkedKeep is the content of the .keep file of a linked pack that was not verified yet. It names no process, so Open
// does not take it for something that a dead process left behind.
const linkedKeep = "emberfs: linked from the remote, not verified yet\n"

// Link brings all objects of the repository at src, an absolute path without symbolic links, as git clone --local does:
// it hard-links the packs, and copies loose objects into a pack of ours. The cost depends on the number of packs and
// loose objects, not on what the packs contain. Link checks that tip is among the objects, but takes the other
// repository's word that everything reachable from tip is there too.
//
// Link only links regular files that belong to us or root and that nobody else may write; it links exactly the files
// that it checked, even if their names are changed meanwhile. Afterwards the two repositories are independent: what one
// removes stays in the other. But they share the bytes on disk, and thus damage to the disk.
//
// The packs are published like those of a commit, and keep their .keep until VerifyLinked has verified them. The caller
// must call release once a reference reaches the objects; it removes the .keep of the copied objects' pack. Unless ctx
// was cancelled, every failure is ErrCannotLink. What was brought before a failure is unreferenced, and goes with a GC.
func (db *DB) Link(ctx context.Context, src string, tip ID) (release func() error, err error) {
	if db.readOnly {
		return nil, fmt.Errorf("link: %w", ErrReadOnly)
	}
	release, err = db.link(ctx, src, tip)
	if err == nil {
		return release, nil
	}
	if ctx.Err() != nil || crashed(err) {
		return nil, fmt.Errorf("link %s: %w", src, err)
	}
	return nil, fmt.Errorf("%s %w: %w", src, ErrCannotLink, err)
}

func (db *DB) link(ctx context.Context, src string, tip ID) (_ func() error, err error) {
	if err := db.step("link.look"); err != nil {
		return nil, err
	}
	other, err := checkLinkable(src)
	if err != nil {
		return nil, err
	}
	objects, err := os.OpenRoot(filepath.Join(src, "objects"))
	if err != nil {
		return nil, err
	}
	defer objects.Close()
	w, err := db.NewWriter()
	if err != nil {
		return nil, err
	}
	l := &linker{ctx: ctx, db: db, other: other, objects: objects, w: w, packs: map[string]*linkedPack{}}
	if err = l.collect(); err == nil && !l.has(tip) {
		err = errMissing(tip)
	}
	if err == nil {
		err = l.publish()
	}
	if err = errors.Join(err, l.close(crashed(err))); err != nil {
		if !crashed(err) {
			err = errors.Join(err, w.Abort())
		}
		return nil, err
	}
	return w.Release, nil
}

// checkLinkable checks that a repository has all its objects in plain packs and loose files of its own. The DB that it
// returns can only be used to read loose objects.
func checkLinkable(src string) (*DB, error) {
	if err := checkLayout(src); err != nil {
		return nil, err
	}
	c, _, err := readConfig(src)
	if err != nil {
		return nil, err
	}
	if err := checkSupported(src, c); err != nil {
		return nil, err
	}
	if c.Section("extensions").Option("partialclone") != "" {
		return nil, errors.New("it is a partial clone")
	}
	for _, name := range []string{"shallow", "info/grafts"} {
		if there, err := exists(filepath.Join(src, name)); there || err != nil {
			return nil, errors.Join(err, fmt.Errorf("it has the file %s", name))
		}
	}
	for _, name := range []string{"objects", "objects/pack"} {
		if st, err := os.Lstat(filepath.Join(src, name)); err != nil || !st.IsDir() {
			return nil, errors.Join(err, fmt.Errorf("%s is no directory of its own", name))
		}
	}
	return newDB(src, Options{})
}

// linker is one run of Link.
type linker struct {
	ctx     context.Context
	db      *DB
	other   *DB
	objects *os.Root // of the other repository
	w       *Writer  // stores the loose objects
	packs   map[string]*linkedPack
	work    int64 // total bytes of loose objects copied
}

// linkedPack is a pack of the other repository that we have linked under a temporary name.
type linkedPack struct {
	file *packFile // nil: an earlier Link has brought it
	p    *pack     // for looking objects up
}

// collect links packs and copies loose objects, until another look at the packs shows nothing new: a loose object may
// have been packed and removed before it was looked at.
func (l *linker) collect() error {
	for round := range maxLinkRounds {
		names, err := l.packNames()
		if err != nil {
			return err
		}
		fresh, gone := false, false
		for _, name := range names {
			if l.packs[name] != nil {
				continue
			}
			fresh = true
			err := l.linkPack(name)
			if gone = gone || errors.Is(err, fs.ErrNotExist); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if !fresh && round > 0 {
			return nil
		}
		if gone {
			continue
		}
		if err := l.copyLoose(); err != nil {
			return err
		}
	}
	return errors.New("its packs change all the time")
}

// names returns at most so many file names in a directory below the other repository's objects.
func (l *linker) names(dir string, most int) ([]string, error) {
	d, err := l.objects.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(most)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, errors.Join(err, d.Close())
}

// packNames returns the names of the other repository's packs, without extension.
func (l *linker) packNames() ([]string, error) {
	all, err := l.names("pack", maxPackFiles)
	if err != nil {
		return nil, err
	}
	if len(all) == maxPackFiles {
		return nil, fmt.Errorf("%d files among its packs", len(all))
	}
	slices.Sort(all)
	var names []string
	for _, n := range all {
		base, ext, _ := strings.Cut(n, ".")
		switch ext {
		case "promisor":
			return nil, fmt.Errorf("%s is from a promisor", base)
		case "idx":
			sum, ok := strings.CutPrefix(base, "pack-")
			if _, err := cold.ParseID(sum); !ok || err != nil {
				return nil, fmt.Errorf("%s is an unusual name", n)
			}
			names = append(names, base)
		}
	}
	for _, n := range all {
		if base, ok := strings.CutSuffix(n, ".pack"); ok && !slices.Contains(names, base) {
			return nil, fmt.Errorf("%s has no index", n)
		}
	}
	if len(names) > maxLinked {
		return nil, fmt.Errorf("%d packs, more than %d", len(names), maxLinked)
	}
	return names, nil
}

// linkPack links a pack and its index under temporary names, and checks that they belong together.
func (l *linker) linkPack(name string) (err error) {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	db := l.db
	final := filepath.Join(db.packDir(), name)
	if there, err := exists(final + ".pack"); err != nil {
		return err
	} else if there {
		// A pack of an earlier Link can be used as it is. Any other may be on the list of a git gc that is about to
		// remove packs.
		if !isLinked(final) {
			return fmt.Errorf("%s.pack: %w", final, fs.ErrExist)
		}
		if p, err := openPack(final); err == nil {
			l.packs[name] = &linkedPack{p: p}
			return nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := db.step("link.pack"); err != nil {
		return err
	}
	pf := &packFile{db: db, final: final, linked: true, path: filepath.Join(db.packDir(), db.self.tempName("pack")),
		idxPath: filepath.Join(db.packDir(), db.self.tempName("idx"))}
	defer func() {
		if err != nil && !crashed(err) {
			err = errors.Join(err, pf.discard())
		}
	}()
	if err := l.linkFile("pack/"+name+".pack", pf.path); err != nil {
		return err
	}
	if err := db.step("link.index"); err != nil {
		return err
	}
	if err := l.linkFile("pack/"+name+".idx", pf.idxPath); err != nil {
		return err
	}
	p, err := openPackFiles(final, pf.path, pf.idxPath)
	if err != nil {
		return err
	}
	pf.f, l.packs[name] = p.f, &linkedPack{pf, p}
	return nil
}

// linkFile links a file of the other repository, if only we and root can change it.
func (l *linker) linkFile(from, to string) error {
	before, err := l.objects.Lstat(from)
	if err != nil {
		return err
	}
	if !before.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", from)
	}
	f, err := l.objects.OpenFile(from, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: from, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%s is no regular file", from)
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to somebody else", from)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s can be written by others", from)
	}
	// Link by the descriptor, because the name may stand for another file by now.
	if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, to,
		unix.AT_SYMLINK_FOLLOW); err != nil {
		return &os.LinkError{Op: "link", Old: from, New: to, Err: err}
	}
	return nil
}

// has reports whether an object was brought.
func (l *linker) has(id ID) bool {
	for _, p := range l.packs {
		if p.p.idx.find(id) >= 0 {
			return true
		}
	}
	return l.w.Has(id)
}

// publish makes the packs part of the repository.
func (l *linker) publish() error {
	var files []*packFile
	for _, p := range l.packs {
		if p.file != nil {
			files = append(files, p.file)
		}
	}
	slices.SortFunc(files, func(a, b *packFile) int { return strings.Compare(a.final, b.final) })
	if err := l.db.publishPacks(files); err != nil {
		return err
	}
	return l.w.Publish()
}

// close closes the packs and removes what was not published.
func (l *linker) close(crashed bool) error {
	var err error
	for _, p := range l.packs {
		err = errors.Join(err, p.p.idx.close())
		if p.file == nil {
			err = errors.Join(err, p.p.f.Close())
		} else if !crashed {
			err = errors.Join(err, p.file.discard())
		}
	}
	return err
}

// isLinked reports whether the pack at base was linked and is not verified yet.
func isLinked(base string) bool {
	data, err := readSmall(base+".keep", maxOwnerFile)
	return err == nil && bytes.Equal(data, []byte(linkedKeep))
}
