package cold

import (
	"path"
	"strings"
)

// CleanPaths brings paths below a volume's root into one form, "a/b"; nil where they are everything.
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

// Wanted narrows paths from CleanPaths to a child of their directory: whole says that it is one of them, skip that it
// is none, and below lists what is wanted of it, nil for all.
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

// NameOf is what a finding calls a path: the root has a name too.
func NameOf(at string) string {
	if at == "" {
		return "."
	}
	return at
}
