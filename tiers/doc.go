// Package tiers is EmberFS's storage manager: it keeps a volume's files hot (memory), warm (a plain directory) and cold
// (a git repository behind the Cold interface), and knows which of them are safe.
//
// # Where the bytes are, and whether git has them
//
//	                 clean (same as the last commit)      dirty
//	present          record {clean, id, size, mtime}      no record, or one that says dirty
//	stub             record {clean, stub, id, size,       never its bytes; its attributes: by its directory's mark
//	                 mtime, blocks}; warm has a hole
//	directory        record {clean, tree, meta}:          record {dirty, mtime, ctime} or none
//	                 everything below is clean
//	lazy directory   record {clean, lazy, tree, meta};    record {lazy, tree, meta}: restored from a commit of a
//	                 warm has none of its                 stock client, the next commit lists and takes it
//	                 children, or the directories
//
// A directory of class memory is none of these: warm and commits have it empty, its contents lie in an area, another
// Volume over a tmpfs, without records, cold and hot (memory.go, memory_graft.go).
//
// State sits beside the data in the extended attribute trusted.emberfs (warm/record.go), which no program sees through
// the mount.
//
// # Invariants
//
//  1. A directory is marked dirty, and so are all its ancestors, before the first change below it (inode_mark.go).
//
//  2. No directory above a file that is open for writing, or that holds a name of a file with several names, is marked
//     clean.
//
//  3. "Clean" is written only under Volume.marks (directories) or Inode.mu (files) after checking that nothing was
//     touched since the commit's boundary: every change first stamps the inode with the current epoch, and a commit
//     begins by raising the epoch while no change is in flight (Volume.barrier).
//
//  4. Records are believed only when they carry the volume's trust number, which rises with every start that follows
//     neither a clean stop nor an earlier start within the same boot.
//
//  5. Hot never holds the only copy of anything: a write goes to the warm file and to hot in one call, under Inode.io.
//
//  6. A record's ctime is what stat shows while the record says so: writing an attribute moves the file system's own
//     ctime.
//
//  7. What changed of a big file since cold had it is noted (inode_written.go) before the bytes change, under Inode.io:
//     a commit reads no more than that. Whoever knows nothing (a new process) reads everything.
//
//  8. A stub's mark is set before its bytes go, and taken away after they came back durably; only emptying a file turns
//     that around: warm is cut first, and a mark whose size is not the file's is void. A directory's children are made
//     before its mark goes. So both marks are believed whatever the trust number, and a crash at any point leaves a
//     whole stub, or a whole file.
//
//  9. Bytes leave warm only when cold holds every object of them and the remote, where there is one, has the commit;
//     never while the file is open, and under Inode.back, io and mu.
//
//  10. Reading a stub writes nothing to warm. Whatever changes its bytes meets errStub under Inode.mu, lets go of
//     everything, brings it back and begins again (io_stub.go: again).
//
//  11. Names of one file in several directories are made together (lazy_links.go); until then none of these directories
//     moves.
//
//  12. A commit shows one point in time, its boundary (inode_boundary.go). Whoever changes something first after it
//     leaves the pre-image for the commit's walk before the change: of a name (keepBound, keepUnbound), of an inode's
//     attributes and record (keepPast), of its bytes (keepContent, preserved.keep). The walk looks for a pre-image
//     after it looked at what is there, or under Inode.mu. What was clean at the boundary needs none of its bytes or
//     children: its record names them. Pages written through a mapping count from when the kernel hands them over. A
//     pre-image that cannot be had spoils the commit, never the change.
//
//  13. A file that the kernel reads and writes itself (direct.go) is ignored by the rules, or was when it was opened
//     first, and has nothing in its record. An inode is open in one way at a time: by the kernel alone or through the
//     daemon, whatever the rules say meanwhile. From the first such open for writing until a lease shows that nobody is
//     left who writes it, be it through a mapping, be it a program that outlived an earlier daemon of this boot, it is
//     untracked (direct_untracked.go): hot and the kernel keep nothing of it, no written ranges are believed, a commit
//     that takes it takes a copy of all of it, whose moment is that of the copy, and never records it as clean; so it
//     is never released. Nothing is released either that anybody has mapped, for reading included.
//
//  14. All access to warm goes by (directory descriptor, single name) or openat2 with RESOLVE_BENEATH and no symlinks.
//
//  15. Below a lazy directory warm holds lazy directories alone: a directory is listed after all those above
//     it (lazy_browse.go), so a change is never below a lazy one. But for directories that share files: they are
//     listed together, and above one that a crash left listed there may be one that is not, until the next start.
//
//  16. A commit takes all that it can. What it cannot (unreadable, too deep, more than a commit holds) stays out by
//     itself, with what the last commit has of it in its place; it is at risk, listed in status and receipts, and
//     looked at by every commit until one has it. Nothing below a directory that stays out is recorded clean
//     (capture.passOver): no commit reaches what was stored of it.
//
//  17. warm's root carries a mark that volume.json knows (warm/mark.go). Where they do not prove each other nothing of
//     warm is believed: a copy without extended attributes reads as zeros and empty directories.
//
//  18. What a commit has of an inode and this machine cannot make, or may not show, is in the table of package heldback
//     before the directory counts as listed; the inode has the rest, or an empty file stands in for it. A pre-image has
//     it too (preimage.entry), so whatever a commit, a diff or a check takes of an inode goes through held.fill.
//     Whoever changes a part calls Volume.unhold for it. A full disk, or one that fails, is nothing that cannot be
//     made: it ends what was asked for (package restore).
//
//  19. The record of an inode that nobody knew is read by the name that it was found at, and written by it: no name
//     changes between the look at it and the moment when the inode's mu is held (Volume.internAt). Whoever moves or
//     removes a name needs the mu of what it stands for.
//
//  20. Nobody who waits for cold holds what a change, a boundary, or a reader of something else needs: no io, mu,
//     barrier or marks. A read takes the record under its locks, lets go, fetches, and looks again (Handle.Read);
//     listing a directory and bringing a file back hold what is theirs alone (dirState.listing, Inode.back), which
//     nobody waits for under another lock. What a request waits for runs on a goroutine of its own (io_errand.go,
//     coldReader.with): a program that was killed leaves at once, whatever the repository does.
//
//  21. Writers wait for the backup in one place (budget_pace.go), before anything is locked, each for a bounded time,
//     and never while the remote fails. Names are not held up: the kernel holds the lock of a directory while one is
//     made.
//
//  22. A commit that must end by a time leaves whole files out (commit_partial.go), never a part of one, and never a
//     critical one. For each it has what the last commit has.
//
// # Words
//
//	area               the volume over a tmpfs in which directories of class memory have their contents
//	barrier            the lock that keeps changes apart from a commit's boundary
//	base               the commit that a commit extends
//	boundary           the point between two system calls that a commit shows
//	browse             to give the names of a lazy directory by the commit, without listing it
//	budget             what may be at risk: max_at_risk, risk_warn
//	capture            to read what a commit stores
//	clean              the same as the last commit, by a record
//	class              session, critical, memory: what a rule says of a path
//	cold               the git repository
//	dirty              not clean: a commit has to look at it
//	epoch              a number that rises at each boundary
//	errand             what a request waits for on another goroutine, so that its program can leave
//	evict              to let bytes leave warm before their age, because it is too full
//	graft              a directory of the area that stands in the place of one of warm
//	held back          what a commit has of an inode and this machine cannot make
//	hot                file content in memory
//	inode              a file, directory or other node, whatever its names
//	lane               where what is at risk is counted: of the next commit of everything, or of critical files
//	listing            to make the children of a lazy directory in warm
//	lazy directory     a directory whose children are not made in warm yet
//	live branch        commits of critical files between two commits of everything
//	mark               a record that says clean or dirty; the first change of a directory marks it and all above
//	pre-image          what an inode, a name or bytes were at the boundary, kept before the first change after it
//	publish            to make what was captured durable in cold, and move the branch to it
//	receipt            what a sync made safe, and what not
//	recall             to bring a stub's bytes back to warm
//	record             the extended attribute that says what an inode is to the last commit
//	release            to make a stub of a file: its bytes leave warm
//	risk               what would be lost if machine and disk went away now
//	settle             to make warm the only place that a file needs which the rules ignore
//	stub               a file whose bytes are in cold only
//	trust              the number that says which records count after a start
//	untracked          of a file: programs may write it without the daemon's knowledge
//	warm               the plain directory
//
// # Components
//
// The files of a component begin with its name. In this order, each uses those before it, and knows nothing of those
// behind it (order_test.go has the exceptions, and what they are for):
//
//	base      configuration, state, what is at risk, failpoints, the kernel's side
//	inode     warm's directory by descriptors; inodes, names, records, marks, pre-images
//	budget    how fast changes are saved, what may be at risk, and when writers wait for that
//	rules     which rule decides about a path
//	critical  names that a commit of critical files is to take
//	direct    files that the kernel reads and writes itself
//	io        open files: hot, warm, cold; bytes that leave warm and come back
//	lazy      directories whose children are not made in warm yet; restoring
//	memory    directories of class memory
//	attr      attributes
//	ns        names: lookup, create, rename, unlink
//	commit    what a commit shows, stores, and records as clean
//	tier      files that move down by age, and back up before they are asked for
//	volume    opening, closing, loops, status
//
// # Lock order
//
// Whoever holds a lock takes only locks below it in this table. The raced tests are built with the tag lockorder, which
// asserts that (base_locks.go has the ranks). Two tokens are channels, since waiting for them honours a context: that
// of Volume's syncing, one commit at a time, comes after Volume.sweeping; that of Cold's transactions is taken by
// commits alone.
//
//	ruleBook.mu           the rules, while they are changed
//	memory.making         a memory directory, or the area, coming or going
//	Volume.sweeping       one walk over warm at a time
//	pendingLinks.listed   while directories that share files are listed together
//	dirState.listing      while a directory's children are made; several only under pendingLinks.listed
//	Inode.back            a stub's bytes coming, going or being given up; several in the order of their
//	                      ids; never waited for in the barrier
//	Volume.barrier        read side: every change, from its mark to its last system call; write side: a
//	                      commit's boundary
//	Inode.io              content: readers share, writers exclude each other and readers; several in the
//	                      order of their ids
//	Volume.marks          transitions of directory records
//	Inode.mu              record, open writers, way of I/O of one inode; Backing is called under it. A
//	                      rename holds those of the inode that moves and of the one that it replaces,
//	                      which the kernel has locked. A new inode's is tried under table.mu.
//	Volume.ns             parent and name of every inode; write side: around a rename or unlink system call
//	boundary.mu           pre-images; no system call is made under it but opening the file that they lie in
//	Volume.warmCount      counting what warm holds, which walks it
//	critical.mu           names noted for critical commits
//	table.mu              the inode table
//
// Under these nothing is locked, and no system call made, close excepted: budget.mu, capture.mu, coldCount.mu,
// coldReader.mu, contact.mu, direct.mu, dirFDs.mu, dirState.mu, firstOpened.mu, forgotten.mu, inoSet.mu, lingering.mu,
// memory.mu, pendingLinks.mu, points.mu, pusher.mu, restored.mu, restored.recent, risk.mu, settling.mu, written.mu.
//
// An area is a volume of its own, whose locks have the same ranks.
// heldback's table takes no lock of ours; it reads and appends to its file.
package tiers
