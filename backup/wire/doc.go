// Package wire talks to the repository on the other side: it lists references, fetches into an odb.DB, and pushes a
// pack that its caller writes. It makes no decisions: package backup decides which commits to send, what a moved branch
// means, and when to try again.
//
// A remote is a path of a bare repository, or a repository of another host: by ssh (the system's program, ssh.go), over
// HTTP (http.go), or of a git daemon (git.go). Each way is a dialer that makes sessions (session.go).
//
// At a path git-upload-pack and git-receive-pack run as child processes, so the git program must be installed. They run
// the hooks of that repository with our rights, so a repository that belongs to neither us nor root is refused
// (FORMAT.md section 7). What they write to stderr becomes part of errors and is never copied to ours. If the objects
// can be linked, the first fetch only asks git for the references (Remote.Link).
//
// A push is one conversation (Remote.Send): its Plan gets the references that came with it. What goes wrong is sorted
// by errors.go: *cold.RefusedError is for a person, cold.ErrDiverged says that somebody was quicker, and the rest may
// be over when it is tried again.
//
// # The protocol
//
// References and packs come by version 2 of git's protocol where the other side offers it, which is asked for in its
// environment (a path; ssh, where the server accepts the variable), by a header (HTTP), or behind the request (git
// daemon); else by version 0. Of the references only branches and tags are asked for, or kept. Over a path, ssh
// and git daemon one connection serves the list and the pack; over HTTP each is a POST, and what the server said of
// version 2 is kept: it is asked anew once if that turns out to be wrong. A server that answers version 2 with nothing
// is asked in version 0 from then on. There is no version 2 of pushing. All that is had and wanted is said in one
// request; multi_ack is asked for where it is offered because some servers want it, and its answers are passed over.
// Nothing is fetched shallow, because pushing, the log and the check of a volume need its history; where the other side
// is shallow, its history begins where it says so.
//
// A git:// remote is neither encrypted nor authenticated, and takes no pushes: they are ErrReadOnly.
//
// # Servers that misbehave
//
// What comes before a pack has at most 64 MiB, has to begin within a minute, and to go on with 32 KiB a minute for at
// most 10 minutes. A pack has to begin within a quarter of an hour; then 64 KiB of it have to come in 5 minutes. What
// comes beside it has at most 4 MiB, and does not count. Another host may be silent for 30 seconds, and for 5 minutes
// before it answers a request over HTTP, or a push (watched.go). It may work at a push that has arrived for an hour. A
// pack may be as big as the disk has room for, less a twentieth of the disk or 1 GiB. odb.DB.ReceivePack takes it only
// if it brings what was asked for with all that this names, and leaves nothing behind otherwise; but of a path's, whose
// disk may be damaged, the contents of files may be missing. Names that git would not make are no references. Words of
// the other side are cleaned of what is not fit for terminals, and cut to 1 KiB (Clean).
//
// # Concurrency
//
// A Remote is safe for concurrent use. Every call ends when its context is cancelled, and then ends its child processes
// too. Between calls it keeps connections, to be closed by Close: those of HTTP, and one of ssh, which its own process
// holds for two minutes after the last use and also ends by itself after we were killed.
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
