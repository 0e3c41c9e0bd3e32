// Package gitserver starts real git servers for tests, and what lies between them and a client: OpenSSH, nginx with
// git-http-backend, git daemon, gitolite, a link that stalls and breaks, and an HTTP front that answers what a test
// wants. It is for tests alone.
//
// All servers listen on 127.0.0.1, on free ports, and run as accounts without privileges, which the package makes when
// they are missing; it needs root for that. Server and repository belong to one account, as stock git requires it.
//
// Each program runs in a PID namespace of its own, so that the kernel ends everything that it has started together with
// it: sessions of sshd, the children of fcgiwrap, a git gc in the background. Nothing is left when a test has ended,
// nor when the test's process was killed.
//
// A Server is safe for concurrent use, as are Link and Front. Problems of a server fail the test.
package gitserver
