package warm

import (
	"golang.org/x/sys/unix"

	"emberfs/tiers/cold"
)

// attrBlocks is how many 512-byte blocks a file without data may take, for extended attributes that do not fit into its
// inode.
const attrBlocks = 8

// EmptyStub reports whether a file is a stub without any bytes in warm.
func EmptyStub(dirfd int, name string, st *unix.Statx_t) bool {
	if st.Size == 0 || st.Blocks > attrBlocks || st.Blocks > 0 && st.Size <= attrBlocks*512 {
		return false
	}
	r, ok := ReadRecord(ByName(dirfd, name))
	return ok && r.IsStub()
}

// CountTree adds what is in a directory, at all levels, to use. Files that vanish meanwhile are not counted.
func CountTree(dirfd int, use *Use, depth int) {
	if r, ok := ReadRecord(ByFD(dirfd)); ok && r.Has(FlagDir|FlagLazy) {
		use.Lazy++
		return
	}
	list, err := ListNames(dirfd)
	if err != nil || depth > cold.WalkDepth {
		return
	}
	for _, d := range list {
		if d.Mode == unix.S_IFDIR {
			if fd, err := OpenAt(dirfd, d.Name, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
				CountTree(fd, use, depth+1)
				unix.Close(fd)
			}
			continue
		}
		var st unix.Statx_t
		if StatAt(dirfd, d.Name, &st) != nil {
			continue
		}
		if d.Mode == unix.S_IFREG && EmptyStub(dirfd, d.Name, &st) {
			use.Stubs++
			continue
		}
		use.Files++
		use.Bytes += int64(st.Blocks) * 512 / int64(max(1, st.Nlink))
	}
}

// Use is how warm is used.
type Use struct {
	Files, Bytes int64 // files with their bytes in warm, and the bytes allocated for them
	Stubs, Lazy  int64 // stubs and lazy directories
}
