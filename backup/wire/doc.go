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
//
// # Secrets
//
// A Reference says where a secret is; it is read at each use. For http(s) the places are, in this order: the reference
// of Options.Token, a password that git's url.*.insteadOf put into the URL, EMBERFS_TOKEN, systemd's credential
// emberfs-token. The first that there is counts alone, and only for the scheme, host and port of the source. It goes as
// the password of Basic, which GitHub, GitLab, Gitea, Bitbucket and Azure take for tokens, and as Bearer where a server
// offers no Basic. Over TLS it goes with the first request, since some servers answer 404 without it; in the clear only
// after a 401. If there is none, git's helpers are asked after a 401, and then ~/.netrc.
//
// What git is asked (http.*, url.*.insteadOf, core.sshCommand) is asked at the first use, and http.* again after a 401
// or a connection that failed. Children get no variable of ours; credential helpers get all others, since they have
// secrets of their own there.
package wire
