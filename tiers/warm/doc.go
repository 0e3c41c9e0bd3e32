// Package warm is the plain directory of a volume: how it is opened, read and listed by descriptors, what an inode's
// extended attribute says of it (Record), and the state file beside it (volume.json).
//
// Everything here works for whoever holds the directory: the volume that is mounted, and those who look at one that is
// not. Nothing follows a symlink or leaves the directory. The helpers for durable files (WriteFileDurable, SyncDir) are
// the only ones of the project.
package warm
