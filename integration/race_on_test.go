//go:build race

package integration

// raced says that the tests run under the race detector: the daemon is then built with it too.
const raced = true
