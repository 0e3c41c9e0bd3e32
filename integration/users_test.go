package integration

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

var fuseDevice struct {
	mu    sync.Mutex
	users int
	mode  os.FileMode
}

// openFuseDevice lets plain users open /dev/fuse until the test ends, as udev does where it runs.
func openFuseDevice(t testing.TB) {
	t.Helper()
	fuseDevice.mu.Lock()
	defer fuseDevice.mu.Unlock()
	if fuseDevice.users == 0 {
		fi, err := os.Stat("/dev/fuse")
		check(t, err)
		fuseDevice.mode = fi.Mode().Perm()
		check(t, os.Chmod("/dev/fuse", 0o666))
	}
	fuseDevice.users++
	t.Cleanup(func() {
		fuseDevice.mu.Lock()
		defer fuseDevice.mu.Unlock()
		if fuseDevice.users--; fuseDevice.users == 0 {
			check(t, os.Chmod("/dev/fuse", fuseDevice.mode))
		}
	})
}

// isolated runs f on a thread of its own with its own umask and working directory; the thread ends with it. f must not
// call t.Fatal: errors come back.
func isolated(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime then ends the thread
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- fmt.Errorf("unshare: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// asUser runs f on a thread that has another identity and no capabilities.
func asUser(u user, f func() error) error {
	return isolated(func() error {
		groups := make([]int, len(u.groups))
		for i, g := range u.groups {
			groups[i] = int(g)
		}
		if err := threadGroups(groups); err != nil {
			return fmt.Errorf("setgroups: %w", err)
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(u.gid), uintptr(u.gid), uintptr(u.gid)); e != 0 {
			return fmt.Errorf("setresgid: %w", e)
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(u.uid), uintptr(u.uid), uintptr(u.uid)); e != 0 {
			return fmt.Errorf("setresuid: %w", e)
		}
		return f()
	})
}

// helperCommand prepares this test binary as another process that runs one of the helpers.
func helperCommand(name string, as user, args ...string) *exec.Cmd {
	self := env.self
	if self == "" {
		self = os.Getenv("EMBERFS_TEST_SELF")
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), helperVar+"="+name, "EMBERFS_TEST_SELF="+self)
	if !as.isRoot() {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: as.uid, Gid: as.gid, Groups: as.groups}}
	}
	return cmd
}
