// Package integration tests the emberfs binary from outside, as its users meet it: it mounts, works in the mount with
// plain system calls and real programs, kills the daemon, restores on "the next machine" and reads the repository with
// stock git. It imports nothing of ours but its own tools, so that what it proves holds for the program and not for
// a package.
//
// The untagged tests take seconds; the slow ones stand behind the build tag "slow". They need root (mounts, several
// users), the packages that scripts/test installs, and a file system with extended attributes below $TMPDIR.
//
// The test process is never the daemon: it may read, map and execute what lies in a mount. A mount that hangs is
// aborted at the test's deadline, so that the test fails instead of staying for ever.
//
// EMBERFS_BIN names a binary to test in place of one built here. EMBERFS_KEEP=1 keeps the working directory.
package integration
