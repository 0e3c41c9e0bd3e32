package tmpfs

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestForeign does not take what another state directory's daemon left.
func TestForeign(t *testing.T) {
	state := t.TempDir()
	a, err := Open(state, "machine-a", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(state, "machine-b", 1<<20); !errors.Is(err, ErrForeign) {
		t.Errorf("another machine's: %v", err)
	}
	again, err := Open(state, "machine-a", 1<<20)
	if err != nil || !again.Adopted {
		t.Fatalf("our own: %+v, %v", again, err)
	}
	if err := again.Resize(2 << 20); err != nil {
		t.Error(err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(again.Tree, &st); err != nil || int64(st.Blocks)*st.Bsize != 2<<20 {
		t.Errorf("after a resize: %d blocks, %v", st.Blocks, err)
	}
	if again.Swap != a.Swap {
		t.Errorf("may be swapped out: %v, was %v", again.Swap, a.Swap)
	}
	if err := errors.Join(again.Close(false), unix.Close(a.Tree)); err != nil {
		t.Error(err)
	}
}
