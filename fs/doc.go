// Package fs is the FUSE side of EmberFS: it puts a tiers.Volume at a mountpoint.
//
// # From the kernel to the storage manager
//
//	kernel ── /dev/fuse ── device (kernel.go, workers.go) ── go-fuse's ProtocolServer ── filesystem (raw*.go) ── tiers
//	   └──────────────── notifier (notify.go) ◀───────────────── tiers.Invalidator ◀───────────────────────────────┘
//
// Mount attaches a FUSE connection to the mountpoint, answers INIT and starts the worker threads that read requests, so
// a mount is usable when Mount returns. The filesystem type implements go-fuse's RawFileSystem: a FUSE node id is the
// id of a tiers.Inode, a file handle is a slot in one table of tiers handles. There is no second tree of nodes, but for
// the three of the directory .emberfs (own*.go), which lie over it under node ids of their own. An inode says which
// Volume it is of: the mounted one, or the area of its directories of class memory.
//
// # Decisions that stand in one place
//
//   - errno.go: which errno a program sees for an error.
//   - backing.go: how the kernel is let at files of warm (FUSE passthrough); which files those are tiers decides, with
//     each open.
//   - policy.go: how long the kernel keeps names and attributes, and the FOPEN flags of files and directories.
//   - init.go: what is negotiated with the kernel.
//   - options.go: which mount options exist and what becomes of them.
//
// # Rules
//
//   - The process that serves a mount never touches a path under it: the call could need the very thread that it
//     blocks.
//   - Notifications go out from the notifier's goroutine alone. Written by a request handler they deadlock: the kernel
//     holds locks of the directory or file while it waits for the handler's reply. The one exception is InvalAttr,
//     which takes none of them: what a request changes of a file besides what it asks for (suid, at a write) is
//     forgotten before its reply.
//   - No reply carries ENOSYS for an operation that exists. The kernel takes it for "never ask again", and, for fsync,
//     goes on reporting success.
//   - All opens of a node that the kernel serves itself carry FOPEN_PASSTHROUGH and the same backing id, and none of
//     another node does: the kernel fails an open that mixes the ways (EIO). An id lives from the first such open's
//     reply to the last RELEASE.
//   - Attributes of a file that is written without the daemon's knowledge go out with a timeout of 0.
//   - A READ that is not at the end of the file is answered in full. The kernel takes a short one for the new end.
//
// # Lock order
//
// handleTable.mu, notifier.mu and ownFiles.mu are leaves: nothing else is locked, and no call leaves the package, under
// them. ownFiles.applying comes before ownFiles.mu, and is held while the volume takes new rules.
package fs
