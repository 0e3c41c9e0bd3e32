//go:build slow

package wire

import "testing"

// TestHostileFloods is TestHostileServers for servers that do not come to an end.
func TestHostileFloods(t *testing.T) { besiege(t, isFlood) }
