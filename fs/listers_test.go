package fs

import "testing"

// TestListers checks that a program which looks at what it listed goes on getting attributes, that one which does not
// gets only names, and that both can change.
func TestListers(t *testing.T) {
	var l listers
	is := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: attributes stay away from %d files, want %d", what, got, want)
		}
	}
	const finder, lister = 1, 2
	is("first directory", l.begin(finder, 10, false), 0)
	is("second", l.begin(finder, 11, false), probed)
	is("third, nothing was asked for", l.begin(finder, 12, false), -1)
	is("fourth", l.begin(finder, 13, false), -1)
	is("the same again", l.begin(finder, 13, false), -1)
	l.looked(finder, 13)
	l.looked(finder, 13)
	is("after it asked", l.begin(finder, 14, false), probed)
	is("and did not", l.begin(finder, 15, false), -1)

	is("first directory", l.begin(lister, 10, false), 0)
	is("second", l.begin(lister, 11, false), probed)
	l.looked(finder, 11)
	l.looked(lister, 12)
	l.looked(lister, 11)
	is("third, something was asked for", l.begin(lister, 12, false), probed)

	const restorer = 3
	is("an unlisted directory", l.begin(restorer, 10, true), -1)
	is("the next, nothing was asked for", l.begin(restorer, 11, true), -1)
	l.looked(restorer, 11)
	l.looked(restorer, 11)
	is("the next, something was asked for", l.begin(restorer, 12, true), probed)
	is("the next, nothing was", l.begin(restorer, 13, true), -1)

	for pid := uint32(100); pid < 100+2*listersMax; pid++ {
		l.begin(pid, 1, false)
	}
	if n := len(l.mu.byPID); n > listersMax {
		t.Errorf("%d threads are watched", n)
	}
}
