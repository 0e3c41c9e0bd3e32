package fs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"emberfs/tiers"
)

func TestPolicy(t *testing.T) {
	on, off := policy{cache: true}, policy{}
	for _, c := range []struct {
		what      string
		got, want uint64
	}{
		{"file, on", uint64(on.fileFlags(tiers.IOCached)), fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH},
		{"file, off", uint64(off.fileFlags(tiers.IOCached)), fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH},
		{"file by the kernel alone, on", uint64(on.fileFlags(tiers.IODirect)),
			fuse.FOPEN_PASSTHROUGH | fuse.FOPEN_NOFLUSH},
		{"file by the kernel alone, off", uint64(off.fileFlags(tiers.IODirect)),
			fuse.FOPEN_PASSTHROUGH | fuse.FOPEN_NOFLUSH},
		{"file written untracked, on", uint64(on.fileFlags(tiers.IOUncached)),
			fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH},
		{"directory, on", uint64(on.dirFlags(tiers.DirKeep)), fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE},
		{"directory, on, told beside", uint64(on.dirFlags(tiers.DirNever)), 0},
		{"directory, off", uint64(off.dirFlags(tiers.DirKeep)), 0},
		{"directory, on, to be read anew", uint64(on.dirFlags(tiers.DirAnew)), fuse.FOPEN_CACHE_DIR},
		{"timeout, on", on.seconds(), cacheSeconds},
		{"timeout, off", off.seconds(), 0},
	} {
		if c.got != c.want {
			t.Errorf("%s: %#x, want %#x", c.what, c.got, c.want)
		}
	}
}

func TestProtocolOptions(t *testing.T) {
	o := protocolOptions(policy{cache: true}, true, true, false, nil)
	if !o.EnableSymlinkCaching || !o.EnableAcl || !o.ExplicitDataCacheControl || o.EnableLocks || o.MaxWrite != 1<<20 {
		t.Errorf("%+v", o)
	}
	for _, c := range []uint64{fuse.CAP_HANDLE_KILLPRIV_V2, fuse.CAP_ATOMIC_O_TRUNC, fuse.CAP_DONT_MASK,
		fuse.CAP_SETXATTR_EXT, fuse.CAP_DIRECT_IO_ALLOW_MMAP} {
		if o.ExtraCapabilities&c == 0 {
			t.Errorf("capability %#x is not asked for", c)
		}
	}
	for _, c := range []uint64{fuse.CAP_WRITEBACK_CACHE, fuse.CAP_NO_OPEN_SUPPORT} {
		if o.DisabledCapabilities&c == 0 || o.ExtraCapabilities&c != 0 {
			t.Errorf("capability %#x is not refused", c)
		}
	}
	if protocolOptions(policy{}, false, true, false, nil).EnableSymlinkCaching {
		t.Error("kernel_cache=off keeps symlinks")
	}
	for _, root := range []bool{true, false} {
		if refused := protocolOptions(policy{}, false, root, false,
			nil).DisabledCapabilities&fuse.CAP_PASSTHROUGH != 0; refused == root {
			t.Errorf("root %v: passthrough refused: %v", root, refused)
		}
	}
}
