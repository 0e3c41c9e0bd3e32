// Package wire talks to the repository on the other side: it lists references, fetches into an odb.DB, and pushes a
// pack that its caller writes. It makes no decisions: package backup decides which commits to send, what a moved branch
// means, and when to try again.
//
// In this version a remote is a path, or a file:// URL, of a bare repository. git-upload-pack and git-receive-pack run
// as child processes, so the git program must be installed. They run the hooks of that repository with our rights, so a
// repository that belongs to neither us nor root is refused (FORMAT.md section 7). What they write to stderr becomes
// part of errors and is never copied to ours. If the objects can be linked, the first fetch only asks git for the
// references (Remote.Link).
//
// A Remote has no connection and no state between calls, and is safe for concurrent use. Every call ends when its
// context is cancelled, and then ends its child processes too.
package wire
