package tiers

import (
	"context"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestStubsWithoutRecords: a volume that has stubs or lazy directories does not open where their records cannot be
// read: it would show zeros and empty directories, and commit them.
func TestStubsWithoutRecords(t *testing.T) {
	for _, at := range []string{"", "d", "d/f"} {
		v, c := newVolume(t)
		write(t, v, mkdir(t, v, v.root, "d"), "f", "text")
		v.mustSync(t)
		next := openTiered(t, t.TempDir(), c)
		mustFind(t, next, at)
		must(t, next.Close())
		err := withoutAdmin(t, func() error {
			w, err := Open(context.Background(), next.cfg)
			if err != nil {
				return err
			}
			_, _ = w.Sync(context.Background(), "test")
			_ = w.Close()
			return nil
		})
		if err == nil {
			t.Errorf("%q: opened", at)
		}
		if third := openTiered(t, t.TempDir(), c); read(t, third, mustFind(t, third, "d/f")) != "text" {
			t.Errorf("%q: committed otherwise", at)
		}
	}
}

// withoutAdmin calls f on a thread that lacks CAP_SYS_ADMIN.
func withoutAdmin(t *testing.T, f func() error) error {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	must(t, unix.Capget(&head, &caps[0]))
	less := caps
	less[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
	must(t, unix.Capset(&head, &less[0]))
	defer func() { must(t, unix.Capset(&head, &caps[0])) }()
	return f()
}
