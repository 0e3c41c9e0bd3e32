// Package warm handles the plain directory of a volume: opening, reading and listing it by descriptors, the extended
// attribute with the state of an inode (Record), and the state file beside the directory (volume.json).
//
// It serves both a mounted volume and the readers of one that is not mounted. Nothing in it follows a symbolic link or
// leaves the directory. All of EmberFS uses its helpers for durable files (WriteFileDurable, SyncDir).
package warm
