// Package backup stores volumes in git: it implements [cold.Cold] over a bare repository. The specification is FORMAT.md;
// this page adds what it leaves to the implementation, exactly enough for another program to read a volume.
//
// # A commit's root
//
// The tree of a commit holds the user's root directory and, beside it, .emberfs:
//
//	.emberfs/volume.json     {"format":1,"volume":"ID"}, an object; "requires", a list of strings, names what a reader must
//	                         know beyond the format. A reader refuses a higher format and any requirement it does not know.
//	.emberfs/.gitattributes  "* -text -diff\n"
//	.emberfs/rules.yaml      carried from commit to commit as it is, where there is one
//	.emberfs/opened          the files that the session opened first, in that order, where that is known: a hint for the next one
//	.emberfs/meta            the metadata directory of the root
//
// A metadata directory holds for each subdirectory of its directory a metadata directory under the stored name, the blob or
// tree .emberfs%entries, and at the root perhaps the blob .emberfs%links.
//
// # Stored names
//
// As FORMAT.md section 2. "Malformed" is what git takes for malformed, which includes U+FFFE and U+FFFF. A name that a stock
// client stored in the clear although it is to be escaped (.gitattributes, .gitmodules) is read as that name unless the
// escaped one is there too. A commit keeps it in the clear where the commit before has it so in that directory, as the same type;
// everywhere else it is stored escaped. Names that begin with ".emberfs%" have to decode.
// What follows ".emberfs%%" is a hash if it is exactly 64 digits; otherwise the second "%" begins an escape.
//
// # Lines
//
// Metadata is UTF-8 text, lines ended by a newline, each a JSON object (RFC 8259). Keys are exact and come once. A reader
// refuses a line with a key that it does not know unless the key starts with "x_": that is how a later version adds what
// may be ignored. Numbers are whole, without exponent. A text that is not UTF-8 has its key with "64" appended and standard
// base64 with padding as its value (name64, target64, value64, dirs64).
//
// The first line is the header: {"tree":"HEX"}, tree first, the id of the user's tree that the lines describe (at the
// root: of the commit's tree without .emberfs). In the header of the root mode, uid, gid, mtime, x_flags and xattrs follow, the
// root's own.
//
// Each other line is an entry:
//
//	name    the true name
//	type    file, dir, symlink, fifo, socket, char or block
//	mode    four octal digits: suid, sgid, sticky and permissions
//	uid gid
//	mtime   [S,N]: S seconds since 1970, perhaps negative, plus N nanoseconds, 0 to 999999999
//	x_flags the sum of the flags of chattr(1), as FS_IOC_GETFLAGS numbers them: immutable 16, append only 32, nodump 64, noatime 128;
//	        missing where there are none, and a reader passes over others
//	xattrs  [{"name":N,"value":V},...] sorted by name; missing where there are none
//	size    bytes; of a file or symlink
//	x_holes of a sparse file: blocks of 512 bytes that it has less than a file without holes, of size rounded up to 4096 bytes
//	id      object id; of a file, symlink or directory (the empty tree's for a directory that git sees as empty)
//	git     the mode that the object has in git's tree: 100644, 100755, 120000 or 40000
//	chunk   chunk size in bytes; of a file whose git is 40000, and of nothing else
//	target  of a symlink
//	rdev    [MAJOR,MINOR]; of a device
//	link    hard-link group: names of one group are names of one file; missing where there is but one name
//
// Lines are sorted by name, bytewise. An entry that git can hold has a tree entry too; directories whose tree is empty,
// FIFOs, sockets and devices have a line alone. A directory's metadata stands in its metadata directory, empty or not.
//
// # Files opened first
//
// .emberfs/opened has a line for each file, the first opened first: {"path":"a/b"} or {"path64":...}, true names joined by
// slashes. At most 4096 lines and 262144 bytes. The files may be gone. A reader takes a list with a wrong line for empty, and a
// writer may leave it out; a version that does not know it does.
//
// # Files in chunks
//
// A file over the threshold is a tree (FORMAT.md section 4) of mode 40000, executable or not. It holds
//
//	.emberfs%chunks  {"size":N,"chunk":C} and a newline: the file's size and the chunk size, in bytes, a line of JSON as above
//	00000000 ...     blobs of mode 100644, the chunks that are not all hole: number times C is where they begin
//
// with C a power of two from 65536 to 4194304, and at most 100,000,000 chunks. The last chunk ends with the file, every other
// is C bytes long. A tree with .emberfs%chunks that does not follow these rules, but for what the next section allows, is read
// as a directory. A tree that a stock client made is kept as it is, with its true size in the line, until the file changes.
//
// # Shards
//
// Up to 512 entries .emberfs%entries is one blob: the header's line, then the lines. With more it is a tree: the blob
// "header" with the header's line, and nodes named 00 to 3f. A node is a blob of lines, or a tree of nodes. The name of a
// node at level k (0 at the top) is bits 6k to 6k+5 of sha256(true name), first bit highest, as two hex digits; a node is
// there only where it has lines. A blob that would get more than 512 lines becomes a tree, a tree below which fewer than
// 128 lines are left after a removal becomes a blob again; readers accept any shape.
//
// # What a commit cannot hold
//
// No reader has a limit that the writer has not. A line of metadata has at most 16 MiB, a blob of lines or a tree 256 MiB, a file
// 100,000,000 chunks, .emberfs%links 256 MiB with paths of up to 256 KiB; what is more is a *cold.TooMuchError of the Tx, and stays out
// of the commit by itself. Directories go as deep as tiers.MaxDepth, which stock git reads with all that EmberFS puts below them.
// Readers of commits that stock clients made pass by what is more than twice as deep, and say so.
//
// # Link groups
//
// .emberfs%links has a line for each group with names in several directories, sorted: {"link":"GROUP","dirs":["a/b",...]},
// true names joined by slashes, sorted, "" for the root. If one path is not UTF-8 all of them stand in dirs64.
//
// # Commits by stock clients
//
// FORMAT.md section 3 says how entries are reconciled. Beyond it: a directory whose tree changed keeps its sgid bit, which
// is no privilege of its content, and gets the committer's time (the nearest that ext4 keeps, as everything that has no line);
// a directory that was renamed is
// found in the whole volume, gets back its metadata with all below, and where it was also copied only one copy does.
//
// A tree entry that no directory can hold is carried from commit to commit as it is: a submodule, a name of more than 255 bytes or one
// that does not decode, an object that is missing and that no line describes, or of a type that its mode does not say. It has no
// line, also in a directory that EmberFS wrote; where it can be held after all, for the blob is there again, that is a problem, and
// it is a stock client's. A reader shows it by its name, or by the first 200 bytes of that, "~" and the first 16
// hex digits of the sha256 of the stored name, and where an entry has that name of the stored name, "/" and 1 to 7. Where it is in
// the way of an entry that is to be stored under its name, or stood beside an escaped name that is gone, it is stored by the name that it is
// shown by. What is missing here is not sent to a remote whose branch has it somewhere. (cold.KindOther)
//
// Of a file in chunks a stock client may change the chunks. Where no number is missing up to the end, the file is then what
// cat makes of them, whatever their lengths. Otherwise every chunk stays where its number says; the last one may have any
// length, one before it that is shorter is followed by zeros (a problem), and one that is longer leaves the file out. Chunks
// behind the size go on without a gap and make the file longer. No chunk may be longer than 16 MiB.
//
// # Live branches
//
// A commit of main with id I and the committer's time T, in seconds, can have one live branch, refs/heads/emberfs-live/BRANCH/EPOCH
// with EPOCH the decimal number T*1000000 + N mod 1000000, where N is the number that the first four bytes of I make, big-endian; a T
// before 1970 counts as 0. It is a chain of commits by first parents that begins at that commit, of at most 100,000; one that leads
// elsewhere, and whatever else has such a name or lies beside it, counts for nothing. Since everybody comes to the same name, a server
// that compares lets two machines not both go on. (Branches A and A/DIGITS would share names; git has no two such branches.)
//
// The newest state is the tip of the live branch of main's tip where there is one, else main's tip. The first commit of all goes to
// main. A commit to main has main's tip as its parent and begins with the newest state: it absorbs the live branch, and names in its
// trailer Emberfs-Absorbs the last live commit, then those before it at which another machine took over, at most 16 ids. From the
// moment that main moves the live branch has no meaning; it is deleted then, or at the next start. A local live branch with commits that
// main has not absorbed (somebody moved main without them) stays, as a problem.
//
// Such a branch of the remote, which a machine left that was lost, is stray: a Fetch that finds one takes it into main by a commit of its
// own (stray.go). Each entry is merged on its own: what the branch changed since the commit that it began at, and main did not, is taken,
// attributes included; where both changed the same, main's stands, and the branch goes on, whole, as
// refs/heads/emberfs-side/BRANCH/MACHINE-TIME, which Aside names until somebody has removed it.
//
// What main absorbs is not stored again, and until main has moved only the live branch reaches it. Stock git reads one reference after
// another: it may have read main before it moved, and miss the live branch that was deleted then. But it reads HEAD, which names main,
// after all the others, and so finds the new commit.
//
// Hidden references remember the remote: refs/emberfs/remote/BRANCH where its main was seen last, refs/emberfs/remote-live/BRANCH
// the last commit of a live branch that both sides have had, refs/emberfs/fetched-live/BRANCH what only the remote has, and
// refs/emberfs/absorbed/BRANCH/EPOCH the live branches that main has absorbed and a push has yet to delete there. A push sends main
// and the live branch in one atomic step, which main's place is part of, or main first where the server does not offer that. Nobody
// pushes a main that lacks what the remote's live branch has, so what was ever on it is in the commit that absorbed it.
//
// # What is said of the remote
//
// Push asks the remote where its branches are, each time: whoever says that something is there has asked in the same command, or in the
// same round of releases. What it has lost is sent again. A branch that is not listed counts as missing only when its file is not there
// either (wire: Broken).
//
// # Concurrency and durability
//
// A Cold is safe for concurrent use. One Tx is open at a time, and one Fetch or Push runs at a time beside it. Lock order: the token of
// Cold.txs or of Cold.sync, then Cold.refs, then Cold.mu. Objects are
// written and made durable as FORMAT.md section 5 says, by package odb; the remote is talked to by package wire.
package backup
