// Package odb is the git object database under a volume: loose objects and packs, references and the repository's
// configuration. It knows nothing of files, metadata or remotes; package backup builds those on it.
//
// # What it promises
//
// A DB works on a bare repository that stock git may read, gc, repack and push to at the same time.
//
//   - Publishing is crash-safe and gc-safe (FORMAT.md section 5): pack and index are written and fsynced under
//     temporary names, pack-X.keep is made durable, the pack is renamed, then its index, the directory is fsynced. The
//     caller moves the reference and only then calls Release, which removes the .keep. A pack that was visible to git
//     with its .keep is never taken back: a git repack leaves out what it finds there and removes the other copies.
//   - References move under <ref>.lock, compared with the value that the caller expects.
//   - Everything that comes in is hashed with collision-detecting SHA-1, and everything that is read is verified
//     against its id: with the same, or with plain SHA-1 where it lies in a pack of our own, whose objects were checked
//     when they came (a quarter of the time; a linked pack is none before it was looked through). A missing object is
//     cold.ErrMissing, bytes that do not match are cold.ErrCorrupt; never zeros, never something else. ReadInto, which
//     is for the speed of big files, leaves out a stream's Adler-32 and copies stored blocks straight from the pack.
//   - Declared sizes are checked against limits before anything is inflated; delta chains have a depth limit, which
//     also ends cycles; big delta bases lie in an unlinked temporary file, not in memory.
//
// # Names of our own files
//
// Temporary files are named emberfs_tmp_*, with the boot, the process and a random part: stock git prunes every tmp_*
// file as soon as it is older than the start of `git gc --prune=now`, whoever is still writing it. pack-X.keep and lock
// files hold "emberfs <boot id> <pid>", so that Open can tell what a dead process of ours left behind from what git or
// a user made, and remove only the former.
//
// # Linked packs
//
// Link brings a repository on the same file system as git clone --local does, in a time that does not depend on what
// its packs hold: the packs by hard link, published in the order above, and what is loose, at most 10,000 objects,
// copied into a pack. The list of packs is read again until it stays as it is, so a git gc there at the same time hides
// nothing. It is done only where the repository has all its objects itself (no alternates, promisor packs, grafts or
// shallow file, every pack with its index), and the packs are regular files of ours or root's that nobody else may
// write; whatever else, the answer is ErrCannotLink.
//
// What a linked pack's index says is the other repository's word, and nobody has looked for collisions in what it
// holds. Until VerifyLinked has read through it, its .keep stays, with a text of its own that marks it: its objects are
// hashed with the collision-detecting hasher, Kind reads an object before it says that it is there, and neither
// Consolidate, GC nor git's repack copy from it or remove it. Only that the tip is among the objects was looked up;
// that its closure is there is what git keeps in every repository. An object that is missing or damaged is found when
// it is read, by VerifyLinked, or by a check.
//
// Both repositories then share bytes on disk, and damage to them: the remote is no second copy before its next repack,
// or until ours merges the pack. Nothing of ours writes to a linked file, and what either removes is its own name of
// it.
//
// # Packs with a damaged or missing index
//
// Open and every miss look for them. A pack whose index is missing for a minute, damaged, of version 1 or not its own
// gets a new one, made from the pack as IndexPack makes it; what an index says is compared with its checksum before an
// object is reported missing. A pack for which none can be made (cut off, damaged) is put aside in
// objects/pack/emberfs_bad, where git does not look, after every entry that still inflates to what its id says was
// written to a new pack; never while it is younger than a minute, or a promisor pack. Problems lists what cannot be
// read and what was put aside. A read-only DB only reads what it can.
//
// # Merging packs
//
// Consolidate merges packs when there are more than 32, so that their sizes then grow by factor 2 at least. Entries are
// copied as they are and compared with the index's checksums; the newest pack comes first. A delta is copied when its
// base is in the new pack before it, which is so unless the base was damaged, unwanted or at the end of a chain of 50;
// otherwise the object is written whole. Trees and the blobs that Options.Shard knows, from 64 KiB to 4 MiB, become
// deltas of a newer version of the same: versions are recognised by a sketch of their entries or lines, of which a
// delta copies those that both have; the nth is based on version n with its lowest hexadecimal digit other than 0 made
// 0, so chains have 4 links at most. Objects that others are based on stay whole: chains do not grow when merged packs
// are merged again. Memory is 24 bytes an object and 24 MiB of bases; ids are read from the sorted indexes.
//
// The new pack is published like a commit's, gets the time of its youngest source, and only then the sources go, index
// first. Packs with .keep, .promisor or .mtimes are neither merged nor removed. With a git gc or repack at the same
// time: if git listed the packs before ours was there, it removes but the sources, as we do; if after, it sees ours
// with its .keep, leaves out what is in it and does not remove it; if after the release of the .keep, ours is a pack
// like any other, which it replaces whole. Hence ours stays whatever happens to us after it was published: nothing
// takes it back.
//
// That holds for one stock git at a time, as git gc itself sees to. Two git repack -ad at once, beside a merge, can
// lose objects: the first leaves out what a pack with our .keep has; the second, which sees that pack without .keep,
// makes the very pack again (equal bytes have an equal name) that the first is about to remove as one from before, and
// removes what the first has made.
//
// # Collecting garbage
//
// GC walks from all references, HEAD, commits that Protect holds, reflogs and FETCH_HEAD, objects in packs with .keep,
// and all that is younger than the grace period. It gives each object a number, its place in the sorted indexes (the
// biggest pack first, the loose objects last), and keeps a bit for each and 4 bytes for each commit and tree that waits
// to be walked; ids and contents are not held. What the references reach has to be there and whole, else nothing is
// removed; what only the others reach may have been pruned by git. A pack with unmarked objects is replaced by one
// without them, as in merging; a delta whose base goes is written whole. Promisor packs stay, and excuse what is
// missing.
//
// A commit of ours at the same time is safe: it adds packs that are not on the list, and counts only on what its base
// reaches, which is a tip or protected. Before each removal the references are read again, with Protect locked out: if
// something to be removed has come into use, or git has given a pack a new time because it counts on it, the pack
// stays, and all is looked at anew, up to three times (GCReport.Busy: still not done). Between that look and the
// removal lies what git's own prune has too: a push into the repository by another program may count on an object that
// was unreachable for longer than the grace period.
//
// # What is refused
//
// SHA-256 repositories, reftable, every extensions.* but partialClone, repository format versions over 1, and
// repositories that borrow objects through objects/info/alternates (its target may be anybody's, and may vanish). A
// multi-pack-index is ignored: the indexes beside the packs say the same.
//
// # Concurrency
//
// DB and Writer are safe for concurrent use. The list of packs is immutable behind an atomic pointer; a reader holds a
// reference to the list that it searches, and a pack that was unlinked is closed when the last reader lets go. On a
// miss the directory is read again until a scan shows no change.
//
// Lock order: the token of DB.upkeep, then DB.protected.mu; Writer.mu, then DB.scan.mu. Nothing calls back into a
// Writer while its lock is held except the drop function of PutStream, which must not use the Writer.
package odb
