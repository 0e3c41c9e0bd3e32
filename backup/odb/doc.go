// Package odb is the git object database of a volume: loose objects and packs, references, and the repository's
// configuration. It knows nothing of files, metadata or remotes; package backup builds those on it.
//
// # Promises
//
// A DB works on a bare repository that stock git may read, gc, repack and push to at the same time.
//
//   - Publishing is crash-safe and gc-safe (FORMAT.md section 5). Pack and index are written and fsynced under
//     temporary names, pack-X.keep is made durable, the pack is renamed, then its index, and the directory is fsynced.
//     The caller moves the reference and only then calls Release, which removes the .keep. A pack that git could see
//     with its .keep is never taken back, because a git repack leaves out the objects that it finds there and removes
//     their other copies.
//   - References move under <ref>.lock, after a comparison with the value that the caller expects.
//   - Everything that comes in is hashed with collision-detecting SHA-1. Everything that is read is verified against
//     its id: with the same hash or, if it is in a pack of our own, whose objects were checked when they came, with
//     plain SHA-1, which takes a quarter of the time. (A linked pack does not count as our own before it is verified.)
//     A missing object is cold.ErrMissing, and bytes that do not match are cold.ErrCorrupt; a read never returns zeros
//     or other bytes instead. ReadInto, which is meant for reading big files fast, does not check a stream's Adler-32,
//     and copies stored blocks straight from the pack.
//   - Declared sizes are checked against limits before anything is inflated. Delta chains have a maximum length, which
//     also ends cycles. Big delta bases are kept in an unlinked temporary file, not in memory.
//
// # Names of our own files
//
// Temporary files are named emberfs_tmp_*, with the boot id, the process id and a random part. They do not begin with
// tmp_, because stock git prunes every tmp_* file that is older than the start of `git gc --prune=now`, even if
// somebody is still writing it. pack-X.keep and lock files contain "emberfs <boot id> <pid>", so that Open can tell
// what a dead process of ours left behind from what git or a user made, and removes only the former.
//
// # Linked packs
//
// Link brings the objects of a repository on the same file system as git clone --local does, in a time that does not
// depend on what its packs contain. It hard-links the packs, which are published in the order above, and copies loose
// objects, at most 10,000, into a pack. It reads the list of packs again until the list does not change any more, so
// that a git gc running there cannot hide anything. It requires that the repository has all its objects itself (no
// alternates, promisor packs, grafts or shallow file, and every pack has its index), and that the packs are regular
// files of ours or root's that nobody else may write. In all other cases it returns ErrCannotLink.
//
// What a linked pack's index says is the other repository's word, and nobody has looked for collisions in the pack.
// Until VerifyLinked has read all of it, the pack keeps its .keep, which has a text of its own as a mark; its objects
// are hashed with the collision-detecting hasher; Kind reads an object before it says that it exists; and neither
// Consolidate, GC nor git's repack copy from it or remove it. Link itself only checks that the tip is among the
// objects, and relies on git that everything reachable from it is there too. An object that is missing or damaged is
// found when it is read, by VerifyLinked, or by a check.
//
// The two repositories share the bytes on disk, and thus damage to them. So the remote is no second copy until it
// repacks, or until we merge the pack. We never write to a linked file, and when one of the repositories removes it, it
// only removes its own name of the file.
//
// # Packs with a damaged or missing index
//
// Open, and every read that does not find an object, look for such packs. A pack gets a new index, made from the pack
// as by IndexPack, if its index has been missing for a minute, or is damaged, of version 1, or that of another pack.
// Before an object is reported missing, the indexes are compared with their checksums. If no index can be made, because
// the pack is truncated or damaged, every entry that can still be inflated and matches its id is written to a new pack,
// and the pack is put aside in objects/pack/emberfs_bad, where git does not look. That is not done while the pack is
// younger than a minute, or if it is a promisor pack. Problems lists what cannot be read and what was put aside. A
// read-only DB only reads what it can.
//
// # Merging packs
//
// Consolidate merges packs when there are more than 32, so that afterwards each is at least twice as big as the next
// smaller one. Entries are copied as they are, and compared with the index's checksums; the newest pack comes first. A
// delta is copied if its base is in the new pack before it, which is so unless the base was damaged, unwanted, or at
// the end of a chain of 50; otherwise the object is written whole. Trees, and blobs that Options.Shard recognises, from
// 64 KiB to 4 MiB, become deltas of a newer version of the same thing. Versions are recognised by a sketch of their
// entries or lines, and a delta copies those entries or lines that both versions have. Version n is based on version n
// with its lowest non-zero hexadecimal digit set to 0, so a chain has at most 4 links. Objects on which others are
// based stay whole, so that chains do not grow when merged packs are merged again. It takes 24 bytes of memory per
// object and 24 MiB for bases; ids are read from the sorted indexes.
//
// The new pack is published like a commit's and gets the time of its youngest source. Only then are the sources
// removed, index first. Packs with .keep, .promisor or .mtimes are neither merged nor removed. A git gc or repack at
// the same time does no harm. If git listed the packs before ours was there, it only removes the sources, as we do. If
// it listed them while ours had its .keep, it leaves out what is in ours, and does not remove it. If it did so after
// the .keep was removed, ours is a pack like any other, which it replaces as a whole. Therefore our pack has to stay
// whatever happens after it was published; nothing takes it back.
//
// That is true for one stock git at a time, which git gc itself makes sure of. Two git repack -ad at once, beside a
// merge, can lose objects. The first leaves out what a pack with our .keep has. The second, which sees that pack
// without .keep, makes the very same pack again (equal bytes have an equal name), which the first is about to remove as
// an old one; and it removes what the first has made.
//
// # Collecting garbage
//
// GC walks from all references, HEAD, commits that Protect holds, reflogs and FETCH_HEAD, objects in packs with .keep,
// and everything that is younger than the grace period. It gives each object a number, its place in the sorted indexes
// (the biggest pack first, the loose objects last), and keeps one bit for each object and 4 bytes for each commit or
// tree that waits to be walked; it does not hold ids and contents in memory. What the references reach must exist and
// be undamaged, otherwise nothing is removed. What only the other roots reach may have been pruned by git. A pack with
// unmarked objects is replaced by one without them, as in merging; a delta whose base is removed is written whole.
// Promisor packs stay, and objects may be missing if there are such packs.
//
// A commit of ours at the same time is safe: it adds packs that GC does not know, and relies only on what its base
// reaches, which is a tip or protected. Before each removal GC reads the references again, while nothing can be
// protected. If something that is to be removed has come into use, or git has given a pack a new time because it relies
// on it, the pack stays, and GC starts anew, up to three times (GCReport.Busy says that it is still not done). Between
// that check and the removal there is the same gap as in git's own prune: another program that pushes into the
// repository may rely on an object that was unreachable for longer than the grace period.
//
// # What is refused
//
// SHA-256 repositories, reftable, every extensions.* except partialClone, repository format versions over 1, and
// repositories that borrow objects through objects/info/alternates (the target may be anybody's, and may vanish). A
// multi-pack-index is ignored, because the indexes beside the packs have the same content.
//
// # Concurrency
//
// DB and Writer are safe for concurrent use. The list of packs is immutable, behind an atomic pointer. A reader holds a
// reference to the list that it searches, and a pack that was unlinked is closed when the last reader releases it. If
// an object is not found, the directory is read again until a scan shows no change.
//
// Lock order: the token of DB.upkeep, then DB.protected.mu; Writer.mu, then DB.scan.mu. While a Writer's lock is held,
// the only code that is called back is the drop function of PutStream, which must not use the Writer.
package odb
