// Package wire talks to the repository on the other side: it lists references, fetches into an odb.DB and pushes a pack
// that its caller writes. It decides nothing: which commits to send, what a moved branch means and when to try again is
// package backup's business.
//
// In this version a remote is a path, or a file:// URL, of a bare repository. git-upload-pack and git-receive-pack run
// as child processes, so the git program must be installed. They run the hooks of that repository with our rights: one
// that belongs to neither us nor root is refused (FORMAT.md section 7). What they write to stderr becomes part of
// errors and never reaches ours. The first fetch asks git for the references alone where the objects can be linked
// (Remote.Link).
//
// A Remote holds no connection and no state between calls; it is safe for concurrent use. Every call ends when its
// context does, and takes its child processes along.
package wire
