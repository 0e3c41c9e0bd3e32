// Package backup stores volumes in git: it implements [cold.Cold] over a bare repository. FORMAT.md, beside this file,
// is the specification; package format reads and writes what it describes, package odb the objects, package wire talks
// to a remote, package log reads history, and package fsck checks and repairs.
//
// # What is said of the remote
//
// Push asks the remote where its branches are, each time: whoever says that something is there has asked in the same
// command, or in the same round of releases. What it has lost is sent again. A branch that is not listed counts as
// missing only when its file is not there either (wire: Broken).
//
// # Live branches
//
// What main absorbs is not stored again, and until main has moved only the live branch reaches it. Stock git reads one
// reference after another: it may have read main before it moved, and miss the live branch that was deleted then. But
// it reads HEAD, which names main, after all the others, and so finds the new commit.
//
// A stray live branch of the remote is merged by stray.go (FORMAT.md section 7); Aside names what could not be merged.
//
// # Concurrency and durability
//
// A Cold is safe for concurrent use. One Tx is open at a time, and one Fetch or Push runs at a time beside it. Lock
// order: the token of Cold.txs or of Cold.sync, then Cold.refs, then Cold.mu. Objects are written and made durable as
// FORMAT.md section 5 says, by package odb; the remote is talked to by package wire.
package backup
