// Package tmpfs makes, finds again and removes a volume's private tmpfs, in which the files of class memory lie. It is
// mounted in the state directory rather than held by a descriptor, so it outlives a killed daemon, and goes with the
// machine.
package tmpfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"emberfs/tiers/warm"
)

const (
	MemoryName = "memory" // in a state directory: where the tmpfs is mounted
	ownerName  = "owner"  // in the tmpfs: the state directory's id as a writer, so that nobody else's is taken for it
	TreeName   = "tree"   // in the tmpfs: the contents
)

// ErrForeign says that what is mounted where the tmpfs belongs is of somebody else.
var ErrForeign = errors.New("something else is mounted there")

// FS is a volume's private tmpfs. It is mounted in the state directory, not held by a descriptor alone, so that it
// outlives a killed daemon and the next one finds it; with the machine it goes.
type FS struct {
	path    string
	Tree    int // O_PATH descriptor of the directory with the contents
	dev     uint64
	Adopted bool // an earlier daemon had it
	Swap    bool // the kernel has no tmpfs without
}

// Open takes over the tmpfs of an earlier daemon of this state directory, whose id is machine, or mounts a new one
// of at most limit bytes. The state directory is locked. EPERM (wrapped): this process may not mount.
func Open(state, machine string, limit int64) (*FS, error) {
	path := filepath.Join(state, MemoryName)
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the directory of the memory class: %w", err)
	}
	t := &FS{path: path, Tree: -1}
	mounted, err := MountedAt(path)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", path, err)
	}
	if mounted {
		err = t.adopt(machine, limit)
	} else {
		err = t.mount(machine, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("tmpfs of the memory class on %s: %w", path, err)
	}
	return t, nil
}

// Drop unmounts what a daemon that died while it started may have left in a state directory. The directory is locked.
func Drop(state string) error {
	at := filepath.Join(state, MemoryName)
	if mounted, err := MountedAt(at); err != nil || !mounted {
		return nil
	}
	s, err := warm.LoadState(state)
	if err != nil {
		return err
	}
	t := &FS{path: at, Tree: -1}
	if err := t.adopt(s.Machine, 0); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	return t.Close(false)
}

// MountedAt says whether path is the root of a mount of another file system than its parent's. It is not followed.
func MountedAt(path string) (bool, error) {
	var st, up unix.Statx_t
	if err := warm.StatAt(unix.AT_FDCWD, path, &st); err != nil {
		return false, err
	}
	if err := warm.StatAt(unix.AT_FDCWD, filepath.Dir(path), &up); err != nil {
		return false, err
	}
	return st.Dev_major != up.Dev_major || st.Dev_minor != up.Dev_minor, nil
}

// options are what the size of a tmpfs comes to: as on a tmpfs of the kernel's own choice there are as many inodes as
// pages, and some for those that have none.
func tmpfsOptions(limit int64) map[string]string {
	const page = 4 << 10
	return map[string]string{"size": strconv.FormatInt(limit, 10), "nr_inodes": strconv.FormatInt(limit/page+1024, 10)}
}

// mount makes the tmpfs and puts it into its place when it is complete, so that nobody finds half of one.
func (t *FS) mount(machine string, limit int64) error {
	ctx, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(ctx)
	set := tmpfsOptions(limit)
	set["source"], set["mode"] = "emberfs", "0700"
	for key, value := range set {
		if err := unix.FsconfigSetString(ctx, key, value); err != nil {
			return fmt.Errorf("set %s: %w", key, err)
		}
	}
	t.Swap = unix.FsconfigSetFlag(ctx, "noswap") != nil
	if err := unix.FsconfigCreate(ctx); err != nil {
		return fmt.Errorf("fsconfig: %w", err)
	}
	root, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	defer unix.Close(root)
	if err := unix.Mkdirat(root, TreeName, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", TreeName, err)
	}
	if err := writeOwner(root, machine); err != nil {
		return err
	}
	if err := t.open(root); err != nil {
		return err
	}
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, t.path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		unix.Close(t.Tree)
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

func writeOwner(root int, machine string) error {
	fd, err := warm.OpenAt(root, ownerName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make %s: %w", ownerName, err)
	}
	defer unix.Close(fd)
	if _, err := warm.PwriteFull(fd, []byte(machine), 0); err != nil {
		return fmt.Errorf("write %s: %w", ownerName, err)
	}
	return nil
}

// adopt takes over what is mounted, if it is of this volume, and gives it the present limit.
func (t *FS) adopt(machine string, limit int64) error {
	root, err := unix.Open(t.path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	var kind unix.Statfs_t
	var st unix.Statx_t
	if err := errors.Join(unix.Fstatfs(root, &kind), warm.StatAt(root, "", &st)); err != nil {
		return err
	}
	if kind.Type != unix.TMPFS_MAGIC || int(st.Uid) != os.Geteuid() || st.Mode&0o777 != 0o700 {
		return ErrForeign
	}
	fd, err := warm.OpenAt(root, ownerName, unix.O_RDONLY, 0)
	if err != nil {
		return ErrForeign
	}
	defer unix.Close(fd)
	buf := make([]byte, len(machine)+1)
	if n, err := warm.PreadFull(fd, buf, 0); err != nil || string(buf[:n]) != machine {
		return ErrForeign
	}
	t.Adopted = true
	return t.open(root)
}

// open opens the tree below root.
func (t *FS) open(root int) error {
	fd, err := warm.OpenAt(root, TreeName, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", TreeName, err)
	}
	var st unix.Statx_t
	if err := warm.StatAt(fd, "", &st); err != nil {
		unix.Close(fd)
		return err
	}
	t.Tree, t.dev = fd, unix.Mkdev(st.Dev_major, st.Dev_minor)
	return nil
}

// Resize gives a tmpfs that was taken over another limit; EINVAL where it holds more.
func (t *FS) Resize(limit int64) error {
	try := func(noswap bool) error {
		ctx, err := unix.Fspick(unix.AT_FDCWD, t.path,
			unix.FSPICK_CLOEXEC|unix.FSPICK_SYMLINK_NOFOLLOW|unix.FSPICK_NO_AUTOMOUNT)
		if err != nil {
			return fmt.Errorf("fspick: %w", err)
		}
		defer unix.Close(ctx)
		for key, value := range tmpfsOptions(limit) {
			if err := unix.FsconfigSetString(ctx, key, value); err != nil {
				return fmt.Errorf("set %s: %w", key, err)
			}
		}
		if noswap {
			if err := unix.FsconfigSetFlag(ctx, "noswap"); err != nil {
				return fmt.Errorf("set noswap: %w", err)
			}
		}
		if err := unix.FsconfigReconfigure(ctx); err != nil {
			return fmt.Errorf("change the limit to %d bytes: %w", limit, err)
		}
		return nil
	}
	if try(true) == nil { // what it was made with, it has to be told again
		return nil
	}
	err := try(false)
	t.Swap = err == nil
	return err
}

// Close unmounts the tmpfs, whoever uses it, unless it is to be kept for the next daemon. The number of its descriptor
// stays taken: who comes late finds no directory, instead of another file of that number.
func (t *FS) Close(keep bool) error {
	if null, err := unix.Open("/dev/null", unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Dup3(null, t.Tree, unix.O_CLOEXEC)
		unix.Close(null)
	}
	if keep {
		return nil
	}
	var st unix.Statx_t
	if err := warm.StatAt(unix.AT_FDCWD, t.path, &st); err != nil {
		return fmt.Errorf("unmount the memory class: %w", err)
	}
	if unix.Mkdev(st.Dev_major, st.Dev_minor) == t.dev { // else somebody was faster
		if err := unix.Unmount(t.path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmount %s: %w", t.path, err)
		}
	}
	if err := os.Remove(t.path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("remove %s: %w", t.path, err)
	}
	return nil
}
