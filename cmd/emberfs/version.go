package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is the version of this source.
const release = "0.1.0"

// versionString returns the release, and the commit that it was built from if the build recorded it.
func versionString() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+changes"
			}
		}
	}
	if len(revision) < 12 {
		return release
	}
	return fmt.Sprintf("%s (%s%s)", release, revision[:12], dirty)
}

// versionLine is what `emberfs version` prints.
func versionLine() string {
	return fmt.Sprintf("emberfs %s, volume format %d, %s %s/%s", versionString(), stateFormat, runtime.Version(),
		runtime.GOOS, runtime.GOARCH)
}

// hasVariable reports whether a variable is set and not empty.
func hasVariable(environ []string, name string) bool {
	for _, e := range environ {
		if len(e) > len(name)+1 && e[:len(name)] == name && e[len(name)] == '=' {
			return true
		}
	}
	return false
}
