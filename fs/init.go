package fs

import (
	"bytes"
	"log"
	"runtime/debug"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"
)

const (
	// maxRequest is the largest READ and WRITE in bytes: what Linux allows without a sysctl.
	maxRequest = 1 << 20
	// background bounds the kernel's asynchronous requests (readahead, direct I/O, RELEASE); the kernel's own default
	// of 12 lets a few slow reads hold up the rest.
	background = 64
)

// capabilities are asked for beyond go-fuse's own (ASYNC_READ, BIG_WRITES, READDIRPLUS, PARALLEL_DIROPS, MAX_PAGES).
const capabilities = fuse.CAP_ATOMIC_O_TRUNC | // O_TRUNC comes with OPEN instead of a SETATTR more
	fuse.CAP_DONT_MASK | // default ACLs replace the umask, and only tiers can tell
	fuse.CAP_HANDLE_KILLPRIV_V2 | // without it a GETXATTR security.capability comes before every write
	fuse.CAP_SETXATTR_EXT | // says when setting an ACL must clear sgid
	fuse.CAP_DIRECT_IO_ALLOW_MMAP | // kernel_cache=off keeps mmap
	// A file handle (name_to_handle_at(2), NFS) would be stale as soon as the kernel forgets the inode.
	fuse.CAP_NO_EXPORT_SUPPORT |
	fuse.CAP_ABORT_ERROR // tells an aborted connection from an unmount

// refused are not for us: NO_OPEN_SUPPORT, since every open counts; WRITEBACK_CACHE, since writes would no longer reach
// warm before they are acknowledged; READDIRPLUS_AUTO, since programs list first and stat afterwards; ASYNC_DIO, since
// the kernel then drops its pages before the writes are done and not after: buffered readers fill them with old bytes,
// and keep those.
const refused = fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_WRITEBACK_CACHE | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_ASYNC_DIO

// stackDepth is how many file systems a file of the mount may go through: ours, and one that is not stacked itself.
const stackDepth = 1

// protocolOptions are what go-fuse's protocol server negotiates and how it logs. Only root may let the kernel at files
// of warm; without that other file systems can be stacked on the mount once more.
func protocolOptions(p policy, acl, root, debugLog bool, lg logrus.FieldLogger) *fuse.MountOptions {
	no := uint64(refused)
	if !root {
		no |= fuse.CAP_PASSTHROUGH
	}
	return &fuse.MountOptions{
		Name:                 subtype,
		MaxWrite:             maxRequest,
		MaxBackground:        background,
		Debug:                debugLog,
		Logger:               log.New(lineWriter{lg}, "", 0),
		EnableAcl:            acl,
		EnableSymlinkCaching: p.cache,
		// The daemon invalidates what it changes; by mtime the kernel would drop a file's pages after each write.
		ExplicitDataCacheControl: true,
		ExtraCapabilities:        capabilities,
		DisabledCapabilities:     no,
		MaxStackDepth:            stackDepth,
		PanicHandler: func(v any) fuse.Status {
			panicked(lg, v)
			return fuse.EIO
		},
	}
}

// panicked logs a panic of a request handler with its stack; one request must not end the daemon.
func panicked(lg logrus.FieldLogger, v any) {
	lg.WithField("stack", string(debug.Stack())).Errorf("panic in a request: %v", v)
}

// lineWriter takes go-fuse's log, "Unimplemented opcode" among it: nothing there is for a user.
type lineWriter struct{ log logrus.FieldLogger }

func (w lineWriter) Write(p []byte) (int, error) {
	w.log.Debug(string(bytes.TrimRight(p, "\n")))
	return len(p), nil
}
