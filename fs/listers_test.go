package fs

import "testing"

// TestListers: who asks for what it listed goes on getting attributes, who does not gets names alone, and either may change.
func TestListers(t *testing.T) {
	var l listers
	is := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: attributes stay away from %d files, want %d", what, got, want)
		}
	}
	const finder, lister = 1, 2
	is("first directory", l.begin(finder, 10), 0)
	is("second", l.begin(finder, 11), probed)
	is("third, nothing was asked for", l.begin(finder, 12), -1)
	is("fourth", l.begin(finder, 13), -1)
	is("the same again", l.begin(finder, 13), -1)
	l.looked(finder, 13)
	l.looked(finder, 13)
	is("after it asked", l.begin(finder, 14), probed)
	is("and did not", l.begin(finder, 15), -1)

	is("first directory", l.begin(lister, 10), 0)
	is("second", l.begin(lister, 11), probed)
	l.looked(finder, 11)
	l.looked(lister, 12)
	l.looked(lister, 11)
	is("third, something was asked for", l.begin(lister, 12), probed)

	for pid := uint32(100); pid < 100+2*listersMax; pid++ {
		l.begin(pid, 1)
	}
	if n := len(l.mu.byPID); n > listersMax {
		t.Errorf("%d threads are watched", n)
	}
}
