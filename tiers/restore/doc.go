// Package restore makes in a directory what a commit says: the files, directories and other nodes with their owners,
// modes, attributes and times. It serves three callers.
//
//   - Copy writes an exact copy of a snapshot, or of parts of it, for the command restore. No volume is involved.
//   - Restorer.Run makes a volume's warm directory what a commit says, when the volume is opened. What is there already
//     and right stays. With Lazy set it makes lazy directories and stubs, so that it costs nothing that is not looked
//     at.
//   - Package tiers lists a lazy directory with Restorer.Make and Restorer.LazyDir, one entry at a time.
//
// What this machine cannot make is not lost: in a volume it is noted in the table of package heldback, and the next
// commits have it; a copy says what it lacks. An error about the whole, such as a full disk, ends the restore
// (Restorer.cannot).
//
// A Restorer is for one goroutine, but Make of files that have one name and no capabilities may run in several.
package restore
