// The soak command runs the long forms of the tests for as long as one likes: hundreds of power cuts a file system,
// kills at each system call of a commit, databases under load for minutes, minutes of fuzzing a target. scripts/soak
// installs what the tests need and starts it.
//
// A round is every job once, in random order. It has a seed, from which come the order, and what is random in each test
// (integration/effort); the first round's is --seed, so one round with the same seed and --only repeats what a job did,
// but for the moments at which processes meet. Each job is a process of its own, in a mount namespace with a /run of
// its own, so that what one leaves behind meets no other; what is left is ended, and is a failure.
//
// A pattern that matches no test, a test that is skipped and a job that comes to no end are failures too: nothing is
// reported as passed that was not looked at.
package main
