// Package fs is the FUSE side of EmberFS: it puts a tiers.Volume at a mountpoint.
//
// # From the kernel to the storage manager
//
//	kernel ── /dev/fuse ── device (kernel.go, workers.go) ── go-fuse's ProtocolServer ── filesystem (raw*.go) ── tiers
//	   └──────────────── notifier (notify.go) ◀───────────────── tiers.Invalidator ◀───────────────────────────────┘
//
// Mount attaches a FUSE connection to the mountpoint, answers INIT and starts the worker threads that read requests, so
// a mount is usable when Mount returns. The filesystem type implements go-fuse's RawFileSystem: a FUSE node id is the
// id of a tiers.Inode, a file handle is a slot in one table of tiers handles. There is no second tree of nodes, except
// for the three nodes of the directory .emberfs (own*.go), which is laid over the volume and has node ids of its own.
// An inode knows which Volume it belongs to: the mounted one, or the area of its directories of class memory.
//
// # Decisions that are made in one place
//
//   - errno.go: which errno a program sees for an error.
//   - backing.go: how the kernel gets direct access to files of warm (FUSE passthrough). Which files those are is
//     decided by tiers, at each open.
//   - policy.go: how long the kernel keeps names and attributes, and the FOPEN flags of files and directories.
//   - init.go: what is negotiated with the kernel.
//   - options.go: which mount options exist and what they do.
//
// # Rules
//
//   - The process that serves a mount never touches a path under it: the call might need the very thread that it
//     blocks.
//   - Only the notifier's goroutine sends notifications. Sent by a request handler they deadlock: the kernel holds
//     locks of the directory or file while it waits for the handler's reply. The one exception is InvalAttr, which
//     takes none of these locks: if a request changes attributes as a side effect (a write clears suid), the kernel's
//     copy is invalidated before the reply.
//   - No reply carries ENOSYS for an operation that exists. The kernel would never ask again and, for fsync, would
//     report success from then on.
//   - All opens of a node that the kernel serves itself carry FOPEN_PASSTHROUGH and the same backing id, and no open of
//     another node does: the kernel fails an open that mixes the two ways (EIO). A backing id lives from the reply to
//     the first such open until the last RELEASE.
//   - Attributes of a file that is written without the daemon's knowledge have a timeout of 0.
//   - A READ that does not reach the end of the file is answered in full. The kernel takes a short reply for a new end
//     of the file.
//
// # Lock order
//
// handleTable.mu, notifier.mu and ownFiles.mu are leaves: while one of them is held, no other lock is taken, and no
// function of another package is called. ownFiles.applying comes before ownFiles.mu, and is held while the volume takes
// new rules.
package fs
