// Package fsck is the repository's part of `emberfs check`: whether every reference, pack, object and line of metadata
// is sound, where the branch stands beside the remote and warm, and what of that can be made good without losing a byte
// (Checker.Repair).
//
// A Checker opens what nothing else would open, and goes on after what is damaged: each fault is a cold.Finding.
package fsck
