package integration

import (
	"fmt"
	"strings"
)

// withMemory makes directories of a volume, by their slash paths, ones of class memory.
func withMemory(dirs ...string) volumeOption {
	return func(v *volume) {
		var text strings.Builder
		text.WriteString("rules:\n")
		for _, d := range dirs {
			fmt.Fprintf(&text, "  - {match: %q, class: memory}\n", d+"/")
		}
		v.config = text.String()
	}
}
