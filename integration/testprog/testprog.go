// Package testprog writes executables for tests.
package testprog

import (
	"os"
	"syscall"
)

// Write writes an executable, with mode 0755, that can be started at once. Were another program started while the file
// is open, that program's process would hold the file open for writing until its own execve(2), and starting the
// executable would fail with ETXTBSY.
func Write[T string | []byte](path string, content T) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(content), 0o755)
}
