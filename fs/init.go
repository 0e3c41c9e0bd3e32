package fs

import (
	"bytes"
	"log"
	"runtime/debug"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/sirupsen/logrus"
)

const (
	// maxRequest is the maximum size of a READ or WRITE in bytes: the most that Linux allows without changing a sysctl.
	maxRequest = 1 << 20
	// background is how many asynchronous requests (readahead, direct I/O, RELEASE) the kernel has under way at most.
	// With its default of 12, a few slow reads hold up the rest.
	background = 64
)

// capabilities are requested from the kernel in addition to those that go-fuse requests (ASYNC_READ, BIG_WRITES,
// READDIRPLUS, PARALLEL_DIROPS, MAX_PAGES).
const capabilities = fuse.CAP_ATOMIC_O_TRUNC | // O_TRUNC comes with OPEN instead of in an additional SETATTR
	fuse.CAP_DONT_MASK | // where a default ACL applies the umask must not, and only tiers knows
	fuse.CAP_HANDLE_KILLPRIV_V2 | // without it a GETXATTR security.capability comes before every write
	fuse.CAP_SETXATTR_EXT | // the request says if setting an ACL must clear sgid
	fuse.CAP_DIRECT_IO_ALLOW_MMAP | // mmap works with kernel_cache=off
	// Without this a file handle (name_to_handle_at(2), NFS) could be made, and would become stale as soon as the
	// kernel forgets the inode.
	fuse.CAP_NO_EXPORT_SUPPORT |
	fuse.CAP_ABORT_ERROR // distinguishes an aborted connection from an unmount

// refused are capabilities that EmberFS must not have. NO_OPEN_SUPPORT: every open has to be seen. WRITEBACK_CACHE:
// writes would be acknowledged before they reach warm. READDIRPLUS_AUTO: the kernel would guess when to ask for
// attributes, but programs list first and stat afterwards. ASYNC_DIO: the kernel would drop its pages before the writes
// are done instead of afterwards, and buffered readers would fill them with old bytes and keep those.
const refused = fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_WRITEBACK_CACHE | fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_ASYNC_DIO

// stackDepth is the depth of stacked file systems that passthrough allows: EmberFS over a file system that is not
// stacked itself.
const stackDepth = 1

// protocolOptions returns what go-fuse's protocol server negotiates, and how it logs. Only root may give the kernel
// direct access to files of warm; without that, the mount leaves room for one more stacked file system on top.
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
		// The daemon invalidates what it changes. Going by mtime instead, the kernel would drop a file's pages after
		// each write.
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

// panicked logs a panic of a request handler with its stack. A panic in one request must not end the daemon.
func panicked(lg logrus.FieldLogger, v any) {
	lg.WithField("stack", string(debug.Stack())).Errorf("panic in a request: %v", v)
}

// lineWriter passes go-fuse's log, for example "Unimplemented opcode", on at debug level: nothing in it concerns users.
type lineWriter struct{ log logrus.FieldLogger }

func (w lineWriter) Write(p []byte) (int, error) {
	w.log.Debug(string(bytes.TrimRight(p, "\n")))
	return len(p), nil
}
