// Package fsck is the repository's part of `emberfs check`. It finds out whether every reference, pack, object and line
// of metadata is sound, and where the branch is compared to the remote and to warm; Checker.Repair repairs what can be
// repaired without losing a byte.
//
// A Checker opens repositories that nothing else would open, and continues after damage: each fault is a cold.Finding.
package fsck
