// Package backup stores volumes in git: it implements [cold.Cold] over a bare repository. FORMAT.md, beside this file,
// is the specification. Package format reads and writes what FORMAT.md describes, package odb stores the objects,
// package wire talks to a remote, package log reads history, and package fsck checks and repairs.
//
// # What is claimed about the remote
//
// Push asks the remote where its branches are, every time. So whoever claims that something is on the remote has asked
// in the same command, or in the same round of releases, and what the remote has lost since is sent again. A branch
// that the remote does not list counts as missing only if its file does not exist either (see Broken in package wire).
//
// # A push
//
// A push is one conversation (wire.Remote.Send): outgoing.plan (push.go) decides by the references that the remote has
// just named, pushremove.go adds the deletions that go with it, and pushparts.go cuts what is over Options.PushMax.
// What goes wrong is sorted by package wire into three kinds: cold.ErrDiverged, *cold.RefusedError, and the rest.
//
// # Live branches
//
// What main absorbs is not stored again; until main has moved, only the live branch reaches it. A reader with stock git
// reads one reference after another: it may read main before it moves, and then look for the live branch when it is
// already deleted. It still misses nothing, because it reads HEAD, which names main, after all the others, and so finds
// the new commit. (git moves the references of one step before it deletes any.)
//
// A stray live branch on the remote (one that main neither leads to nor has absorbed) is merged by stray.go, see
// FORMAT.md section 7. Aside names what could not be merged.
//
// # Concurrency and durability
//
// A Cold is safe for concurrent use. One Tx is open at a time, and beside it one Fetch or Push runs at a time. Lock
// order: the token of Cold.txs or that of Cold.sync, then Cold.refs, then Cold.mu. Package odb writes objects and makes
// them durable as FORMAT.md section 5 says.
package backup
