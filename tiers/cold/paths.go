package cold

import (
	"path"
	"strings"
)

// CleanPaths normalizes paths below a volume's root to the form "a/b". It returns nil, which stands for everything, if
// the list is empty or contains the root.
func CleanPaths(paths []string) []string {
	var want []string
	for _, p := range paths {
		p = strings.Trim(path.Clean("/"+p), "/")
		if p == "" {
			return nil
		}
		want = append(want, p)
	}
	return want
}

// Wanted narrows a list from CleanPaths to what it wants of the child called name: whole says that the child itself is
// in the list, skip that nothing at or below it is, and below is the list to use inside the child; nil stands for
// everything.
func Wanted(want []string, name string) (below []string, whole, skip bool) {
	if want == nil {
		return nil, false, false
	}
	for _, p := range want {
		first, rest, more := strings.Cut(p, "/")
		if first != name {
			continue
		}
		if !more {
			return nil, true, false
		}
		below = append(below, rest)
	}
	return below, false, below == nil
}

// NameOf returns the path as findings print it: the root is ".".
func NameOf(at string) string {
	if at == "" {
		return "."
	}
	return at
}
