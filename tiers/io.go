package tiers

import "sync/atomic"

// contents is the component of files' bytes: hot, what is read from cold, and what moves between warm and cold.
type contents struct {
	hot       *hotCache
	coldReads *coldReader
	coldLog   atomic.Int64 // UnixNano of the last line about content that cold cannot give
	errands   errands

	firstOpened firstOpened
	recalls     chan *Inode  // stubs to bring back in the background, each with a reference
	warmBytes   atomic.Int64 // about how many bytes warm holds: counted by each sweep, then kept up to date
	pressure    pressure
	// UnixNano until which limits are not looked at, after a look that could not help.
	rest       atomic.Int64
	limitHelps atomic.Bool // the last look at the limits could bring warm below them
	// Closed when tierLoop has ended its round: whoever waits for room looks again.
	round atomic.Pointer[chan struct{}]
}
